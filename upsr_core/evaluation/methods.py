"""The methods to compare: their text form, and checks that need no torch."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..choices import COLOR_FIXES, LARGEST_NOISE

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
_LABEL = re.compile(r"([^=,:/\\]+)=(.+)")
EXTRA = 'pip install "upsr[eval]"'


def _number(kind: Callable[[str], Any], low: float, high: float) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return read


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    return read


_TILE = {"tile": _number(int, 0, 1e9)}
_STEPS = {"steps": _number(int, 1, 1e6)}
OPTIONS: dict[str, dict[str, Callable[[str], Any]]] = {
    "bicubic": {},
    "g": {},
    "upsr": {
        **_STEPS,
        **_TILE,
        "stochasticity": _number(float, 0, 1),
        "noise_strength": _number(float, 0, LARGEST_NOISE),
        "flat_threshold": _number(float, 0, 1),
        "adaptive_steps": _number(float, 1e-6, 1),
        "color_fix": _one_of(COLOR_FIXES),
    },
    "ncnn": _TILE,
    "spandrel": _TILE,
    "ldm": _STEPS,
    "folder": {},
}
"""Kinds of methods with the options of each."""


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        label: its name there.
        kind: of `OPTIONS`.
        source: model folder, file or images; "" for none.
        options: values by the name of the option.
    """

    label: str
    kind: str
    source: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_random(self) -> bool:
        """Whether its result depends on a seed."""
        return self.kind in ("upsr", "ldm")

    @property
    def folder_name(self) -> str:
        """Its label as a name for files."""
        return re.sub(r"[^\w.+=-]+", "_", self.label)


def parse_methods(texts: Sequence[str]) -> list[Method]:
    """Read ``[LABEL=]KIND[:SOURCE][,option=value...]``; a file alone is a checkpoint or an ncnn model.

    Raises:
        ValueError: in one line, for what cannot be understood or is not there.
    """
    methods = [_parse(text) for text in texts]
    for index, method in enumerate(methods):
        same = [other for other in methods[:index] if other.folder_name == method.folder_name]
        if same:
            raise ValueError(f"{texts[index]}: a second method called {method.label}; write NAME={texts[index]}")
    return methods


def _parse(text: str) -> Method:
    head, *parts = text.split(",")
    match = _LABEL.fullmatch(head)
    label, head = match.groups() if match else ("", head)
    kind, _, source = head.partition(":")
    if kind not in OPTIONS:
        kind, source = _kind_of_file(head), head
    if not kind:
        raise ValueError(
            f"{text}: no such method; use {', '.join(OPTIONS)}, each but bicubic with :SOURCE, or a checkpoint's file"
        )
    options = {}
    for part in parts:
        name, _, value = part.partition("=")
        known = OPTIONS[kind]
        if name not in known:
            known_names = ", ".join(known) or "no options"
            raise ValueError(f"{text}: {name!r} is no option of {kind}; it has {known_names}")
        try:
            options[name] = known[name](value)
        except ValueError:
            raise ValueError(f"{text}: {name}={value} is out of its range") from None
    source = _checked_source(text, kind, source)
    return Method(label or _default_label(kind, source, parts), kind, source, options)


def _kind_of_file(head: str) -> str:
    suffix = Path(head).suffix.lower()
    return "ncnn" if suffix == ".param" else "spandrel" if suffix in CHECKPOINT_SUFFIXES else ""


def _default_label(kind: str, source: str, parts: Sequence[str]) -> str:
    path = Path(source)
    if kind in ("ncnn", "spandrel"):
        name = path.stem
    elif kind == "folder":
        name = path.resolve().name
    else:
        name = f"{kind}:{path.name}" if source else kind
    return ", ".join([name, *parts])


def _checked_source(text: str, kind: str, source: str) -> str:
    if kind == "bicubic" and source:
        raise ValueError(f"{text}: bicubic takes no source")
    if kind in ("ncnn", "spandrel", "ldm", "folder") and not source:
        raise ValueError(f"{text}: names no source; write {kind}:PATH")
    if kind == "ncnn":
        param = Path(source if source.endswith(".param") else f"{source}.param")
        for file in (param, param.with_suffix(".bin")):
            if not file.is_file():
                raise ValueError(f"{file}: no such file; an ncnn model is a pair NAME.param and NAME.bin")
        source = str(param)
    if kind == "spandrel" and not Path(source).is_file():
        raise ValueError(f"{source}: no such checkpoint file")
    if kind == "folder" and not Path(source).is_dir():
        raise ValueError(f"{source}: no such folder of images")
    # diffusers has LDM super-resolution only where transformers is installed.
    package = {"ldm": "transformers"}.get(kind, kind)
    if kind in ("ncnn", "spandrel", "ldm") and importlib.util.find_spec(package) is None:
        raise ValueError(f"{text}: needs the package {package}, which is not installed; {EXTRA}")
    return source
