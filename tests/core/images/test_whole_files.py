from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from upsr_core.images.whole_files import remove_leftover_files, write_whole

WRITER = """
import os, sys, time
from pathlib import Path
from upsr_core.images import whole_files
os.fsync = lambda _: (print("writing", flush=True), time.sleep(60))
whole_files.write_whole(Path(sys.argv[1]), b"new")
"""


def test_a_file_is_replaced_and_nothing_else_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    write_whole(tmp_path / "a", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"new"}


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_leftovers_of_a_killed_run_go_and_a_living_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "a")], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        remove_leftover_files(tmp_path)
        assert len(list(tmp_path.glob(".upsr-*.tmp"))) == 1
        writer.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.glob(".upsr-*.tmp"))) == 1
    remove_leftover_files(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_a_file_that_is_about_to_be_locked_is_left_alone(tmp_path: Path) -> None:
    fresh, old = tmp_path / ".upsr-fresh.tmp", tmp_path / ".upsr-old.tmp"
    fresh.touch()
    old.touch()
    os.utime(old, (time.time() - 3600,) * 2)
    remove_leftover_files(tmp_path)
    assert fresh.exists()
    assert not old.exists()
