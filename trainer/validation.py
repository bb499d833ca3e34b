"""Validations of a stage: scores beside bicubic and other references, the held-out loss, and sample images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from trainer.config import TrainConfig
from trainer.data.batches import derived_seed
from trainer.data.held_out import HeldOutPhotos, Scores
from trainer.data.sources.base import ImageSource
from trainer.losses.perceptual import reporting_lpips
from trainer.output.tracking import log_image
from trainer.stages import TrainingStage
from upsr_core.pixels import to_pil

logger = logging.getLogger("trainer")

# kind of LR image -> method -> its scores
ValidationScores = dict[str, dict[str, Scores]]


class Validation:
    """Validations of one stage, all on the same photos; for the main process alone.

    Args:
        config: the whole run.
        source: the held-out images.
        stage: whose weights are validated.
        accelerator: for its precision and trackers.
        seed: decides the noise and timesteps of the held-out loss.
    """

    def __init__(
        self,
        config: TrainConfig,
        source: ImageSource,
        stage: TrainingStage[Any],
        accelerator: Accelerator,
        seed: int,
    ):
        self.stage, self.accelerator, self.seed = stage, accelerator, seed
        lpips, why_not = reporting_lpips()
        if lpips is None:
            logger.info("validation without LPIPS: %s", why_not)
        self.photos = HeldOutPhotos(source, config.data, config.scale, config.seed, accelerator.device, lpips)
        self.samples: Path = config.output_dir / "samples" / stage.name
        self._references: dict[str, tuple[dict[str, Scores], dict[str, torch.Tensor]]] = {}

    def run(self, network: Any, step: int) -> ValidationScores:
        """Score a network, log everything and show samples.

        Args:
            network: of the stage's kind, whole, on the device.
            step: optimiser steps that its weights come from.
        """
        if not self._references:
            self._references["bicubic"] = self.photos.score(self.photos.bicubic)
            for method, upscaler in self.stage.references().items():
                self._references[method] = self.photos.score(upscaler)
        result = self.photos.score(self.stage.upscaler(network))
        for kind in self.photos.lr:
            result[0][kind]["loss"] = self._held_out_loss(network, kind)
        results = {**self._references, self.stage.method: result}
        all_scores = {
            kind: {method: scores[kind] for method, (scores, _) in results.items()} for kind in self.photos.lr
        }
        self._log_scores(all_scores, step)
        self.samples.mkdir(parents=True, exist_ok=True)
        for kind in self.photos.lr:
            columns = [images[kind] for method, (_, images) in results.items() if method != "bicubic"]
            grid = self.photos.grid(kind, columns)
            to_pil(grid).save(self.samples / f"{kind}_step-{step:08d}.png")
            log_image(self.accelerator, f"samples/{kind}", grid, step)
        return all_scores

    def score(self, all_scores: ValidationScores, metric: str) -> float:
        """The stage's own ``metric``, averaged over the kinds of LR images; higher is better."""
        values = [scores[self.stage.method][metric] for scores in all_scores.values()]
        mean = sum(values) / len(values)
        return -mean if metric == "loss" else mean

    def _log_scores(self, all_scores: ValidationScores, step: int) -> None:
        scalars = {}
        for kind, methods in all_scores.items():
            for method, scores in methods.items():
                values = ", ".join(f"{metric} {value:.4f}" for metric, value in scores.items())
                logger.info("%s %d: validation, %s input, %s: %s", self.stage.name, step, kind, method, values)
                scalars.update({f"{kind}_{metric}/{method}": value for metric, value in scores.items()})
        self.accelerator.log(scalars, step=step)

    @torch.no_grad()
    def _held_out_loss(self, network: Any, kind: str) -> float:
        """The stage's loss on held-out pairs, with the same noise and timesteps for a photo every time."""
        total, count = 0.0, 0
        for lr, hr in self.photos.pairs(kind):
            seeds = [derived_seed(self.seed, count + i) for i in range(len(lr))]
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            with self.accelerator.autocast():
                total += len(lr) * self.stage.losses(network, lr, hr, generators)["loss"].item()
            count += len(lr)
        return total / count
