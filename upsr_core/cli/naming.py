"""Names of result files: templates such as ``"{stem}_x4"``."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

FIELDS = ("stem", "ext", "seed")


@dataclass(frozen=True)
class Naming:
    """Names of results, without their file type.

    Attributes:
        template: text with ``{stem}`` and ``{ext}``, the input's name and file type (without its dot), and ``{seed}``.
        seed: for ``{seed}``.

    Raises:
        ValueError: another field, a format, or a name that would lead into another folder.
    """

    template: str
    seed: int = 0

    def __post_init__(self) -> None:
        try:
            fields = [part[1:] for part in Formatter().parse(self.template) if part[1] is not None]
        except ValueError as error:
            raise ValueError(f"--name {self.template}: {error}; write {{{{ for a brace") from error
        for name, layout, conversion in fields:
            if name not in FIELDS or layout or conversion:
                raise ValueError(f"--name {self.template}: only {', '.join(f'{{{f}}}' for f in FIELDS)} are filled in")
        if not self.template or re.search(r"[/\\\0]", self.template):
            raise ValueError(f"--name {self.template}: must be a name and no path; -o takes the folder")

    def name(self, source: Path, suffix: str) -> str:
        """The name of the result of ``source``, ending in ``suffix``."""
        return self.template.format(stem=source.stem, ext=source.suffix[1:], seed=self.seed) + suffix

    def could_have_made(self, path: Path, stems: Container[str]) -> bool:
        """Whether the file may be an earlier result, by its name.

        Args:
            path: of the file.
            stems: of the images beside it. Without a word of its own, a template such as ``{stem}_{seed}`` fits the
                names of many cameras, so an input with the stem must be there.
        """
        if self.template == "{stem}":
            return False
        marks = {"stem": "\0", "ext": "\1", "seed": "\2"}
        pattern = re.escape(self.template.format(**marks))
        for mark, meaning in {"\0": "(?P<stem>.+)", "\1": r"\w+", "\2": r"\d+"}.items():
            # A field that comes twice is the same each time, which the first one stands for.
            first, *others = pattern.split(re.escape(mark))
            pattern = meaning.join([first, ".+".join(others)]) if others else first
        match = re.fullmatch(pattern, path.stem, re.DOTALL)
        if match is None or "stem" not in match.groupdict():
            return match is not None
        has_word = any(letter.isalnum() for letter in self.template.format(stem="", ext="", seed=""))
        return has_word or match["stem"] in stems
