"""The sheet of pairs: what the trainer's own first batches hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.images import photo
from trainer.config import load_config
from trainer.data.batches import Batches, derived_seed
from trainer.data.sources.image_folders import FolderSource
from trainer.preview_degradation import GAP, main
from upsr_core.pixels import to_pil

SIZE = 32


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(3):
        to_pil(photo(i, 48)).save(tmp_path / "photos" / f"{i}.png")
    content: dict[str, Any] = {
        "output_dir": "run",
        "stage": "sr_net",
        "seed": 7,
        "data": {"train_dir": str(tmp_path / "photos"), "hr_size": SIZE, "preset": "mild", "pool_size": 4},
        "sr_net_training": {"max_steps": 1, "batch_size": 2},
        "unet_training": {"max_steps": 1, "batch_size": 2},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_sheet_shows_the_first_training_pairs(file: Path, tmp_path: Path) -> None:
    options = ["data.num_workers=1", "data.val_dir=nowhere", "-o", str(tmp_path / "sheet.png"), "--count", "4"]
    assert main(["--config", str(file), *options]) == 0
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image).astype(int)
    # Three pairs beside each other, the fourth below them.
    assert sheet.shape == (2 * SIZE + GAP, 3 * 2 * SIZE + 2 * GAP, 3)

    config = load_config(file)
    source = FolderSource(tmp_path / "photos")
    batches = Batches(config.data, source, 4, 2, derived_seed(7, 0), torch.device("cpu"), 0, 1).from_micro_step(0)
    pairs = [pair for _ in range(2) for pair in zip(*next(batches), strict=True)]
    for i, (lr, hr) in enumerate(pairs):
        top, left = i // 3 * (SIZE + GAP), i % 3 * (2 * SIZE + GAP)
        tile = sheet[top : top + SIZE, left : left + 2 * SIZE]
        enlarged = lr.repeat_interleave(4, 1).repeat_interleave(4, 2)
        for part, image in ((tile[:, :SIZE], enlarged), (tile[:, SIZE:], hr)):
            assert np.array_equal(part, (image * 255).round().permute(1, 2, 0).numpy())
    assert (sheet[SIZE : SIZE + GAP] == 255).all()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.train_dir=none"], "data.train_dir: none: no such folder; give a folder of images"),
        (["data.trian_dir=none"], "data.trian_dir: no such key; did you mean data.train_dir?"),
        (["data.preset=upsr"], "data.hr_size 32 must be a multiple of scale 4 and at least"),
    ],
)
def test_mistakes_are_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["--config", str(file), *arguments, "-o", str(tmp_path / "sheet.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"preview_degradation.py: error: {message}")


@pytest.mark.parametrize("arguments", [["-o", "sheet.png", "--count", "0"], ["-o", "sheet"]])
def test_bad_arguments_are_refused(file: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--config", str(file), *arguments])
