"""Reports of runs: a line of JSON for each image, from which it can be made again."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .output import complain
from .paths import STANDARD, Job

# What says where images are and how a run talks, and not how they are made.
_NOT_SETTINGS = {
    *("command", "inputs", "out", "recursive", "format", "name", "skip_existing", "seed"),
    *("report", "quiet", "verbose", "model_sha256", "several"),
}


class ReportWriter:
    """Appends to a report.

    Args:
        path: of the report; begun where it is missing.

    Raises:
        ValueError: it cannot be written, or is another file.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with open(path, "ab+") as file:
                file.seek(0)
                if file.read(1) not in (b"", b"{"):
                    raise ValueError(f"{path}: is no report of upsr; name another --report")
                if file.tell():
                    # The half line of a killed run stays there.
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
        except OSError as error:
            raise ValueError(f"{path}: the report cannot be written ({error.strerror}); name another place") from error

    def write(self, record: dict[str, Any]) -> None:
        """Append a line.

        Raises:
            OSError: it cannot be written.
        """
        # One write of one line: several runs may share a report.
        try:
            with open(self.path, "ab", buffering=0) as file:
                file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise OSError(error.errno, f"{self.path}: the report cannot be written ({error.strerror})") from error


def record_of(
    args: argparse.Namespace, job: Job, software: dict[str, str], seconds: float, error: str | None
) -> dict[str, Any]:
    """One line of a report: an image.

    Args:
        args: of the command.
        job: the image.
        software: ``model_sha256``, ``device`` and versions.
        seconds: that it took.
        error: why there is no result, or None.
    """
    return {
        "command": args.command,
        "input": _absolute(job.source),
        "output": _absolute(job.target),
        "seed": getattr(args, "seed", None),
        "settings": settings_of(args),
        **software,
        "seconds": round(seconds, 3),
        "error": error,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of a run, without the seed: by option, as the command line takes it."""
    return {name: _as_given(name, value) for name, value in vars(args).items() if name not in _NOT_SETTINGS}


@dataclass(frozen=True)
class Group:
    """Images that a report says were made alike.

    Attributes:
        arguments: a command line without inputs.
        model_sha256: of the model.
        jobs: the images.
    """

    arguments: list[str]
    model_sha256: str
    jobs: list[Job]


def read_report(path: Path, out: Path | None = None) -> list[Group]:
    """The jobs that make a report's images again; of several lines for one result, the last counts.

    Args:
        path: of the report.
        out: folder for the results, which keep the folders below the innermost that holds them all; None: where they
            were.

    Raises:
        ValueError: it is no report; the message names the line.
    """
    latest = {record["output"]: record for record in _records(path)}
    if not latest:
        raise ValueError(f"{path}: tells of no images")
    # On Windows folders on several drives have nothing in common.
    common = None if out is None else os.path.commonpath([os.path.dirname(output) for output in latest])
    groups: dict[str, Group] = {}
    for record in latest.values():
        arguments = _arguments(record)
        key = json.dumps([arguments, record["model_sha256"]])
        group = groups.setdefault(key, Group(arguments, record["model_sha256"], []))
        target = Path(record["output"])
        target = target if out is None or common is None else out / target.relative_to(common)
        group.jobs.append(Job(Path(record["input"]), target, target.suffix.lower()))
    return list(groups.values())


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ValueError(f"{path}: cannot be read as a report ({reason})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            complain(f"warning: {path}: line {number} is cut off, as a killed run leaves it, and was left out")
            continue
        texts = ("command", "input", "output", "model_sha256")
        if not isinstance(record, dict) or not isinstance(record.get("settings"), dict) or set(texts) - set(record):
            raise ValueError(f"{path}: line {number} is none of a report of upsr")
        if STANDARD in (record["input"], record["output"]):
            raise ValueError(f"{path}: line {number} tells of the standard input or output, which cannot be repeated")
        if not all(isinstance(record[name], str) for name in texts):
            raise ValueError(f"{path}: line {number}: {', '.join(texts)} must be texts")
        yield record


def _arguments(record: dict[str, Any]) -> list[str]:
    options = {**record["settings"], "seed": record.get("seed")}
    # By identity: a setting of 0 equals False.
    given = {f"--{name.replace('_', '-')}": value for name, value in options.items() if value is not None}
    flags = [option if value is True else f"{option}={value}" for option, value in given.items() if value is not False]
    return [record["command"], *sorted(flags)]


def _absolute(path: Path | None) -> str:
    return STANDARD if path is None else os.path.abspath(path)


def _as_given(name: str, value: Any) -> Any:
    if name == "tile":
        return {None: "auto", 0: "off"}.get(value, value)
    if name == "background" and value is not None:
        return "#" + "".join(f"{round(level * 255):02x}" for level in value)
    if name == "model" and value is not None and Path(value).exists():
        return os.path.abspath(value)
    return value
