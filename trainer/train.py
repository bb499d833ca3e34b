"""``accelerate launch trainer/train.py --config FILE [key.sub=value ...] [--resume latest|FOLDER]``"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

if __name__ == "__main__":
    # The launcher puts this file's folder first: the repository lets an uninstalled clone work, and keeps the
    # modules beside this one from shadowing libraries.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
import yaml
from accelerate import Accelerator, PartialState
from accelerate.utils import ProjectConfiguration, parse_flag_from_env

from trainer.config import TrainConfig, load_config
from trainer.loop import DivergedError, StageTrainer
from trainer.output.atomic_folders import NotWrittenError, damage, restore_replaced
from trainer.output.checkpointing import StageProgress, list_checkpoints, newest_whole, read_progress
from trainer.output.hub_upload import prepare_repository, upload
from trainer.output.model_card import model_card
from trainer.output.tracking import make_trackers, start_trackers
from trainer.preparation import prepare
from trainer.typed_yaml import ConfigError, to_plain
from upsr_core.messages import one_line

logger = logging.getLogger("trainer")
# How long processes wait for each other, and so for the first one's validation.
PATIENCE = timedelta(hours=4)
# What gloo says, for which PyTorch has no class, as it has for NCCL.
LOST_PEER = ("Connection reset by peer", "Connection closed by peer", "Broken pipe", "gloo/transport")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0: done, 1: interrupted after saving, diverged or not uploaded, 2: could not start."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train a UPSR model on a folder of images.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see trainer/configs")
    parser.add_argument("--resume", metavar="latest|FOLDER", help="go on from the newest or the given checkpoint")
    parser.add_argument("--init-from", metavar="SOURCE", help="start from these weights; short for init_from=SOURCE")
    parser.add_argument("--push-to-hub", metavar="ORG/NAME", help="upload the model to the Hugging Face Hub at the end")
    parser.add_argument("--private", action="store_true", help="make that repository a private one, if it is new")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="values that replace the file's")
    arguments = parser.parse_intermixed_args(argv)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO)
    try:
        flags = [f"init_from={arguments.init_from}"] if arguments.init_from else []
        config = load_config(arguments.config, [*arguments.overrides, *flags])
        return train(config, arguments.resume, arguments.push_to_hub, arguments.private)
    except ConfigError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except (DivergedError, NotWrittenError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if not _lost_another_process(error):
            raise
        print(
            "train.py: error: another process has ended, and so this one does; see what it has said, then go on with "
            f"--resume latest ({one_line(error, 200)})",
            file=sys.stderr,
        )
        return 1


def _lost_another_process(error: RuntimeError) -> bool:
    """Whether the back end says that it cannot reach another process any more."""
    if PartialState().num_processes == 1:
        return False
    return isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in LOST_PEER)


def train(config: TrainConfig, resume: str | None = None, push_to_hub: str | None = None, private: bool = False) -> int:
    """Train the configured stages.

    Args:
        config: the whole run.
        resume: None starts anew, ``"latest"`` goes on from the newest checkpoint, else a checkpoint's folder.
        push_to_hub: repository ``ORG/NAME`` to upload the model to; needs the denoiser's stage.
        private: whether a new repository is private.

    Returns:
        0 when all stages have finished, 1 when it was interrupted or the upload failed.

    Raises:
        ConfigError: the run cannot start.
    """
    # PartialState does not look there by itself, as Accelerator does.
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    if not PartialState(on_cpu, timeout=PATIENCE).is_main_process:
        logger.setLevel(logging.WARNING)
    for folder in (config.output_dir, *(config.output_dir / "checkpoints" / name for name in config.stages)):
        restore_replaced(folder)
    parts = prepare(config)
    if push_to_hub is not None:
        if "unet" not in config.stages:
            raise ConfigError("--push-to-hub: stage sr_net makes no whole model; use stage unet or both")
        if PartialState().is_main_process:
            prepare_repository(push_to_hub, private)
    todo = plan(config, resume)
    try:
        config.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output_dir {config.output_dir}: cannot be created ({error.strerror})") from error
    for name, checkpoint in todo:
        accelerator = make_accelerator(config, name)
        plain = to_plain(config)
        if accelerator.is_main_process:
            text = yaml.safe_dump(plain, sort_keys=False)
            (config.output_dir / "config.yaml").write_text(text, encoding="utf-8")
        start_trackers(accelerator, name, plain)
        trainer = StageTrainer(config, parts.stage(name), parts.images, accelerator)
        finished = trainer.run(checkpoint)
        # Not end_training, which would also part the processes before the next stage.
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.wait_for_everyone()
        accelerator.free_memory()
        if not finished:
            return 1
        if name == "unet" and accelerator.is_main_process and not publish(config, trainer.progress, push_to_hub):
            return 1
    return 0


def publish(config: TrainConfig, progress: StageProgress, push_to_hub: str | None) -> bool:
    """Give the model its card, and upload both where that is wanted; False if the upload failed."""
    folder = config.output_dir / "model"
    # Without held-out images nothing is scored, and the model is the last one.
    step = progress.step if progress.best_score is None else progress.best_step
    card = model_card(config, push_to_hub or str(folder), step, progress.best_scores)
    (folder / "README.md").write_text(card, encoding="utf-8")
    if push_to_hub is not None:
        try:
            logger.info("uploaded: %s", upload(folder, push_to_hub))
        except ConnectionError as error:
            command = f"hf upload {push_to_hub} {folder}"
            logger.error("the upload failed (%s); the model is whole, run: %s", error, command)
            return False
    return True


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
        if (reason := damage(Path(resume))) is not None:
            raise ConfigError(f"{resume}: is damaged ({reason}); resume from an older checkpoint")
        stage = read_progress(Path(resume)).stage
        if stage not in config.stages:
            raise ConfigError(f"{resume}: is a checkpoint of stage {stage}, but the configuration says {config.stage}")
        later = config.stages[config.stages.index(stage) + 1 :]
        _refuse_later(Path(resume), [*checkpoints[stage], *(path for name in later for path in checkpoints[name])])
        return [(stage, Path(resume)), *((name, None) for name in later)]
    newest = {name: newest_whole(found) for name, found in checkpoints.items()}
    if not any(newest.values()):
        raise ConfigError(f"output_dir {config.output_dir} holds no checkpoint; leave out --resume to start anew")
    started = newest.get("unet") is not None
    sr_net = newest.get("sr_net")
    if config.stage == "both" and (started or (sr_net is not None and read_progress(sr_net).finished)):
        return [("unet", newest["unet"])]
    return [(name, newest[name]) for name in config.stages]


def _refuse_later(resume: Path, checkpoints: list[Path]) -> None:
    """Refuse to resume where later checkpoints lie beside: the resumed run would take them for its own."""
    chosen = read_progress(resume)
    for path in checkpoints:
        progress = read_progress(path)
        if progress.stage != chosen.stage or progress.step > chosen.step:
            raise ConfigError(f"{resume}: {path} is later; move or delete it, or choose another output_dir")


def make_accelerator(config: TrainConfig, stage: str) -> Accelerator:
    """Accelerator for one stage, which has its own gradient accumulation; sets how float32 is multiplied, too."""
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = config.tf32
    return Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.training(stage).gradient_accumulation,
        log_with=make_trackers(config, stage) or None,
        project_config=ProjectConfiguration(str(config.output_dir), logging_dir=str(config.output_dir / "logs")),
    )


if __name__ == "__main__":
    code = main()
    if code == 0 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    sys.exit(code)
