"""Memory that the process keeps, in a process of its own: the setting is for good."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from upsr_core.allocation import keep_freed_memory
from upsr_core.cli.main import main

MEASURE = """
import resource, sys
from upsr_core.allocation import keep_freed_memory
print(keep_freed_memory() if "keep" in sys.argv else False)
def faults(size=48 * 2**20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        b"x" * size
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def _measure(*argv: str) -> tuple[str, int]:
    run = subprocess.run([sys.executable, "-c", MEASURE, *argv], capture_output=True, text=True, check=True)
    kept, faults = run.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_blocks_of_48_mib_are_not_fresh_pages_at_every_call() -> None:
    usual, kept = _measure(), _measure("keep")
    assert (usual[0], kept[0]) == ("False", "True")
    assert kept[1] < usual[1] / 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False


def test_the_command_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[str] = []
    monkeypatch.setattr("upsr_core.cli.main.keep_freed_memory", lambda: calls.append("kept"))
    assert main(["upscale", str(tmp_path / "none.png")]) == 2
    assert calls == ["kept"]
