"""Held-out photos, and how good an upscaler is on them, in numbers and in pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from trainer.data.config import DataConfig
from trainer.data.crops import held_out_crops
from trainer.data.sources.base import ImageSource
from trainer.losses.perceptual import LPIPSLoss
from upsr_core.degradation.config import DEGRADATION_PRESETS
from upsr_core.degradation.degrading import Degradation
from upsr_core.evaluation.metrics import fine_detail_ratio, psnr, ssim
from upsr_core.pixels import quantise
from upsr_core.resampling import upsample

# (B,3,h,w) and the images' seeds -> (B,3,s*h,s*w), both in [0,1].
UpscaleBatch = Callable[[torch.Tensor, list[int]], torch.Tensor]
# metric -> mean over the images
Scores = dict[str, float]

CHUNK = 4
SAMPLE_ROWS = 4


class HeldOutPhotos:
    """Held-out photos with two LR versions each, ``plain`` by bicubic reduction and ``degraded`` as in training; or,
    where they come in pairs, with their own, ``paired``.

    Args:
        source: the photos.
        data: how many of them, their size and the degradation.
        scale: super-resolution factor.
        seed: decides the degradations and the noise that the denoiser starts from, alike at every validation.
        device: where upscalers run.
        lpips: to score with, or None to do without.
    """

    def __init__(
        self,
        source: ImageSource,
        data: DataConfig,
        scale: int,
        seed: int,
        device: torch.device,
        lpips: LPIPSLoss | None = None,
    ):
        items = held_out_crops(source, scale, data.val_size, data.val_images, seed)
        self.scale, self.device = scale, device
        self.lpips = None if lpips is None else lpips.to(device)
        self.seeds = [item["seed"] for item in items]
        self.hr = torch.stack([item["hr"] for item in items])
        if source.paired:
            self.lr = {"paired": torch.stack([item["lr"] for item in items])}
            return
        degradations = {"plain": DEGRADATION_PRESETS["bicubic"], "degraded": data.degradation_config()}
        self.lr = {kind: Degradation(config, scale)(self.hr, self.seeds) for kind, config in degradations.items()}

    def bicubic(self, lr: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        """The upscaler to compare with."""
        del seeds
        return upsample(lr, self.scale)

    def pairs(self, kind: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(lr, hr) on the device, a few at a time."""
        for start in range(0, len(self.hr), CHUNK):
            chunk = slice(start, start + CHUNK)
            yield self.lr[kind][chunk].to(self.device), self.hr[chunk].to(self.device)

    def score(self, upscaler: UpscaleBatch) -> tuple[dict[str, Scores], dict[str, torch.Tensor]]:
        """Scores and images (B,3,s*h,s*w) on the CPU, in [0,1], for each kind of LR image."""
        images = {kind: self._upscaled(upscaler, lr) for kind, lr in self.lr.items()}
        return {kind: self._scores(image) for kind, image in images.items()}, images

    def _upscaled(self, upscaler: UpscaleBatch, lr: torch.Tensor) -> torch.Tensor:
        parts = []
        for start in range(0, len(lr), CHUNK):
            chunk = slice(start, start + CHUNK)
            parts.append(upscaler(lr[chunk].to(self.device), self.seeds[chunk]).clamp(0, 1).cpu())
        return torch.cat(parts)

    def _scores(self, images: torch.Tensor) -> Scores:
        scores = {
            "psnr": psnr(images, self.hr, self.scale).mean().item(),
            "ssim": ssim(images, self.hr, self.scale).mean().item(),
            "fine_detail": fine_detail_ratio(images, self.hr).nanmean().item(),
        }
        if self.lpips is not None:
            scores["lpips"] = self._lpips_score(self.lpips, images)
        return scores

    @torch.no_grad()
    def _lpips_score(self, lpips: LPIPSLoss, images: torch.Tensor) -> float:
        """Mean over the photos, of what 8-bit files would hold."""
        total = 0.0
        for image, hr in zip(images, self.hr, strict=True):
            pair = (quantise(x[None]).to(self.device) / 127.5 - 1 for x in (image, hr))
            total += lpips(*pair).item()
        return total / len(images)

    def grid(self, kind: str, columns: list[torch.Tensor]) -> torch.Tensor:
        """(3,H,W): a row for each of the first photos, LR, the given images and HR beside each other."""
        lr = F.interpolate(self.lr[kind][:SAMPLE_ROWS], scale_factor=self.scale, mode="nearest")
        rows = torch.cat([lr, *(column[:SAMPLE_ROWS] for column in columns), self.hr[:SAMPLE_ROWS]], dim=3)
        return rows.permute(1, 0, 2, 3).flatten(1, 2)
