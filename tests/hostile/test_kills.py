"""Runs that are killed: no half file is taken for a whole one, and the next run goes on.

Each signal at one moment; with UPSR_KILLS=20 in the environment at 20 moments, and in `benchmarks.reliability` at
random ones.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.reliability import (
    SIGNALS,
    UPSR,
    Outcome,
    files_in,
    hear_interrupts,
    is_worker,
    kill_folder_run,
    start,
    start_training,
    temporary_files,
    upscale_command,
    write_images,
)
from tests.trainer.runs import write_denoiser_config
from upsr_core.cli.main import main

KILLS = int(os.environ.get("UPSR_KILLS", "1"))
IMAGES = 25


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("kills") / "in", IMAGES, 24)


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> list[str]:
    return ["--model", str(tiny_folder), "--device", "cpu"]


@pytest.fixture(scope="module")
def reference(images: Path, model: list[str]) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    out = images.with_name("whole")
    assert main(["upscale", str(images), "-o", str(out), "--steps", "1", *model]) == 0
    return files_in(out)


# SIGKILL at one moment is in the test of half-written files.
@pytest.mark.parametrize("number", SIGNALS if KILLS > 1 else SIGNALS[:2])
def test_a_killed_folder_run_leaves_whole_files_and_the_next_goes_on(
    number: signal.Signals, images: Path, model: list[str], reference: dict[str, bytes], tmp_path: Path
) -> None:
    outcome, out = Outcome(), tmp_path / "out"
    for kill in range(KILLS):

        def wait(process: subprocess.Popen[str], made: int = 1 + kill) -> None:
            while process.poll() is None and len(files_in(out)) < made:
                time.sleep(0.002)

        command = upscale_command(images, out, model)
        kill_folder_run(command, out, reference, number, wait, outcome, lambda again: main(again[len(UPSR) :]))
    assert outcome == Outcome(kills=KILLS), outcome


def test_what_a_killed_run_left_half_written_is_removed_and_a_living_ones_is_not(
    images: Path, model: list[str], reference: dict[str, bytes], tmp_path: Path
) -> None:
    """Stopped at a moment when its temporary file is there."""
    out = tmp_path / "out"
    one = ["upscale", str(images / "00000.png"), "-o", f"{out}/", "--steps", "1", *model]
    with start(upscale_command(images, out, model)) as process:
        try:
            while process.poll() is None and not files_in(out):
                time.sleep(0.002)
            (left,) = stopped_while_writing(process, out)
            assert main(one) == 0
            assert left.exists(), "a living run's"
        finally:
            process.kill()
    assert main([*one, "--skip-existing"]) == 0
    # One that was killed before it was locked is kept for a minute, as a living run's may be.
    assert [path.stat().st_size for path in temporary_files(out)] in ([], [0])
    assert all(reference[name] == data for name, data in files_in(out).items())


def stopped_while_writing(process: subprocess.Popen[str], out: Path) -> list[Path]:
    """Stop a run at a moment when its temporary file is there."""
    while True:
        assert process.poll() is None, "it ended before it could be stopped"
        process.send_signal(signal.SIGSTOP)
        while psutil.Process(process.pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0)
        if found := list(out.glob(".upsr-*.tmp")):
            return found
        process.send_signal(signal.SIGCONT)
        time.sleep(0.0005)


@pytest.mark.parametrize("victim", [0, 1] if KILLS > 1 else [1])
def test_a_training_process_that_dies_ends_the_other_with_a_line(victim: int, tmp_path: Path) -> None:
    config = write_denoiser_config(tmp_path)
    limits = ["unet_training.max_steps=100000", "log_every=1", "trackers=[]", "unet_training.batch_size=1"]
    process = start_training(2, ["--config", str(config), *limits])
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(r"unet \d+: .*loss", line):
            break
    workers = sorted(psutil.Process(process.pid).children(recursive=True), key=lambda worker: worker.pid)
    [worker for worker in workers if is_worker(worker)][victim].kill()
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    lines = [line for line in said.splitlines() if line.startswith("train.py: ")]
    assert len(lines) == 1
    assert lines[0].startswith("train.py: error: another process has ended, and so this one does; see what it has said")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_libraries_are_imported_is_one_line(
    number: signal.Signals, images: Path, tmp_path: Path
) -> None:
    """An import that interrupts, as extension modules turn the exception into another."""
    module = tmp_path / "diffusers.py"
    module.write_text(
        f"import os\ntry:\n    os.kill(os.getpid(), {int(number)})\n    while True:\n        pass\n"
        "except KeyboardInterrupt as error:\n    raise ImportError('initialization failed') from error\n"
    )
    command = upscale_command(images, tmp_path / "out")
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}
    run = subprocess.run(
        command, capture_output=True, text=True, env=path, check=False, preexec_fn=hear_interrupts, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "upsr: interrupted\n")
