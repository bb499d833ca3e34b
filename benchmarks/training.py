"""Where the time of a training step goes, how many images a second that makes, and the memory it takes.

    python -m benchmarks.training --config trainer/configs/tiny.yaml data.train_dir=PHOTOS --presets mild upsr
    python -m benchmarks.training --config trainer/configs/published.yaml data.train_dir=PHOTOS

The steps are the trainer's own, with its data, losses and optimiser, from random weights (LPIPS's too); nothing is
saved. Whole steps and their parts are measured apart: for the parts, an accelerator is waited for after each, so that
together they may take longer than a step. Presets take turns, so that whatever else the machine is doing slows all of
them alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import add_threads_argument, machine, markdown_table
from benchmarks.memory import MIB, status_bytes
from trainer.config import TrainConfig, load_config
from trainer.loop import StageTrainer
from trainer.losses.terms import LPIPSLoss
from trainer.meter import Meter
from trainer.stages import DenoiserStage, SRNetStage, Stage, build_seeded
from trainer.train import make_accelerator
from trainer.typed_yaml import ConfigError
from upsr_core import ATDModel
from upsr_core.degradation.config import DEGRADATION_PRESETS

PARTS = ("data", "degradation", "forward", "backward", "optimiser", "EMA")
WITHOUT_VALIDATION: dict[str, Any] = dict.fromkeys(("val_dir", "val_lr_dir", "val_shards", "val_dataset"))
PUBLISHED_PARAMETERS = 119_418_319
# Table 3 of the paper, of the published denoiser with 16 images on each GPU.
PUBLISHED_BATCH_SIZE, PUBLISHED_SECONDS, PUBLISHED_GIGABYTES = 16, 0.45, 14.9


class Profile:
    """Seconds by part of a training step, while it is switched on.

    A part that runs inside of another one counts for itself alone.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.active = False
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = 0.0

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, its time counted."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.active:
                return function(*args, **kwargs)
            outer, self._inner = self._inner, 0.0
            start = time.perf_counter()
            result = function(*args, **kwargs)
            synchronize(self.device)
            seconds = time.perf_counter() - start
            self.seconds[part] += seconds - self._inner
            self._inner = outer + seconds
            return result

        return call

    def watch(self, trainer: StageTrainer, batches: Iterator[Any]) -> Iterator[Any]:
        """Count the parts of this trainer's steps; returns the batches to train on."""
        data, degradation = trainer.batches.data, trainer.batches.degradation
        # What workers do beside the steps takes none of their time; waiting for them does.
        if degradation is not None and (data.num_workers == 0 or data.degrade_on == "device"):
            trainer.batches.degradation = self.timed("degradation", degradation)  # type: ignore[assignment]
        for owner, method, part in (
            (trainer.stage, "losses", "forward"),
            (trainer.accelerator, "backward", "backward"),
            (trainer.accelerator, "clip_grad_norm_", "optimiser"),
            (trainer.optimizer, "step", "optimiser"),
            (trainer.optimizer, "zero_grad", "optimiser"),
            (trainer.ema, "update", "EMA"),
        ):
            setattr(owner, method, self.timed(part, getattr(owner, method)))
        following = self.timed("data", lambda: next(batches))
        return iter(following, None)


@dataclasses.dataclass
class Run:
    """A trainer, and what has been measured of it."""

    trainer: StageTrainer
    step: Callable[[], None]
    profile: Profile
    seconds_per_step: list[float] = dataclasses.field(default_factory=list)
    profiled_seconds: float = 0.0

    def measure(self, steps: int) -> None:
        """``steps`` whole steps, then as many in parts."""
        self.seconds_per_step.append(self._time(steps) / steps)
        self.profile.active = True
        self.profiled_seconds += self._time(steps)
        self.profile.active = False

    def _time(self, steps: int) -> float:
        synchronize(self.profile.device)
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        synchronize(self.profile.device)
        return time.perf_counter() - start

    def row(self) -> list[str]:
        """Seconds per iteration, images per second, and the share of each part and of what is left."""
        training = self.trainer.training
        seconds = statistics.median(self.seconds_per_step)
        shares = {part: self.profile.seconds[part] / self.profiled_seconds for part in PARTS}
        shares["rest"] = 1 - sum(shares.values())
        images = training.batch_size * training.gradient_accumulation
        cells = [f"{share:.1%}" for share in shares.values()]
        return [f"{seconds:.4g}", f"{images / seconds:.1f}", *cells, f"{shares['data'] + shares['degradation']:.1%}"]


def start_run(config: TrainConfig, stage: str) -> Run:
    """A trainer of the stage, ready to make steps."""
    lpips = LPIPSLoss(pretrained=False) if config.training(stage).perceptual_weight else None
    network: Stage[Any]
    if stage == "sr_net":
        network = SRNetStage(config, lpips)
    else:
        network = DenoiserStage(config, lpips, build_seeded(ATDModel, config.sr_net_arguments, config.seed))
    trainer = StageTrainer(config, network, make_accelerator(config, stage))
    trainer.model.train()
    profile = Profile(trainer.accelerator.device)
    batches = profile.watch(trainer, trainer.batches.from_micro_step(0))
    meter = Meter()
    return Run(trainer, lambda: trainer._step(batches, meter), profile)


def synchronize(device: torch.device) -> None:
    """Wait for an accelerator to finish."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def device_name(device: torch.device) -> str:
    """What the networks run on."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_memory(device: torch.device) -> str:
    """The most that was in use since the start, of the device, or on a CPU of the process (Linux only)."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB on the device"
    if device.type == "cpu" and sys.platform.startswith("linux"):
        return f"{status_bytes('VmHWM') / MIB:.0f} MiB, of the process"
    return "not measured"


def report(runs: dict[str, Run]) -> str:
    """A table with a row for each preset, the memory, and the paper's figures."""
    header = ["preset", "s/iteration", "images/s", *PARTS, "rest", "data + degradation"]
    lines = [markdown_table(header, [[preset, *run.row()] for preset, run in runs.items()])]
    run = next(iter(runs.values()))
    lines.append(f"\nPeak memory: {peak_memory(run.profile.device)}.")
    lines.append(paper_figures(run.trainer.model, run.trainer.training.batch_size))
    return "\n".join(line for line in lines if line)


def paper_figures(model: torch.nn.Module, batch_size: int) -> str:
    """What the paper says of the denoiser it was written about, at the same batch size; empty for another one."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if (parameters, batch_size) != (PUBLISHED_PARAMETERS, PUBLISHED_BATCH_SIZE):
        return ""
    return f"Paper, Table 3: {PUBLISHED_SECONDS} s/iteration, {PUBLISHED_GIGABYTES} GB at batch {batch_size}."


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see trainer/configs")
    parser.add_argument("--stage", choices=["sr_net", "unet"], default="unet", help="network (default: unet)")
    parser.add_argument(
        "--presets", nargs="+", choices=list(DEGRADATION_PRESETS), help="degradations (default: the configuration's)"
    )
    parser.add_argument("--steps", type=int, default=5, help="steps of a turn (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each preset (default: 3)")
    add_threads_argument(parser)
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="values that replace the file's")
    args = parser.parse_intermixed_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = load_config(args.config, [*args.overrides, f"output_dir={folder}"])
            runs = {}
            for preset in args.presets or [config.data.preset]:
                data = dataclasses.replace(config.data, preset=preset, **WITHOUT_VALIDATION)
                runs[preset] = start_run(dataclasses.replace(config, data=data), args.stage)
        except (ConfigError, ValueError) as error:
            parser.error(str(error))
        training, data = config.training(args.stage), config.data
        device = next(iter(runs.values())).profile.device
        print(
            f"{args.config.name}, {args.stage}, batch {training.batch_size} x {training.gradient_accumulation}, HR "
            f"{data.hr_size}, {data.num_workers} workers, degradation on the {data.degrade_on}, precision "
            f"{config.mixed_precision}, {device_name(device)}; {machine()}\n"
        )
        for run in runs.values():
            run.measure(2)  # loads kernels and the first photos
            run.seconds_per_step.clear()
            run.profile.seconds.clear()
            run.profiled_seconds = 0.0
        for _ in range(args.rounds):
            for run in runs.values():
                run.measure(args.steps)
        print(report(runs))


if __name__ == "__main__":
    main()
