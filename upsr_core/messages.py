"""Text for people: one line, whatever it is made of."""

from __future__ import annotations


class UPSRWarning(UserWarning):
    """A warning for the user. The command line shows it, and warnings of libraries only when asked to."""


def printable(text: str) -> str:
    """The text with control characters, such as newlines and the terminal's escape codes, shown and not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(error: BaseException, longest: int = 500) -> str:
    """The error's text in one line of at most about ``longest`` characters; its type where it says nothing."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"  # without the number that means the same
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[:longest]} ... ({len(text) - longest} more characters)"
