"""README.md of a trained model: what it is, how to load it, its figures, and the configuration it was trained with."""

from __future__ import annotations

import math
from collections.abc import Mapping

import yaml

from trainer.config import TrainConfig
from trainer.typed_yaml import to_plain

# kind of LR image -> method -> metric -> value, as `Validation.run` returns
Figures = Mapping[str, Mapping[str, Mapping[str, float]]]

FRONT_MATTER = """\
---
library_name: diffusers
pipeline_tag: image-to-image
tags: [super-resolution, upsr]
---
"""
INPUTS = {
    "plain": "Plain input (antialiased bicubic reduction)",
    "degraded": "Degraded input (as in training)",
    "paired": "The held-out LR images",
}
METRICS = {"psnr": "PSNR-Y, dB", "ssim": "SSIM-Y", "lpips": "LPIPS-Alex", "fine_detail": "fine detail", "loss": "loss"}


def model_card(config: TrainConfig, repo_id: str, step: int, figures: Figures) -> str:
    """Markdown with the front matter that the Hugging Face Hub reads.

    Args:
        config: of the run.
        repo_id: ``ORG/NAME`` on the Hub, or the path to load the folder by.
        step: optimiser steps of the denoiser's training that the weights come from.
        figures: validation figures of these weights; empty without held-out images.
    """
    data = config.data
    places = [data.train_dataset.path] if data.train_dataset else [data.train_shards or ""]
    names = [str(place).rstrip("/").rpartition("/")[2] for place in data.train_dir or places]
    parts = [
        FRONT_MATTER,
        f"# {repo_id.rstrip('/').rsplit('/', 1)[-1]}\n",
        f"{config.scale}x super-resolution of photos by uncertainty-guided diffusion (UPSR, CVPR 2025), trained with "
        f"`trainer/train.py`: {step} steps of the denoiser, degradation {data.degradation_name}, photos of "
        f"`{', '.join(names)}`. Losses: L1 + {config.sr_net_training.added_terms} for g, squared error + "
        f"{config.unet_training.added_terms} for the denoiser.\n",
        "```python\n"
        "from upsr_core import load_pipeline\n\n"
        f'pipe = load_pipeline("{repo_id}")\n'
        "pipe(image).images[0]\n"
        "```\n",
    ]
    if figures:
        parts += ["## Figures\n", f"On up to {data.val_images} held-out images, centre crops of {data.val_size}.\n"]
        parts += [f"{INPUTS[kind]}:\n\n{_table(methods)}\n" for kind, methods in figures.items()]
    # Paths of the machine that trained it are of no use to anyone else.
    plain = {
        key: value for key, value in to_plain(config).items() if key not in ("output_dir", "sr_net_from", "init_from")
    }
    plain["data"] = {
        key: value for key, value in plain["data"].items() if not key.endswith(("_dir", "_shards", "_dataset"))
    }
    text = yaml.safe_dump(plain, sort_keys=False).rstrip()
    parts += ["## Configuration\n", f"```yaml\n{text}\n```\n"]
    return "\n".join(parts)


def _table(methods: Mapping[str, Mapping[str, float]]) -> str:
    names = [name for name in METRICS if any(name in scores for scores in methods.values())]
    rows = [["", *(METRICS[name] for name in names)], ["---"] * (len(names) + 1)]
    for method, scores in methods.items():
        values = [scores.get(name, math.nan) for name in names]
        rows.append([method, *("" if math.isnan(value) else f"{value:.4f}" for value in values)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
