"""What the command line prints: lines that no file name can break, to streams that may be closed or full."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def say(message: str) -> None:
    """Print a line to standard output.

    Raises:
        BrokenPipeError: whoever read the output has gone.
        OSError: the output cannot be written, such as to a full disk.
    """
    _print(sys.stdout, message, "")


def complain(message: str, *details: str) -> None:
    """Print a line, and one for each detail, to standard error; where that cannot be written, nobody is left to tell."""
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


def printable(text: str) -> str:
    """The text with control characters, such as newlines and the terminal's escape codes, shown and not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(error: BaseException, longest: int = 500) -> str:
    """The error's text in one line of at most about ``longest`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[:longest]} ... ({len(text) - longest} more characters)"


def _print(stream: TextIO | None, message: str, before: str) -> None:
    if stream is None:  # closed before we were started
        return
    encoding = stream.encoding or "utf-8"
    line = printable(message).encode(encoding, "backslashreplace").decode(encoding)
    print(before + line, file=stream, flush=True)
