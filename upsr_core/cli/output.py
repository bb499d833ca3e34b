"""Output of the command line: lines that no file name can break, to streams that may be closed or full.

Results go to the standard output, all else to the standard error: errors, warnings, and how far the work is.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from ..messages import UPSRWarning, printable

_CLEAR_LINE = "\r\x1b[K"
_status_shown = False


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


def emit(data: bytes) -> None:
    """Write bytes to standard output.

    Raises:
        BrokenPipeError, OSError: as `say`.
    """
    if sys.stdout is None:
        raise OSError("the output cannot be written (it is closed)")
    _clear_status()
    with _told_once(sys.stdout):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def on_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at the stream."""
    return stream is not None and not stream.closed and stream.isatty()


def show_status(text: str) -> None:
    """Show a line at the bottom of the terminal until anything else is printed; elsewhere nothing."""
    global _status_shown
    if sys.stderr is None or not on_terminal(sys.stderr):
        return
    line = _encodable(sys.stderr, text)[: shutil.get_terminal_size().columns - 1]
    with suppress(OSError):
        sys.stderr.write(_CLEAR_LINE + line)
        sys.stderr.flush()
        _status_shown = True


def _clear_status() -> None:
    global _status_shown
    if _status_shown:
        _status_shown = False
        with suppress(OSError):
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()


@contextmanager
def our_messages(verbose: bool) -> Iterator[None]:
    """Have warnings printed as lines of ours; those of libraries only if ``verbose``."""
    own, root = logging.getLogger("upsr_core"), logging.getLogger()
    # A logger without handlers would print by itself.
    handlers = [(own, _Handler()), *([] if verbose else [(root, logging.NullHandler())])]

    def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if verbose or issubclass(category, UPSRWarning):
            complain(f"warning: {message}")

    for logger, handler in handlers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            yield
    finally:
        _clear_status()
        for logger, handler in handlers:
            logger.removeHandler(handler)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            complain(f"warning: {record.getMessage()}")


def _print(stream: TextIO | None, message: str, before: str) -> None:
    if stream is None:  # closed before we were started
        return
    _clear_status()
    with _told_once(stream):
        print(before + _encodable(stream, message), file=stream, flush=True)


def _encodable(stream: TextIO, message: str) -> str:
    encoding = stream.encoding or "utf-8"
    return printable(message).encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def _told_once(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Otherwise Python would try to write the rest of the stream again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise OSError(error.errno, f"the output cannot be written ({error.strerror})") from error
