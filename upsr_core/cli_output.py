"""What the command line prints: lines that no file name can break, to streams that may be closed or full."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from .messages import printable


def say(message: str) -> None:
    """Print a line to standard output.

    Raises:
        BrokenPipeError: whoever read the output has gone.
        OSError: the output cannot be written, such as to a full disk.
    """
    _print(sys.stdout, message, "")


def complain(message: str, *details: str) -> None:
    """Print a line and its details to standard error; where that cannot be written, nobody is left to tell."""
    try:
        _print(sys.stderr, message, "upsr: ")
        for detail in details:
            _print(sys.stderr, detail, "  ")
    except OSError:
        abandon(sys.stderr)


def abandon(stream: TextIO | None) -> None:
    """Drop what a stream still holds, or Python would try to write it once more at its end, and complain."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print(stream: TextIO | None, message: str, before: str) -> None:
    if stream is None:  # closed before we were started
        return
    encoding = stream.encoding or "utf-8"
    line = printable(message).encode(encoding, "backslashreplace").decode(encoding)
    print(before + line, file=stream, flush=True)
