"""What a study found, and where it goes: the screen, docs/experiments.md, and files beside it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from upsr_core.evaluation.report import machine, versions

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "experiments.md"


@dataclass
class Findings:
    """The result of a study.

    Attributes:
        text: Markdown: the table, and what it shows.
        data: numbers and settings for the JSON file.
        pictures: by the end of the file's name: a chart's SVG text or a picture.
    """

    text: str
    data: dict[str, Any]
    pictures: Mapping[str, str | Image.Image] = field(default_factory=dict)


def commit() -> str:
    """The repository's commit, with a mark where the code differs from it; "" outside of a repository."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "upsr_core", "trainer", "benchmarks")
    return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


def write(name: str, command: str, findings: Findings, document: Path = DOCUMENT) -> None:
    """Put the findings between the marks of the study in the document, and its files into a folder beside it.

    Raises:
        ValueError: the document has no such marks.
    """
    folder = document.with_suffix("")
    folder.mkdir(exist_ok=True)
    lines = [f"```\n{command}\n```", findings.text.strip()]
    for end, picture in findings.pictures.items():
        path = folder / f"{name}{end}"
        if isinstance(picture, str):
            path.write_text(picture, encoding="utf-8")
        else:
            picture.save(path, quality=88)
        lines.append(f"![{name}]({folder.name}/{path.name})")
    lines.append(f"[Numbers]({folder.name}/{name}.json)")
    facts = {"command": command, "commit": commit(), "machine": machine(), "versions": versions(), **findings.data}
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    text = document.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{document}: lacks the lines {begin} and {end}; add them where the study belongs")
    section = "\n\n".join([begin, *lines, end])
    document.write_text(pattern.sub(lambda match: section, text), encoding="utf-8")
