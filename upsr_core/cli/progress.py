"""Progress of a run, and the time that is left."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from PIL import Image

from .output import complain, on_terminal, show_status

# Calls of networks to judge the next ones by: the SR network's, which come first, take longer than the denoiser's.
RECENT_CALLS = 9
SECONDS_BETWEEN_STATUSES = 0.1
# Where nobody looks at a terminal, but may look at a log.
SECONDS_BETWEEN_LINES = 30.0


class RunProgress:
    """Tells of the images done and the seconds left: at the bottom of a terminal, or in a line now and then elsewhere.

    Args:
        pixels: of each image of the run, by `count_pixels`.
        quiet: tell nothing.
        clock: the time in seconds.
    """

    def __init__(self, pixels: Sequence[int], *, quiet: bool = False, clock: Callable[[], float] = time.monotonic):
        self._pixels, self._quiet, self._clock = pixels, quiet, clock
        self._index, self._name = -1, ""
        self._pixels_done, self._seconds_done = 0, 0.0
        self._calls: deque[float] = deque(maxlen=RECENT_CALLS)
        self._started = self._called_at = self._told_at = clock()

    def begin(self, index: int, name: str) -> None:
        """Work on this image, counted from 0, begins."""
        self._index, self._name = index, name
        self._calls.clear()
        self._started = self._called_at = self._clock()
        self._tell(self._heading())

    def end(self) -> None:
        """The image is done."""
        self._pixels_done += self._pixels[self._index]
        self._seconds_done += self._clock() - self._started

    def called(self, done: int, total: int) -> None:
        """Note the calls of networks that are done for this image; a ``callback_on_tile_end`` of the pipeline."""
        now = self._clock()
        self._calls.append(now - self._called_at)
        self._called_at = now
        left = median(self._calls) * (total - done)
        text = f"{self._heading()}: {100 * done // total} %, {duration(left)} left"
        if self._index + 1 < len(self._pixels):
            text += f"; {duration(left + self._seconds_for_others(now - self._started + left))} for all"
        self._tell(text)

    def _seconds_for_others(self, seconds_for_this: float) -> float:
        """For the images after this one, by their pixels."""
        pixels = self._pixels_done + self._pixels[self._index]
        return (self._seconds_done + seconds_for_this) * sum(self._pixels[self._index + 1 :]) / max(1, pixels)

    def _heading(self) -> str:
        many = len(self._pixels) > 1
        return f"[{self._index + 1}/{len(self._pixels)}] {self._name}" if many else self._name

    def _tell(self, text: str) -> None:
        if self._quiet:
            return
        now = self._clock()
        terminal = on_terminal(sys.stderr)
        if now - self._told_at < (SECONDS_BETWEEN_STATUSES if terminal else SECONDS_BETWEEN_LINES):
            return
        self._told_at = now
        if terminal:
            show_status(text)
        else:
            complain(text)


def count_pixels(path: Path | None) -> int:
    """Pixels of an image file by its header; 1 where that does not say, which reading it will."""
    if path is None or not path.is_file():
        return 1
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1


def duration(seconds: float) -> str:
    """As people say it: ``8 s``, ``2 min 5 s``, ``3 h 10 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
