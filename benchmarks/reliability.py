"""What runs survive: kills at random moments, two runs at once; and how soon `upsr` answers.

``python -m benchmarks.reliability [kills] [training] [together] [start] [--kills N] [--seed N]``
prints the tables of docs/reliability.md. All of it takes about half an hour on two cores. `benchmarks.folder` measures
folders of many files.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from safetensors.torch import load_file

from benchmarks.common import machine, markdown_table
from tests.trainer.runs import TRAIN, assert_same_tensors, environment, launch_two, write_denoiser_config

UPSR = [sys.executable, "-m", "upsr_core.cli"]
FOLDER_OF_UPSR = Path(__file__).parents[1]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
TEMPORARY = (".upsr-*.tmp", "*.partial", "*.old")


@dataclass
class Outcome:
    """What was seen over several kills.

    Attributes:
        kills: runs that were ended by the signal before they had finished.
        half: results that were not what an undisturbed run writes, right after the kill.
        wrong: the same after the next run.
        left: temporary files after the next run.
        untold: runs that ended by a signal they can hear without the one line that says so.
        odd: what those have said instead.
    """

    kills: int = 0
    half: int = 0
    wrong: int = 0
    left: int = 0
    untold: int = 0
    odd: list[str] = field(default_factory=list)


def write_images(folder: Path, count: int, side: int) -> Path:
    """Different little images of random blocks."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        blocks = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        blocks.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{index:05d}.png")
    return folder


def start(command: Sequence[str | Path]) -> subprocess.Popen[str]:
    """In a session of its own, so that a signal meets it alone; it hears SIGINT even where we do not."""
    options: dict[str, Any] = {
        "env": {**os.environ, "PYTHONPATH": str(FOLDER_OF_UPSR)},
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.PIPE,
        "preexec_fn": hear_interrupts,
    }
    return subprocess.Popen(list(map(str, command)), text=True, start_new_session=True, **options)


def hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def files_in(folder: Path) -> dict[str, bytes]:
    """The results, without hidden files."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return {path.name: path.read_bytes() for path in paths if not path.name.startswith(".")}


def temporary_files(folder: Path) -> list[Path]:
    return [path for pattern in TEMPORARY for path in folder.rglob(pattern)]


def upscale_command(images: Path, out: Path, model: Sequence[str] = ()) -> list[str]:
    return [*UPSR, "upscale", str(images), "-o", str(out), "--steps", "1", "--threads", "1", *model]


def kill_folder_run(
    command: Sequence[str],
    out: Path,
    reference: dict[str, bytes],
    number: signal.Signals,
    wait: Callable[[subprocess.Popen[str]], None],
    outcome: Outcome,
    again: Callable[[Sequence[str]], int],
) -> None:
    """Start a run, kill it when ``wait`` returns, look, let another go on with ``--skip-existing``, look again.

    Args:
        command: of the run.
        out: the folder it writes to.
        reference: what an undisturbed run writes there.
        number: the signal.
        wait: is given the process.
        outcome: is added to.
        again: runs a command and returns its status.
    """
    shutil.rmtree(out, ignore_errors=True)
    with start(command) as process:
        wait(process)
        process.send_signal(number)
        assert process.stderr is not None
        said = process.stderr.read()
    made = files_in(out)
    finished = process.returncode == 0
    outcome.kills += not finished
    outcome.half += sum(reference[name] != data for name, data in made.items())
    if not finished and number != signal.SIGKILL:
        lines = [line for line in re.split(r"[\r\n]+", said) if line.startswith("upsr: interrupted")]
        if "Traceback" in said or "Exception ignored" in said or len(lines) != 1 or process.returncode != 130:
            outcome.untold += 1
            outcome.odd.append(f"{process.returncode}: {said[-3000:]}")
    status = again([*command, "--skip-existing"])
    outcome.wrong += status != 0 or files_in(out) != reference
    outcome.left += len(temporary_files(out))


def call_quietly(command: Sequence[str]) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode


def kill_folder_runs(folder: Path, kills: int, seed: int) -> str:
    """A table of kills at random moments of a run over a folder."""
    images = write_images(folder / "in", 8, 48)
    command = upscale_command(images, folder / "whole")
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    duration = time.perf_counter() - began
    reference = files_in(folder / "whole")
    moments = random.Random(seed)
    rows = []
    for number in SIGNALS:
        outcome = Outcome()
        for _ in range(kills):
            seconds = moments.uniform(0, duration)

            def wait(process: subprocess.Popen[str], seconds: float = seconds) -> None:
                try:
                    process.wait(seconds)
                except subprocess.TimeoutExpired:
                    return

            kill_folder_run(
                upscale_command(images, folder / "out"), folder / "out", reference, number, wait, outcome, call_quietly
            )
        rows.append((number.name, kills, outcome.kills, outcome.half, outcome.wrong, outcome.left, outcome.untold))
        for odd in outcome.odd:
            print(odd, file=sys.stderr)
    header = ("signal", "runs", "killed before the end", "half files", "wrong after --skip-existing")
    return markdown_table((*header, "temporary files after it", "without its one line"), rows)


def kill_training_runs(folder: Path, kills: int, seed: int, processes: int) -> tuple[object, ...]:
    """A training that is killed again and again, every other time while it writes a checkpoint, and goes on.

    Returns:
        Processes, kills, those while a checkpoint was written, those of one process that ended the other with a clear
        line, steps, and whether the weights are those of an undisturbed run.
    """
    folder.mkdir()
    config = write_denoiser_config(folder)
    steps = 100 * kills
    limits = [f"unet_training.max_steps={steps}", "checkpoint_every=1", "log_every=1", "trackers=[]"]
    if processes == 2:
        limits += ["unet_training.batch_size=1", "unet_training.gradient_accumulation=2"]
    run, moments = folder / "run", random.Random(seed)
    checkpoints = run / "checkpoints" / "unet"
    saving = clear = done = 0
    for kill in range(kills):
        resume = ["--resume", "latest"] if list(checkpoints.glob("step-????????")) else []
        process = start_training(processes, ["--config", str(config), f"output_dir={run}", *limits, *resume])
        assert process.stdout is not None
        for line in process.stdout:
            if re.search(r"unet \d+: .*loss", line):
                break
        time.sleep(moments.uniform(0, 0.5))
        workers = [child for child in psutil.Process(process.pid).children(recursive=True) if is_worker(child)]
        victims = workers or [psutil.Process(process.pid)]
        victim = moments.choice(victims)
        caught = kill % 2 == 1 and stopped_while_saving(victims, checkpoints)
        saving += caught
        victim.kill()
        for other in victims:
            if other != victim and other.is_running():
                other.resume()
        said = process.stdout.read()
        process.wait()
        clear += processes == 1 or "another process has ended" in said
        done += 1
    finish = min(int(path.name[5:13]) for path in checkpoints.glob("step-????????")) + 5
    limits[0] = f"unet_training.max_steps={finish}"
    for name, resume in (("run", ["--resume", "latest"]), ("undisturbed", [])):
        process = start_training(processes, ["--config", str(config), f"output_dir={folder / name}", *limits, *resume])
        log, _ = process.communicate()
        assert process.returncode == 0, log
    weights = Path("model_last", "unet", "diffusion_pytorch_model.safetensors")
    assert_same_tensors(run / weights, folder / "undisturbed" / weights)
    assert load_file(run / weights)
    assert not temporary_files(run)
    return processes, done, saving, f"{clear} of {done}" if processes > 1 else "", finish, "bit for bit"


def start_training(processes: int, arguments: list[str]) -> subprocess.Popen[str]:
    """One process, or two under a launcher; what they log comes out of ``stdout``."""
    if processes == 2:
        return launch_two(["--main_process_port", "0", "--multi_gpu"], TRAIN, *arguments)
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = [sys.executable, str(TRAIN), *arguments]
    return subprocess.Popen(command, env=environment(), text=True, start_new_session=True, **output)


def is_worker(process: psutil.Process) -> bool:
    return str(TRAIN) in process.cmdline() and "accelerate.commands.launch" not in process.cmdline()


def stopped_while_saving(processes: Sequence[psutil.Process], checkpoints: Path) -> bool:
    """Stop them all at a moment when a checkpoint is half-written."""
    for _ in range(5000):
        if list(checkpoints.glob("*.partial/*")):
            for process in processes:
                process.suspend()
            # Stopped, they cannot finish it any more: now look whether they have.
            if list(checkpoints.glob("*.partial/*")):
                return True
            for process in processes:
                process.resume()
        time.sleep(0.001)
    return False


def two_at_once(folder: Path, runs: int = 5) -> str:
    """Two runs over one folder into one folder, several times."""
    images = write_images(folder / "in", 8, 48)
    subprocess.run(upscale_command(images, folder / "whole"), check=True, capture_output=True)
    reference, spoiled, left = files_in(folder / "whole"), 0, 0
    for _ in range(runs):
        shutil.rmtree(folder / "out", ignore_errors=True)
        processes = [start(upscale_command(images, folder / "out")) for _ in range(2)]
        ends = [process.communicate()[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], ends
        spoiled += files_in(folder / "out") != reference
        left += len(temporary_files(folder / "out"))
    return markdown_table(("pairs of runs", "spoiled", "temporary files left"), [(runs, spoiled, left)])


def start_times(folder: Path, repeats: int = 7) -> str:
    """A table of what is answered at once."""
    folder.mkdir()
    commands: dict[str, tuple[list[str], int]] = {
        "upsr --help": ([*UPSR, "--help"], 0),
        "upsr --version": ([*UPSR, "--version"], 0),
        "upsr upscale --wrong": ([*UPSR, "upscale", "--wrong"], 2),
        "upsr upscale missing.png": ([*UPSR, "upscale", str(folder / "missing.png")], 2),
        'python -c "import upsr_core"': ([sys.executable, "-c", "import upsr_core"], 0),
        'python -c ""': ([sys.executable, "-c", ""], 0),
    }
    rows = []
    for name, (command, status) in commands.items():
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            assert subprocess.run(command, capture_output=True, check=False).returncode == status
            times.append(time.perf_counter() - began)
        rows.append((f"`{name}`", f"{statistics.median(times):.2f}", f"{max(times):.2f}"))
    return markdown_table(("command", "seconds, median", f"slowest of {repeats}"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("kills", "training", "together", "start")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(parts)}; default: all")
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(parts):
        parser.error(f"no such part: {', '.join(unknown)}")
    wanted = args.parts or parts
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "start" in wanted:
            print("\n" + start_times(folder / "start"))
        if "kills" in wanted:
            print("\n" + kill_folder_runs(folder / "kills", args.kills, args.seed))
        if "together" in wanted:
            print("\n" + two_at_once(folder / "together"))
        if "training" in wanted:
            rows = [kill_training_runs(folder / f"training{n}", args.kills, args.seed, n) for n in (1, 2)]
            header = (
                "processes",
                "kills",
                "while a checkpoint was written",
                "the other ended with a clear line",
                "steps",
            )
            print("\n" + markdown_table((*header, "weights as undisturbed"), rows))


if __name__ == "__main__":
    main()
