"""``accelerate launch trainer/train.py --config FILE [key.sub=value ...] [--resume latest|FOLDER]``"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # The launcher puts this file's folder first: the repository lets an uninstalled clone work, and keeps the
    # modules beside this one from shadowing libraries.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import yaml
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from trainer.checkpointing import list_checkpoints, read_progress
from trainer.config import TrainConfig, load_config
from trainer.export import load_sr_net
from trainer.loop import DivergedError, StageTrainer
from trainer.preflight import load_lpips, preflight
from trainer.stages import DenoiserStage, SRNetStage, Stage
from trainer.typed_yaml import ConfigError, to_plain

logger = logging.getLogger("trainer")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0: done, 1: interrupted after saving, or diverged, 2: could not start."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train a UPSR model on a folder of images.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see trainer/configs")
    parser.add_argument("--resume", metavar="latest|FOLDER", help="go on from the newest or the given checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="values that replace the file's")
    arguments = parser.parse_intermixed_args(argv)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO)
    try:
        config = load_config(arguments.config, arguments.overrides)
        return run(config, arguments.resume)
    except ConfigError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except DivergedError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 1


def run(config: TrainConfig, resume: str | None = None) -> int:
    """Train the configured stages.

    Args:
        config: the whole run.
        resume: None starts anew, ``"latest"`` goes on from the newest checkpoint, else a checkpoint's folder.

    Returns:
        0 when all stages have finished, 1 when it was interrupted.

    Raises:
        ConfigError: the run can not start.
    """
    preflight(config)
    todo = plan(config, resume)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    for name, checkpoint in todo:
        accelerator = make_accelerator(config, name)
        if accelerator.is_main_process:
            text = yaml.safe_dump(to_plain(config), sort_keys=False)
            (config.output_dir / "config.yaml").write_text(text, encoding="utf-8")
        stage = make_stage(config, name)
        accelerator.init_trackers(name)
        finished = StageTrainer(config, stage, accelerator).run(checkpoint)
        accelerator.end_training()
        accelerator.free_memory()
        if not finished:
            return 1
    return 0


def plan(config: TrainConfig, resume: str | None) -> list[tuple[str, Path | None]]:
    """Stages that are left to run, each with the checkpoint to start from."""
    checkpoints = {name: list_checkpoints(config.output_dir / "checkpoints" / name) for name in config.stages}
    if resume is None:
        for found in checkpoints.values():
            if found:
                raise ConfigError(
                    f"output_dir {config.output_dir} holds a run already ({found[-1]}); add --resume latest "
                    "or choose another output_dir"
                )
        return [(name, None) for name in config.stages]
    if resume != "latest":
        stage = read_progress(Path(resume)).stage
        if stage not in config.stages:
            raise ConfigError(f"{resume}: is a checkpoint of stage {stage}, but the configuration says {config.stage}")
        later = config.stages[config.stages.index(stage) + 1 :]
        return [(stage, Path(resume)), *((name, None) for name in later)]
    newest = {name: found[-1] if found else None for name, found in checkpoints.items()}
    if not any(newest.values()):
        raise ConfigError(f"output_dir {config.output_dir} holds no checkpoint; leave out --resume to start anew")
    started = newest.get("unet") is not None
    sr_net = newest.get("sr_net")
    if config.stage == "both" and (started or (sr_net is not None and read_progress(sr_net).finished)):
        return [("unet", newest["unet"])]
    return [(name, newest[name]) for name in config.stages]


def make_accelerator(config: TrainConfig, stage: str) -> Accelerator:
    """Accelerator for one stage, which has its own gradient accumulation."""
    return Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.training(stage).gradient_accumulation,
        log_with="tensorboard",
        project_config=ProjectConfiguration(str(config.output_dir), logging_dir=str(config.output_dir / "logs")),
    )


def make_stage(config: TrainConfig, name: str) -> Stage[Any]:
    """The stage with all that its losses need."""
    lpips = load_lpips(config.training(name).lpips_weight, f"{name}_training.lpips_weight")
    if name == "sr_net":
        return SRNetStage(config, lpips)
    sr_net = load_sr_net(config.sr_net_folder)
    scale = sr_net.config["scale"]
    if scale != config.scale:
        raise ConfigError(f"{config.sr_net_folder}: has scale {scale}, the configuration {config.scale}")
    return DenoiserStage(config, lpips, sr_net)


if __name__ == "__main__":
    sys.exit(main())
