from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from tests.core.cli.photos import save_photo
from upsr_core.cli.output import complain
from upsr_core.cli.progress import RunProgress, count_pixels, duration


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What was seen on the line at the bottom, one after the other."""
        return [line for line in self.getvalue().split("\r\x1b[K") if line]


def watch(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """What is seen on a terminal of 80 columns. No fixture: pytest sets its own stream after those."""
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_seconds_left_are_known_from_the_first_tile_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = watch(monkeypatch), Clock()
    progress = RunProgress([100], clock=clock)
    clock.now = 10
    progress.begin(0, "a.png")
    for done in range(1, 4):
        clock.now += 4 if done == 1 else 2  # the first call is the SR network's
        progress.called(done, 11)
    assert terminal.lines() == [
        "a.png",
        "a.png: 9 %, 40 s left",
        "a.png: 18 %, 27 s left",
        "a.png: 27 %, 16 s left",  # eight calls as most of those before: the slow one counts no more
    ]


def test_a_folder_tells_images_done_and_the_time_for_all_by_their_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = watch(monkeypatch), Clock()
    progress = RunProgress([100, 300, 200], clock=clock)
    for index, name in enumerate(["a", "b"]):
        clock.now += 1
        progress.begin(index, name)
        clock.now += 10 if name == "a" else 15
        progress.called(1, 2)
        if name == "a":
            clock.now += 10
            progress.called(2, 2)
            progress.end()
    assert terminal.lines() == [
        "[1/3] a",
        "[1/3] a: 50 %, 10 s left; 1 min 50 s for all",  # 20 s for 100 pixels, and 500 are to follow
        "[1/3] a: 100 %, 0 s left; 1 min 40 s for all",
        "[2/3] b",
        "[2/3] b: 50 %, 15 s left; 40 s for all",  # 50 s for 400, and 200 are to follow
    ]


def test_the_line_gives_way_to_what_is_printed_and_fits_into_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = watch(monkeypatch), Clock()
    progress = RunProgress([1], clock=clock)
    clock.now = 1
    progress.begin(0, "new\nline" + "x" * 100)
    complain("warning: w")
    assert terminal.getvalue() == "\r\x1b[Knew\\nline" + "x" * 70 + "\r\x1b[Kupsr: warning: w\n"


def test_elsewhere_there_are_only_lines_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, clock = io.StringIO(), Clock()
    monkeypatch.setattr(sys, "stderr", stream)
    progress = RunProgress([1], clock=clock)
    progress.begin(0, "a.png")
    for done in range(1, 101):
        clock.now += 1
        progress.called(done, 100)
    assert stream.getvalue().splitlines() == [
        "upsr: a.png: 30 %, 1 min 10 s left",
        "upsr: a.png: 60 %, 40 s left",
        "upsr: a.png: 90 %, 10 s left",
    ]


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = watch(monkeypatch), Clock()
    progress = RunProgress([1], quiet=True, clock=clock)
    clock.now = 100
    progress.begin(0, "a.png")
    progress.called(1, 2)
    assert terminal.getvalue() == ""


def test_pixels_by_the_header(tmp_path: Path) -> None:
    assert count_pixels(save_photo(tmp_path / "a.png", size=(20, 13))) == 260
    (tmp_path / "b.png").write_text("no image")
    os.mkfifo(tmp_path / "pipe")
    assert count_pixels(tmp_path / "pipe") == 1
    assert [count_pixels(path) for path in (tmp_path / "b.png", tmp_path / "none.png", tmp_path, None)] == [1, 1, 1, 1]


def test_durations_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 125, 11400)] == ["0 s", "1 min 0 s", "2 min 5 s", "3 h 10 min"]
