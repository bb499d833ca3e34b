"""What the command line prints: lines that no file name can break, to streams that may be closed or full."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from ..messages import printable


def say(message: str) -> None:
    """Print a line to standard output.

    Raises:
        BrokenPipeError: whoever read the output has gone.
        OSError: the output cannot be written, such as to a full disk.
    """
    _print(sys.stdout, message, "")


def complain(message: str, *details: str) -> None:
    """Print a line and its details to standard error; where that cannot be written, nobody is left to tell."""
    with suppress(OSError):
        _print(sys.stderr, message, "upsr: ")
        for detail in details:
            _print(sys.stderr, detail, "  ")


def _print(stream: TextIO | None, message: str, before: str) -> None:
    if stream is None:  # closed before we were started
        return
    encoding = stream.encoding or "utf-8"
    line = printable(message).encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(before + line, file=stream, flush=True)
    except OSError as error:
        # Or Python would try to write what the stream still holds once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise OSError(error.errno, f"the output cannot be written ({error.strerror})") from error
