"""The training loop of one stage."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator

from trainer.batches import Batches, derived_seed
from trainer.checkpointing import Progress, load_checkpoint, save_checkpoint
from trainer.config import STAGES, StageConfig, TrainConfig
from trainer.ema import EMA
from trainer.stages import Stage
from trainer.validation import Scores, Validation, save_png

logger = logging.getLogger("trainer")


class DivergedError(RuntimeError):
    """The weights are lost; the message is one line."""


class StopSignals:
    """Turns Ctrl-C and SIGTERM into a request that the loop honours at its next step.

    A launcher may pass on the signal that the terminal has sent already, so a second one is no stronger.
    """

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def learning_rate(config: StageConfig, step: int) -> float:
    """Learning rate of optimiser step ``step``, counted from 0: linear warm-up, then constant or a cosine."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    share = config.lr_end + (1 - config.lr_end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return config.lr * share


class StageTrainer:
    """Trains one network, from its initial weights or a checkpoint to its limits.

    Args:
        config: the whole run.
        stage: the network and its losses.
        accelerator: with the gradient accumulation of this stage.
    """

    def __init__(self, config: TrainConfig, stage: Stage[Any], accelerator: Accelerator):
        self.config, self.stage, self.accelerator = config, stage, accelerator
        self.training = config.training(stage.name)
        self.folder = config.output_dir
        self.seed = derived_seed(config.seed, STAGES.index(stage.name))
        device = accelerator.device

        network = stage.build_model()
        if config.gradient_checkpointing:
            network.enable_gradient_checkpointing()
        architecture = {key: value for key, value in network.config.items() if not key.startswith("_")}
        self.progress = Progress(stage.name, architecture)
        network.to(device)
        self.ema = EMA(network, self.training.ema_decay)
        # The fused implementation is several times faster on CPU, too.
        optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=self.training.lr,
            weight_decay=self.training.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.model, self.optimizer = accelerator.prepare(network, optimizer)
        accelerator.register_for_checkpointing(self.ema)
        stage.to(device)

        self.batches = Batches(
            config.data,
            config.scale,
            self.training.batch_size,
            self.seed,
            device,
            accelerator.process_index,
            accelerator.num_processes,
        )
        self.validation: Validation | None = None
        if config.data.has_validation and accelerator.is_main_process:
            self.validation = Validation(config.data, config.scale, config.seed, device)
        self._baselines: dict[str, tuple[dict[str, Scores], dict[str, torch.Tensor]]] = {}

    def run(self, checkpoint: Path | None) -> bool:
        """Train, then validate, save and export. False: interrupted, and only a checkpoint was saved."""
        if checkpoint is not None:
            self.progress = load_checkpoint(self.accelerator, checkpoint, self.progress.architecture, self.batches.pool)
            self._log(f"resumed from {checkpoint}")
        config, progress = self.config, self.progress
        progress.finished = False
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self._log(
            f"{parameters:,} parameters, {len(self.batches.source)} images, "
            f"steps {progress.step} to {self.training.max_steps}"
        )
        start, minutes_before = time.monotonic(), progress.minutes
        batches = self.batches.from_micro_step(progress.step * self.training.gradient_accumulation)
        meter = _Meter()
        validated = -1
        self.model.train()
        with StopSignals() as signals:
            while progress.step < self.training.max_steps and not progress.finished:
                self._step(batches, meter)
                minutes = (time.monotonic() - start) / 60
                progress.minutes = minutes_before + minutes
                progress.finished = self._any(
                    self.training.max_minutes is not None and minutes >= self.training.max_minutes
                )
                if progress.step % config.log_every == 0:
                    self._log_step(meter)
                if config.validate_every and progress.step % config.validate_every == 0:
                    self._validate()
                    validated = progress.step
                if config.checkpoint_every and progress.step % config.checkpoint_every == 0:
                    self._save()
                if self._any(signals.received):
                    path = self._save()
                    self._log(f"interrupted; go on with --resume {path}")
                    return False
            progress.finished = True
            if validated != progress.step:
                self._validate()
            self._save()
            self._export("model_last")
        self._log(f"finished after {progress.minutes:.1f} minutes; model in {self.folder / 'model'}")
        return True

    def _step(self, batches: Any, meter: _Meter) -> None:
        """One optimiser step."""
        accelerator, step = self.accelerator, self.progress.step
        rate = learning_rate(self.training, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for micro in range(self.training.gradient_accumulation):
            waiting = time.monotonic()
            lr, hr = next(batches)
            meter.waited(time.monotonic() - waiting)
            micro_step = step * self.training.gradient_accumulation + micro
            seed = derived_seed(self.seed, micro_step, accelerator.process_index)
            generator = torch.Generator().manual_seed(seed)
            with accelerator.accumulate(self.model), accelerator.autocast():
                losses = self.stage.losses(self.model, lr, hr, generator)
                accelerator.backward(losses["loss"])
                if accelerator.sync_gradients:
                    limit = self.training.max_grad_norm
                    norm = accelerator.clip_grad_norm_(self.model.parameters(), math.inf if limit is None else limit)
                    meter.add({"grad_norm": norm})
                self.optimizer.step()
                self.optimizer.zero_grad()
            meter.add({name: value.detach() for name, value in losses.items()})
        self.ema.update(accelerator.unwrap_model(self.model))
        self.progress.step += 1
        meter.stepped()

    def _any(self, flag: bool) -> bool:
        """Whether any process says so: they must all stop at the same step."""
        if self.accelerator.num_processes == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flags, "sum").item() > 0)

    def _log_step(self, meter: _Meter) -> None:
        values, timing = meter.read()
        if not math.isfinite(values["loss"]):
            raise DivergedError(
                f"{self.stage.name}: the loss is {values['loss']} at step {self.progress.step}; lower "
                f"{self.stage.name}_training.lr, set max_grad_norm, or go on from an older checkpoint"
            )
        rate = learning_rate(self.training, self.progress.step - 1)
        images = self.training.batch_size * self.training.gradient_accumulation * self.accelerator.num_processes
        seconds = timing["seconds_per_step"]
        remaining = (self.training.max_steps - self.progress.step) * seconds / 60
        means = ", ".join(f"{name} {value:.5f}" for name, value in values.items())
        self._log(
            f"{means}, lr {rate:.2e}, {seconds:.3f} s/step ({timing['data_share']:.0%} data), "
            f"{images / seconds:.1f} images/s, {remaining:.0f} min to go"
        )
        scalars = {f"train/{name}": value for name, value in {**values, "lr": rate, **timing}.items()}
        self.accelerator.log(scalars, step=self.progress.step)

    def _validate(self) -> None:
        """Score the averaged weights, show samples, and export them if they are the best so far."""
        if self.accelerator.is_main_process:
            better = True
            if self.validation is not None:
                better = self._score(self.validation)
            if better:
                self._export("model")
        self.accelerator.wait_for_everyone()

    def _score(self, validation: Validation) -> bool:
        """Whether this is the best score so far."""
        if not self._baselines:
            self._baselines["bicubic"] = validation.run(validation.bicubic)
            for method, upscaler in self.stage.references().items():
                self._baselines[method] = validation.run(upscaler)
        result = validation.run(self.stage.upscaler(self.ema.model))
        for kind in validation.lr:
            result[0][kind]["loss"] = self._held_out_loss(validation, kind)
        results = {**self._baselines, self.stage.method: result}

        step = self.progress.step
        scalars = {}
        for kind in validation.lr:
            for method, (scores, _) in results.items():
                values = ", ".join(f"{metric} {value:.4f}" for metric, value in scores[kind].items())
                self._log(f"validation, {kind} input, {method}: {values}")
                scalars.update({f"{kind}_{metric}/{method}": value for metric, value in scores[kind].items()})
            columns = [images[kind] for method, (_, images) in results.items() if method != "bicubic"]
            grid = validation.grid(kind, columns)
            save_png(grid, self.folder / "samples" / self.stage.name / f"{kind}_step-{step:08d}.png")
            tracker = self.accelerator.get_tracker("tensorboard")
            tracker.log_images({f"samples/{kind}": grid[None].numpy()}, step=step, dataformats="NCHW")
        self.accelerator.log(scalars, step=step)

        metric = self.training.best_metric
        score = sum(scores[metric] for scores in result[0].values()) / len(result[0])
        if metric == "loss":
            score = -score
        best = self.progress.best_score is None or score > self.progress.best_score
        if best:
            self.progress.best_score, self.progress.best_step = score, step
        return best

    @torch.no_grad()
    def _held_out_loss(self, validation: Validation, kind: str) -> float:
        """The stage's loss of the averaged weights on held-out pairs, with the same noise and timesteps every time."""
        generator = torch.Generator().manual_seed(self.seed)
        total = 0.0
        for lr, hr in validation.pairs(kind):
            with self.accelerator.autocast():
                total += len(lr) * self.stage.losses(self.ema.model, lr, hr, generator)["loss"].item()
        return total / len(validation.hr)

    def _export(self, name: str) -> None:
        if self.accelerator.is_main_process:
            self.stage.export(self.folder / name, self.ema.model)

    def _save(self) -> Path:
        folder = self.folder / "checkpoints" / self.stage.name
        keep = self.config.checkpoints_total_limit
        return save_checkpoint(self.accelerator, folder, self.progress, self.batches.pool, keep)

    def _log(self, message: str) -> None:
        if self.accelerator.is_main_process:
            logger.info("%s %d: %s", self.stage.name, self.progress.step, message)


class _Meter:
    """Means of losses and times since it was last read; tensors stay on their device until then."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)
        self._steps, self._waited, self._since = 0, 0.0, time.monotonic()

    def add(self, values: dict[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.float()
            self._counts[name] += 1

    def waited(self, seconds: float) -> None:
        self._waited += seconds

    def stepped(self) -> None:
        self._steps += 1

    def read(self) -> tuple[dict[str, float], dict[str, float]]:
        values = {name: total.item() / self._counts[name] for name, total in self._sums.items()}
        seconds = time.monotonic() - self._since
        timing = {"seconds_per_step": seconds / self._steps, "data_share": self._waited / seconds}
        self._reset()
        return values, timing
