"""Runs of the trainer in processes of their own, and what they leave behind."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from tests.tiny import ONE_LAYER_ATD, ONE_LEVEL_UNET
from trainer.output.atomic_folders import FILE_LIST
from trainer.typed_yaml import merged
from upsr_core import ATDModel

TRAIN = Path(__file__).parents[2] / "trainer" / "train.py"
SEVERAL_RUNS = Path(__file__).with_name("several_runs.py")
# All that the launcher would warn of.
QUIET = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
QUIET += ["--num_cpu_threads_per_process", "1"]


def write_photos(folder: Path, count: int, side: int = 48) -> Path:
    """Images of random blocks."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.NEAREST).save(folder / f"{i}.png")
    return folder


def write_config(path: Path, train_dir: Path | None, **changes: Any) -> Path:
    """The smallest run of both networks: two steps of two pairs each, with crops of 32 HR pixels.

    Args:
        path: file to write; the run's folder is ``run`` beside it.
        train_dir: images; None where ``changes`` name others.
        changes: other values, section by section.
    """
    steps = {"max_steps": 2, "batch_size": 2}
    content = {
        "output_dir": str(path.parent / "run"),
        "log_every": 1,
        "validate_every": 0,
        "checkpoint_every": 0,
        "data": {
            "train_dir": train_dir and str(train_dir),
            "hr_size": 32,
            "val_size": 32,
            "val_images": 2,
            "preset": "mild",
        },
        "sr_net": {**ONE_LAYER_ATD, "global_residual": True},
        "unet": {**ONE_LEVEL_UNET, "global_residual": True},
        "sr_net_training": steps,
        "unet_training": steps,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(merged(content, changes)))
    return path


def write_denoiser_config(folder: Path) -> Path:
    """The smallest denoiser, for an untrained g: 20 steps of 4 pairs, over 7 photos, without validation."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ATDModel(**ONE_LAYER_ATD, global_residual=True).save_pretrained(folder / "g")
    training = {"max_steps": 20, "batch_size": 4, "lr": 1e-3, "max_grad_norm": 1.0, "ema_decay": 0.9}
    photos = write_photos(folder / "photos", 7)
    changes = {"stage": "unet", "sr_net_from": str(folder / "g"), "unet_training": training}
    return write_config(folder / "denoiser.yaml", photos, **changes)


def launch(*arguments: str | Path) -> list[str]:
    """The command that trains in one process on the CPU."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", *QUIET]
    return [*command, str(TRAIN), *map(str, arguments)]


def environment() -> dict[str, str]:
    """Without this repository on the path, as for an uninstalled clone."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def launch_two(options: Sequence[str], script: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """Two processes, in a group of their own; what they log comes out of ``stdout``."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", *QUIET]
    command += [*(options or ["--multi_gpu"]), str(script), *map(str, arguments)]
    # With --cpu accelerate starts one process, whatever it is told.
    variables = {**environment(), "ACCELERATE_USE_CPU": "true"}
    out, err = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(command, env=variables, text=True, start_new_session=True, stdout=out, stderr=err)


def together(*runs: list[str], script: Path = SEVERAL_RUNS, options: Sequence[str] = ()) -> str:
    """The log of runs that two processes make one after the other, and that must succeed."""
    process = launch_two(["--main_process_port", "0", *(options or ["--multi_gpu"])], script, json.dumps(runs))
    log, _ = process.communicate(timeout=300)
    assert process.returncode == 0, log
    return log


@contextmanager
def log_of(name: str, heard: Callable[[str], None] = lambda line: None) -> Iterator[list[str]]:
    """The lines that a logger of this process is given meanwhile; ``heard`` is called with each."""
    lines: list[str] = []

    def emit(record: logging.LogRecord) -> None:
        lines.append(record.getMessage())
        heard(lines[-1])

    handler = logging.Handler()
    handler.emit = emit  # type: ignore[method-assign]
    logging.getLogger(name).addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger(name).removeHandler(handler)


def logged_losses(log: str) -> list[float]:
    """Of each logged step, in order."""
    return [float(value) for value in re.findall(r"unet \d+: .*?\bloss ([\d.]+)", log)]


def assert_same_tensors(first: Path, second: Path) -> None:
    """Of two safetensors files."""
    a, b = load_file(first), load_file(second)
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different


def assert_same_state(first: Path, second: Path) -> None:
    """Of two checkpoints all must be equal, bit for bit: weights, averages, optimiser, generators, pools, progress."""
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    names.remove(FILE_LIST)  # of digests that follow from the minutes as well
    for name in names:
        a, b = (flat(folder / name) for folder in (first, second))
        assert a.keys() == b.keys(), name
        different = [key for key in a if not equal(a[key], b[key])]
        assert not different, (name, different)


def flat(file: Path) -> dict[str, Any]:
    """The leaves of a checkpoint's file by their place in it."""
    if file.suffix == ".safetensors":
        return dict(load_file(file))
    if file.suffix == ".json":
        content = yaml.safe_load(file.read_text())
        del content["minutes"]
        return leaves(content)
    content = torch.load(file, weights_only=False)
    if file.name.startswith("random_states"):
        # Python's and NumPy's own begin anywhere, and nothing draws from them.
        content = {name: state for name, state in content.items() if name.startswith("torch")}
    return leaves(content)


def leaves(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for name, inner in value.items() for k, v in leaves(inner, f"{key}.{name}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, inner in enumerate(value) for k, v in leaves(inner, f"{key}.{i}").items()}
    return {key: value}


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return bool(np.array_equal(a, b))
