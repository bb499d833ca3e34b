"""Checkpoints: everything an exact resume needs, written whole or not at all."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from diffusers import ConfigMixin
from safetensors import SafetensorError

from trainer.data.pair_pool import PairPool
from trainer.output.atomic_folders import (
    damage,
    list_files,
    partial_folder,
    remove_folder,
    replace_folder,
    writing,
)
from trainer.typed_yaml import ConfigError
from upsr_core.messages import one_line

STATE_FILE = "trainer_state.json"
DAMAGED = ".damaged"

logger = logging.getLogger("trainer")


@dataclass
class StageProgress:
    """Progress of a stage.

    Attributes:
        stage: the network.
        architecture: its arguments, which a resumed run must share.
        step: optimiser steps done.
        finished: the stage ended by its own limits, not by an interruption.
        best_score: best value of the validation metric, and the step it was at.
        best_scores: all metrics of that validation, by kind of LR image, method and metric.
        measure: what ``best_score`` depends on beside the weights.
        minutes: wall-clock time spent in training, all runs together.
        order: values that, with the step, decide the order of the images.
    """

    stage: str
    architecture: dict[str, Any]
    step: int = 0
    finished: bool = False
    best_score: float | None = None
    best_step: int = 0
    best_scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    measure: dict[str, Any] = field(default_factory=dict)
    minutes: float = 0.0
    order: dict[str, int] = field(default_factory=dict)


def save_checkpoint(
    accelerator: Accelerator, folder: Path, progress: StageProgress, pool: PairPool | None, keep: int | None
) -> Path:
    """Write ``folder/step-N`` and delete the oldest ones beyond ``keep``; every process must call it.

    Args:
        accelerator: holds all state that the processes share.
        folder: of the stage's checkpoints.
        progress: noted in the checkpoint.
        pool: this process's own.
        keep: number of checkpoints to keep, None for all.

    Returns:
        The checkpoint's folder.

    Raises:
        NotWrittenError: the disk is full; older checkpoints are as they were.
    """
    path = folder / f"step-{progress.step:08d}"
    if accelerator.is_main_process:
        partial_folder(path)
    accelerator.wait_for_everyone()
    with writing(path) as partial:
        accelerator.save_state(str(partial))
        if pool is not None:
            torch.save(pool.state_dict(), partial / _pool_file(accelerator))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            (partial / STATE_FILE).write_text(json.dumps(asdict(progress), indent=2) + "\n", encoding="utf-8")
            list_files(partial)
    if accelerator.is_main_process:
        replace_folder(partial, path)
        for old in list_checkpoints(folder)[:-keep] if keep else []:
            remove_folder(old)
    accelerator.wait_for_everyone()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a stage, oldest first."""
    found = [path for path in folder.glob("step-*") if path.suffix == "" and (path / STATE_FILE).is_file()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def newest_whole(checkpoints: Sequence[Path]) -> Path | None:
    """The last of the checkpoints that is as it was written; the log names damaged ones after it.

    Raises:
        ConfigError: all are damaged.
    """
    for path in reversed(checkpoints):
        reason = damage(path)
        if reason is None:
            return path
        if PartialState().is_main_process:
            logger.warning("%s: is damaged (%s); going on from the one before", path, reason)
    if checkpoints:
        raise ConfigError(f"{checkpoints[0]}: is damaged, and there is none before; delete it to start the stage anew")
    return None


def put_aside_later(checkpoint: Path) -> None:
    """Rename the checkpoints after this one, which `newest_whole` has found damaged, so that none is kept for them."""
    for path in list_checkpoints(checkpoint.parent):
        if path.name > checkpoint.name:
            path.rename(path.with_name(path.name + DAMAGED))
            logger.warning("%s: was renamed to %s", path, path.name + DAMAGED)


def read_progress(checkpoint: Path) -> StageProgress:
    """The progress that `save_checkpoint` noted.

    Raises:
        ConfigError: this is no checkpoint of this trainer.
    """
    try:
        return StageProgress(**json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{checkpoint}: is no checkpoint of this trainer ({error}); name a step-N folder") from error


def load_checkpoint(
    accelerator: Accelerator, checkpoint: Path, configured: Mapping[str, Any], pool: PairPool | None
) -> StageProgress:
    """Restore the state that `save_checkpoint` wrote; every process must call it.

    Args:
        accelerator: as it was when the checkpoint was saved.
        checkpoint: its folder.
        configured: `architecture` of the network in training.
        pool: this process's own.

    Raises:
        ConfigError: the checkpoint is damaged, of another architecture, or of a run with another pool.
    """
    progress = read_progress(checkpoint)
    remedy = "use the same architecture or start anew in another output_dir"
    check_same_architecture(progress.architecture, configured, f"{checkpoint}: its {progress.stage}", remedy)
    # accelerate would run code that these hold.
    for file in checkpoint.glob("custom_checkpoint_*.pkl"):
        try:
            torch.load(file, map_location="meta", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise ConfigError(f"{file}: is damaged or holds code; resume from an older checkpoint") from error
    try:
        accelerator.load_state(str(checkpoint))
        # Micro-steps: a checkpoint lies between steps, whatever number of them a step has now.
        accelerator.step = 0
    except (OSError, RuntimeError, ValueError, LookupError, SafetensorError, pickle.UnpicklingError) as error:
        reason = one_line(error, 200)
        raise ConfigError(f"{checkpoint}: cannot be loaded ({reason}); resume from an older checkpoint") from error
    if pool is not None:
        file = checkpoint / _pool_file(accelerator)
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            pairs = {key: state[key].to(accelerator.device) for key in ("hr", "lr") if state[key] is not None}
            pool.load_state_dict({**state, **pairs})
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{file}: cannot be used ({error}); resume with the same data.pool_size and processes"
            ) from error
    return progress


def _pool_file(accelerator: Accelerator) -> str:
    return f"pool_{accelerator.process_index}.pt"


def architecture(network: ConfigMixin) -> dict[str, Any]:
    """The arguments of a network as JSON holds them, where tuples are lists."""
    arguments = {key: value for key, value in network.config.items() if not key.startswith("_")}
    return json.loads(json.dumps(arguments))


def check_same_architecture(own: Mapping[str, Any], wanted: Mapping[str, Any], what: str, remedy: str) -> None:
    """Raise ConfigError for the first argument of a saved network that differs from the configured one."""
    for key in sorted(own.keys() | wanted.keys()):
        saved, configured = own.get(key), wanted.get(key)
        if saved != configured:
            raise ConfigError(f"{what} has {key} {saved}, the configuration {configured}; {remedy}")
