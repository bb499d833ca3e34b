"""The training loop of one stage."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from trainer.config import STAGES, TrainConfig
from trainer.data.batches import Batches, derived_seed
from trainer.data.sources.opening import Images
from trainer.ema import EMA
from trainer.meter import Meter
from trainer.optimization import learning_rate, make_optimizer, set_learning_rate
from trainer.output.atomic_folders import remove_leftover_folders
from trainer.output.checkpointing import (
    StageProgress,
    architecture,
    load_checkpoint,
    put_aside_later,
    save_checkpoint,
)
from trainer.sharding import check_launch, whole
from trainer.stages import DenoiserStage, TrainingStage
from trainer.stop_signals import StopSignals
from trainer.summary import summary
from trainer.validation import Validation

logger = logging.getLogger("trainer")


class DivergedError(RuntimeError):
    """The weights are lost; the message is one line."""


class StageTrainer:
    """Trains one network, from its initial weights or a checkpoint to its limits.

    Args:
        config: the whole run.
        stage: the network and its losses.
        images: to train and to validate on.
        accelerator: with the gradient accumulation of this stage.

    Raises:
        ConfigError: no image can be read, or this way of launching is not supported.
    """

    def __init__(self, config: TrainConfig, stage: TrainingStage[Any], images: Images, accelerator: Accelerator):
        check_launch(accelerator, config)
        self.config, self.stage, self.accelerator = config, stage, accelerator
        self.training = config.training(stage.name)
        self.folder = config.output_dir
        self.checkpoints = config.output_dir / "checkpoints" / stage.name
        self.seed = derived_seed(config.seed, STAGES.index(stage.name))
        device = accelerator.device
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format

        network = stage.network
        network.to(memory_format=memory_format)
        # Outside of the accelerator: the network to validate and export, filled with the averaged weights when needed.
        self._averaged = copy.deepcopy(network).eval().requires_grad_(False) if accelerator.is_main_process else None
        if config.gradient_checkpointing:
            network.enable_gradient_checkpointing()
        network.to(device)
        if config.compile:
            # In place, where `torch.compile` would put a wrapper with other weight names around it.
            network.compile()
        networks = [network] if stage.discriminator is None else [network, stage.discriminator.to(device)]
        optimizer = make_optimizer(network, self.training, device, stage.discriminator)
        *self.trained, self.optimizer = accelerator.prepare(*networks, optimizer)
        self.model = self.trained[0]
        if stage.discriminator is not None:
            stage.discriminator = self.trained[1]
        self.ema = EMA(accelerator.unwrap_model(self.model), self.training.ema_decay)
        accelerator.register_for_checkpointing(self.ema)
        stage.to(device, memory_format)

        self.batches = Batches(
            config.data,
            images.train,
            config.scale,
            self.training.batch_size,
            self.seed,
            device,
            accelerator.process_index,
            accelerator.num_processes,
            memory_format,
        )
        order = {"images": len(images.train), "images per step": self.images_per_step, "seed": config.seed}
        if config.data.pool_size:
            order["processes"] = accelerator.num_processes
        measure: dict[str, Any] = {"metric": self.training.best_metric, "images": str(images.val and images.val.title)}
        if self.training.best_metric == "loss":
            weights = {"perceptual": self.training.perceptual_weight, **self.training.detail_weights}
            measure |= {"weights": weights, "distance": self.training.perceptual}
        self.progress = StageProgress(stage.name, architecture(network), order=order, measure=measure)
        self.validation: Validation | None = None
        if images.val is not None and accelerator.is_main_process:
            self.validation = Validation(config, images.val, stage, accelerator, self.seed)

    @property
    def images_per_step(self) -> int:
        """Images of one optimiser step, over all processes and micro-steps."""
        return self.training.batch_size * self.training.gradient_accumulation * self.accelerator.num_processes

    def run(self, checkpoint: Path | None) -> bool:
        """Train, then validate, save and export. False: interrupted, and perhaps only a checkpoint was saved."""
        device = self.accelerator.device
        # Dropout knows no other generator. Each process drops something else.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(derived_seed(self.seed, self.accelerator.process_index))
            return self._run(checkpoint)

    def _run(self, checkpoint: Path | None) -> bool:
        if self.accelerator.is_main_process:
            remove_leftover_folders(self.checkpoints)
        if checkpoint is not None:
            self._resume(checkpoint)
            # Those of another run are its own matter.
            if self.accelerator.is_main_process and checkpoint.parent.resolve() == self.checkpoints.resolve():
                put_aside_later(checkpoint)
        config, progress = self.config, self.progress
        progress.finished = False
        images, processes = len(self.batches.source), self.accelerator.num_processes
        # A shard's own count is that of the whole weight.
        frozen = self.stage.sr_net if isinstance(self.stage, DenoiserStage) else None
        for line in summary(config, self.stage.name, self.model, frozen, images, processes):
            self._log(line)
        self._log(f"{images} images, {processes} processes, steps {progress.step} to {self.training.max_steps}")
        start, minutes_before = time.monotonic(), progress.minutes
        batches = self.batches.from_micro_step(progress.step * self.training.gradient_accumulation)
        meter = Meter()
        validated = -1
        self.model.train()
        with StopSignals() as signals:
            while progress.step < self.training.max_steps and not progress.finished:
                self.step(batches, meter)
                minutes = (time.monotonic() - start) / 60
                progress.minutes = minutes_before + minutes
                late = self.training.max_minutes is not None and minutes >= self.training.max_minutes
                progress.finished, interrupted = self._any(late, signals.received)
                if progress.step % config.log_every == 0:
                    self._log_step(meter)
                if config.validate_every and progress.step % config.validate_every == 0:
                    with meter.apart():
                        self._validate()
                    validated = progress.step
                if interrupted or (config.checkpoint_every and progress.step % config.checkpoint_every == 0):
                    with meter.apart():
                        path = self._save()
                    if interrupted:
                        self._log(f"interrupted; go on with --resume {path}")
                        return False
            progress.finished = True
            if validated != progress.step:
                self._validate()
            self._save()
            self._export("model_last")
            (interrupted,) = self._any(signals.received)
        self._log(f"finished after {progress.minutes:.1f} minutes; model in {self.folder / 'model'}")
        if interrupted:
            self._log("interrupted; go on with --resume latest")
        return not interrupted

    def _resume(self, checkpoint: Path) -> None:
        order, measure = self.progress.order, self.progress.measure
        self.progress = load_checkpoint(self.accelerator, checkpoint, self.progress.architecture, self.batches.pool)
        self._log(f"resumed from {checkpoint}")
        changes = [
            f"{name} {self.progress.order[name]} then, {value} now"
            for name, value in order.items()
            if self.progress.order.get(name, value) != value
        ]
        if changes and self.accelerator.is_main_process:
            logger.warning(
                "%s %d: not an exact continuation, as images come in another order (%s)",
                self.stage.name, self.progress.step, "; ".join(changes),
            )  # fmt: skip
        if self.progress.measure not in ({}, measure):
            self.progress.best_score = None
            if self.accelerator.is_main_process:
                logger.warning(
                    "%s %d: the best score so far counts no more, as it is measured in another way now",
                    self.stage.name, self.progress.step,
                )  # fmt: skip
        self.progress.order, self.progress.measure = order, measure

    def step(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], meter: Meter) -> None:
        """One optimiser step.

        Args:
            batches: of which each micro-step takes one.
            meter: gets the losses, and the time of the parts data, forward, backward, optimiser and EMA.
        """
        accelerator, accumulation = self.accelerator, self.training.gradient_accumulation
        set_learning_rate(self.optimizer, learning_rate(self.training, self.progress.step))
        for micro in range(accumulation):
            with meter.part("data"):
                lr, hr = next(batches)
            generators = self._generators(self.progress.step * accumulation + micro)
            with accelerator.accumulate(*self.trained):
                with meter.part("forward"), accelerator.autocast():
                    losses = self.stage.losses(self.model, lr, hr, generators)
                with meter.part("backward"):
                    accelerator.backward(losses["loss"])
                with meter.part("optimiser"):
                    if accelerator.sync_gradients:
                        limit = math.inf if self.training.max_grad_norm is None else self.training.max_grad_norm
                        norm = accelerator.clip_grad_norm_(self.model.parameters(), limit)
                        meter.add({"grad_norm": whole(norm)})
                    self.optimizer.step()
                    self.optimizer.zero_grad()
            meter.add({name: value.detach() for name, value in losses.items()})
        with meter.part("EMA"):
            self.ema.update(accelerator.unwrap_model(self.model))
        self.progress.step += 1
        meter.stepped()

    def _generators(self, micro_step: int) -> list[torch.Generator]:
        """One for each sample, by its place in the order of all samples: alike for any number of processes."""
        size = self.training.batch_size
        first = (micro_step * self.accelerator.num_processes + self.accelerator.process_index) * size
        return [torch.Generator().manual_seed(derived_seed(self.seed, first + i)) for i in range(size)]

    def _any(self, *flags: bool) -> list[bool]:
        """For each, whether any process says so: they must all stop at the same step."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        counts = torch.tensor([float(flag) for flag in flags], device=self.accelerator.device)
        return [count > 0 for count in self.accelerator.reduce(counts, "sum").tolist()]

    def _log_step(self, meter: Meter) -> None:
        reading = meter.read(self.accelerator)
        loss = reading.means["loss"]
        if not math.isfinite(loss):
            raise DivergedError(
                f"{self.stage.name}: the loss is {loss} at step {self.progress.step}; lower "
                f"{self.stage.name}_training.lr, set max_grad_norm, or go on from an older checkpoint"
            )
        rate = learning_rate(self.training, self.progress.step - 1)
        seconds = reading.seconds_per_step
        speed, memory = self.images_per_step / seconds, reading.memory / 2**30
        remaining = (self.training.max_steps - self.progress.step) * seconds / 60
        means = ", ".join(f"{name} {value:.5f}" for name, value in reading.means.items())
        self._log(
            f"{means}, lr {rate:.2e}, {seconds:.3f} s/step ({reading.shares['data']:.0%} data), "
            f"{speed:.1f} images/s, {memory:.2f} GiB, {remaining:.0f} min to go"
        )
        scalars = {
            **reading.means,
            "lr": rate,
            "seconds_per_step": seconds,
            "data_share": reading.shares["data"],
            "images_per_second": speed,
            "memory_gib": memory,
        }
        self.accelerator.log({f"train/{name}": value for name, value in scalars.items()}, step=self.progress.step)

    def _validate(self) -> None:
        """Score the averaged weights, show samples, and export them if they are the best so far."""
        self.ema.copy_to(self._averaged)
        if self._averaged is not None:
            better = True
            if self.validation is not None:
                better = self._is_best(self.validation)
            if better:
                self.stage.export(self.folder / "model", self._averaged)
        self.accelerator.wait_for_everyone()

    def _is_best(self, validation: Validation) -> bool:
        """Score the averaged weights; whether this is the best score so far."""
        assert self._averaged is not None
        progress = self.progress
        self._averaged.to(self.accelerator.device)
        scores = validation.run(self._averaged, progress.step)
        self._averaged.to("cpu")
        score = validation.score(scores, self.training.best_metric)
        best = progress.best_score is None or score > progress.best_score
        if best:
            progress.best_score, progress.best_step, progress.best_scores = score, progress.step, scores
        return best

    def _export(self, name: str) -> None:
        self.ema.copy_to(self._averaged)
        if self._averaged is not None:
            self.stage.export(self.folder / name, self._averaged)

    def _save(self) -> Path:
        keep = self.config.checkpoints_total_limit
        return save_checkpoint(self.accelerator, self.checkpoints, self.progress, self.batches.pool, keep)

    def _log(self, message: str) -> None:
        if self.accelerator.is_main_process:
            logger.info("%s %d: %s", self.stage.name, self.progress.step, message)
