from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from tests.trainer.runs import write_config, write_photos
from trainer.config import load_config
from trainer.losses.perceptual import LPIPSLoss, reporting_lpips
from trainer.preparation import prepare
from trainer.validation import Validation


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """Two steps of g."""
    photos = write_photos(tmp_path / "photos", 3)
    return write_config(tmp_path / "c.yaml", photos, stage="sr_net", data={"val_dir": str(photos), "preset": "bicubic"})


def put_alexnet(home: Path) -> None:
    """Random convolutions where torchvision's weights would be; the rest of the network, which is unused, is empty."""
    from torchvision.models import AlexNet_Weights, alexnet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        with torch.device("meta"):
            empty = alexnet()
        features = alexnet().features.state_dict(prefix="features.")
    # Views of a single number take no space in the file.
    state = {name: features.get(name, torch.zeros(1).expand(value.shape)) for name, value in empty.state_dict().items()}
    file = home / "hub" / "checkpoints" / Path(AlexNet_Weights.IMAGENET1K_V1.url).name
    file.parent.mkdir(parents=True)
    torch.save(state, file)


def test_lpips_is_reported_where_its_weights_are(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    config = load_config(config_file)
    parts, accelerator = prepare(config), Accelerator(cpu=True)
    stage, source = parts.stage("sr_net"), parts.images.val
    assert source is not None
    with caplog.at_level(logging.INFO, "trainer"):
        validation = Validation(config, source, stage, accelerator, 0)
        scores = validation.run(stage.network, 1)
        scores = validation.run(stage.network, 2)
    assert "lpips" not in scores["plain"]["g"]
    # Once, though there were two validations.
    (told,) = [record.getMessage() for record in caplog.records if "LPIPS" in record.getMessage()]
    assert "alexnet-owt" in told
    assert "is missing; put it there from https://download.pytorch.org/" in told

    put_alexnet(tmp_path / "torch")
    scores = Validation(config, source, stage, accelerator, 0).run(stage.network, 3)
    lpips, _ = reporting_lpips()
    assert isinstance(lpips, LPIPSLoss)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert lpips(image, image).item() == 0
    for kind in ("plain", "degraded"):
        assert scores[kind]["bicubic"]["lpips"] > 0
        assert scores[kind]["g"]["lpips"] > 0


def test_the_held_out_loss_is_the_same_every_time(config_file: Path) -> None:
    config = load_config(config_file)
    parts = prepare(config)
    stage, source = parts.stage("sr_net"), parts.images.val
    assert source is not None
    validation = Validation(config, source, stage, Accelerator(cpu=True), 0)
    first, second = (validation.run(stage.network, step) for step in (1, 2))
    assert first == second
    losses = [first[kind]["g"]["loss"] for kind in ("plain", "degraded")]
    # Higher is better, so that a loss counts negative.
    assert validation.score(first, "loss") == pytest.approx(-sum(losses) / 2)
