"""The smallest training there is, for tests of the images that go into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def write_config(path: Path, **data: Any) -> Path:
    """A configuration of g alone: 2 steps with 2 pairs of 32 HR pixels."""
    content = {
        "output_dir": str(path.parent / "run"),
        "stage": "sr_net",
        "data": {"hr_size": 32, "val_size": 32, **data},
        "sr_net": {
            "embed_dim": 16, "depths": [1], "num_heads": [2], "window_size": 8, "category_size": 16, "num_tokens": 8,
            "reduced_dim": 4, "convffn_kernel_size": 3, "global_residual": True,
        },
        "sr_net_training": {"max_steps": 2, "batch_size": 2},
        "unet_training": {"max_steps": 2},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return path
