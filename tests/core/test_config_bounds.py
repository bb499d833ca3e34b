from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from upsr_core import ATDModel, UNWScheduler, UPSRUNet, load_pipeline


@pytest.mark.parametrize(
    ("network", "name", "value"),
    [
        (UPSRUNet, "window_size", 0),
        (UPSRUNet, "num_head_channels", 0),
        (UPSRUNet, "model_channels", 10**9),
        (UPSRUNet, "swin_embed_dim", 10**9),
        (UPSRUNet, "channel_mult", []),
        (UPSRUNet, "num_res_blocks", [1, 2, 2, 10**9]),
        (UPSRUNet, "swin_depth", 1.5),
        (UPSRUNet, "pad_multiple", 0),
        (ATDModel, "num_heads", [4, 4, 4, 0]),
        (ATDModel, "category_size", 0),
        (ATDModel, "window_size", -8),
        (ATDModel, "embed_dim", 10**9),
        (ATDModel, "num_tokens", "many"),
        (ATDModel, "depths", None),
        (UNWScheduler, "num_train_timesteps", 10**9),
        (UNWScheduler, "num_train_timesteps", 5.0),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_asked_for(network: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must .*whole number.* to \d+"):
        network(**{name: value})


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("sr_net", "embed_dim", 10**9), ("unet", "window_size", 0), ("scheduler", "num_train_timesteps", 10**9)],
)
def test_a_folder_with_absurd_sizes_is_named(
    tiny_folder: Path, tmp_path: Path, part: str, name: str, value: int
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    with pytest.raises(ValueError, match=rf"model: cannot be loaded as a UPSR model: .*{name} must ") as error:
        load_pipeline(folder)
    assert "\n" not in str(error.value)
