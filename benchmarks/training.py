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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import add_threads_argument, machine, markdown_table
from benchmarks.memory import MIB, status_bytes
from trainer.config import TrainConfig, load_config
from trainer.loop import StageTrainer
from trainer.losses.adversarial import Discriminator
from trainer.losses.perceptual import LPIPSLoss
from trainer.meter import Meter
from trainer.preparation import build_seeded, load_perceptual, prepare_images
from trainer.stages import DenoiserStage, SRNetStage, TrainingStage
from trainer.train import make_accelerator
from trainer.typed_yaml import ConfigError
from upsr_core import UNWScheduler, UPSRUNet
from upsr_core.degradation.config import DEGRADATION_PRESETS

Batch = tuple[torch.Tensor, torch.Tensor]
PARTS = ("data", "degradation", "forward", "backward", "optimiser", "EMA")
WITHOUT_VALIDATION: dict[str, Any] = dict.fromkeys(("val_dir", "val_lr_dir", "val_shards", "val_dataset"))
PUBLISHED_PARAMETERS = 119_418_319
# Table 3 of the paper, of the published denoiser with 16 images on each GPU.
PUBLISHED_BATCH_SIZE, PUBLISHED_SECONDS, PUBLISHED_GIGABYTES = 16, 0.45, 14.9


@dataclasses.dataclass
class Run:
    """A trainer, and what has been measured of it."""

    trainer: StageTrainer
    batches: Iterator[Batch]
    parts: Meter
    seconds_per_step: list[float] = dataclasses.field(default_factory=list)
    shares: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def measure(self, steps: int) -> None:
        """``steps`` whole steps, then as many in parts."""
        accelerator = self.trainer.accelerator
        whole = Meter()
        for meter in (whole, self.parts):
            meter.reset()
            for _ in range(steps):
                self.trainer.step(self.batches, meter)
            # The meter's means make the host wait for its device.
            reading = meter.read(accelerator)
            if meter is whole:
                self.seconds_per_step.append(reading.seconds_per_step)
            else:
                self.shares.append(reading.shares)

    def row(self) -> list[str]:
        """Seconds per iteration, images per second, and the share of each part and of what is left."""
        seconds = statistics.median(self.seconds_per_step)
        shares = {part: statistics.mean(turn.get(part, 0.0) for turn in self.shares) for part in PARTS}
        shares["rest"] = 1 - sum(shares.values())
        cells = [f"{share:.1%}" for share in shares.values()]
        data = f"{shares['data'] + shares['degradation']:.1%}"
        return [f"{seconds:.4g}", f"{self.trainer.images_per_step / seconds:.1f}", *cells, data]


def start_run(config: TrainConfig, name: str) -> Run:
    """A trainer of the stage, ready to make steps."""
    training = config.training(name)
    # LPIPS' weights would have to be downloaded, and take as long as any others.
    untrained = training.perceptual_weight and training.perceptual == "lpips-vgg"
    perceptual = LPIPSLoss(pretrained=False) if untrained else load_perceptual(config, name)
    sr_net = build_seeded(config.sr_net_class, config.sr_net_arguments, config.seed)
    stage: TrainingStage[Any]
    if name == "sr_net":
        stage = SRNetStage(config, sr_net, perceptual)
    else:
        unet = build_seeded(UPSRUNet, config.unet_arguments, config.seed)
        discriminator = build_seeded(Discriminator, {}, config.seed) if training.adversarial_weight else None
        stage = DenoiserStage(config, unet, perceptual, sr_net, UNWScheduler(**config.scheduler), discriminator)
    trainer = StageTrainer(config, stage, prepare_images(config), make_accelerator(config, name))
    trainer.model.train()
    meter = Meter(wait_for=trainer.accelerator.device)
    batches, degradation = trainer.batches, trainer.batches.degradation

    def timed(hr: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        with meter.part("degradation"):
            return degradation(hr, seeds)

    # What workers do beside the steps takes none of their time; waiting for them does.
    if config.data.num_workers == 0 or config.data.degrade_on == "device":
        batches.degradation = timed
    return Run(trainer, batches.from_micro_step(0), meter)


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
    lines.append(f"\nPeak memory: {peak_memory(run.trainer.accelerator.device)}.")
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
        device = next(iter(runs.values())).trainer.accelerator.device
        print(
            f"{args.config.name}, {args.stage}, batch {training.batch_size} x {training.gradient_accumulation}, HR "
            f"{data.hr_size}, {data.num_workers} workers, degradation on the {data.degrade_on}, precision "
            f"{config.mixed_precision}, {device_name(device)}; {machine()}\n"
        )
        for run in runs.values():
            run.measure(2)  # loads kernels and the first photos
            run.seconds_per_step.clear()
            run.shares.clear()
        for _ in range(args.rounds):
            for run in runs.values():
                run.measure(args.steps)
        print(report(runs))


if __name__ == "__main__":
    main()
