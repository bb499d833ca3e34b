"""The trainer as its users meet it: real runs on generated images."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.tiny import TINY_UNET
from tests.trainer.runs import environment, launch, log_of, write_config
from trainer.config import TrainConfig, load_config
from trainer.data.held_out import HeldOutPhotos
from trainer.output.checkpointing import list_checkpoints, read_progress
from trainer.output.export import load_sr_net
from trainer.preparation import prepare_images
from trainer.train import main
from trainer.typed_yaml import ConfigError
from upsr_core import ATDModel, ConvSRModel, UPSRPipeline, UPSRUNet

STAGE = {"max_steps": 4, "batch_size": 2, "lr": 1e-3, "warmup_steps": 2, "max_grad_norm": 1.0}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images of random shapes and edges, of different sizes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(5):
        coarse = Image.fromarray(rng.integers(0, 256, (7, 8, 3), dtype=np.uint8))
        coarse.resize((96 + 8 * i, 80), Image.Resampling.NEAREST).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def smoke(photos: Path, tmp_path: Path) -> Path:
    """A configuration file for ``tmp_path / "run"``."""
    return write_config(
        tmp_path / "smoke.yaml",
        photos,
        validate_every=2,
        checkpoint_every=2,
        data={"val_dir": str(photos), "hr_size": 64, "val_size": 64},
        sr_net={"depths": [2]},
        unet=TINY_UNET,
        sr_net_training=STAGE,
        unet_training=STAGE,
    )


def test_accelerate_launch_trains_both_networks_and_leaves_a_pipeline(smoke: Path, tmp_path: Path) -> None:
    command = launch("--config", smoke, "sr_net_training.max_steps=2", "unet_training.max_steps=2")
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "run"
    for name in ("model", "model_last"):
        pipe = UPSRPipeline.from_pretrained(run / name)
        images = pipe(torch.full((1, 3, 9, 11), 0.5), output_type="pt", num_inference_steps=1).images
        assert images.shape == (1, 3, 36, 44)
    for stage in ("sr_net", "unet"):
        assert list((run / "logs" / stage).glob("events.*"))
        assert [path.name for path in list_checkpoints(run / "checkpoints" / stage)] == ["step-00000002"]
        for kind in ("plain", "degraded"):
            with Image.open(run / "samples" / stage / f"{kind}_step-00000002.png") as grid:
                # LR | g | (UPSR |) HR, a row for each photo
                assert grid.size == (64 * (3 if stage == "sr_net" else 4), 64 * 2)
    assert "validation, degraded input, upsr: psnr" in result.stderr
    written = load_config(run / "config.yaml")
    assert written == load_config(smoke, ["sr_net_training.max_steps=2", "unet_training.max_steps=2"])
    assert not list(run.rglob("*.partial"))
    assert not list(run.rglob("*.old"))


def test_ctrl_c_saves_and_resume_goes_on_with_the_next_network(smoke: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    common = ["--config", str(smoke), "validate_every=0"]

    def interrupt(line: str) -> None:
        if line.startswith("unet 2: "):
            signal.raise_signal(signal.SIGINT)

    with log_of("trainer", interrupt) as log:
        assert main([*common, "unet_training.max_steps=100000", "checkpoint_every=0"]) == 1
    (checkpoint,) = list_checkpoints(run / "checkpoints" / "unet")
    assert f"--resume {checkpoint}" in log[-1]
    progress = read_progress(checkpoint)
    assert not progress.finished
    steps = progress.step + 1
    assert main([*common, f"unet_training.max_steps={steps}", "--resume", "latest"]) == 0
    # g had finished and was left alone.
    assert [read_progress(path).step for path in list_checkpoints(run / "checkpoints" / "sr_net")] == [4]
    assert read_progress(list_checkpoints(run / "checkpoints" / "unet")[-1]).step == steps
    assert UPSRPipeline.from_pretrained(run / "model").scale == 4


def test_a_denoiser_for_a_convolutional_g(smoke: Path, tmp_path: Path) -> None:
    chosen = ["sr_net={}", "conv_sr_net={channels: 8, num_blocks: 1}", "validate_every=0", "checkpoint_every=0"]
    assert main(["--config", str(smoke), "stage=sr_net", *chosen]) == 0
    # The second run finds the class of g in its folder.
    assert main(["--config", str(smoke), "stage=unet", "validate_every=0", "checkpoint_every=0"]) == 0
    model = UPSRPipeline.from_pretrained(tmp_path / "run" / "model")
    assert isinstance(model.sr_net, ConvSRModel)
    assert model.sr_net.config.channels == 8
    assert model.sr_net.conv_out.weight.any()


def test_a_folder_that_holds_another_network_is_no_g(tmp_path: Path) -> None:
    UPSRUNet(**TINY_UNET).save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"config\.json: _class_name is 'UPSRUNet'; an SR network is ATDModel or"):
        load_sr_net(tmp_path / "other")


def test_time_limit_ends_a_stage_properly(smoke: Path, tmp_path: Path) -> None:
    assert main(["--config", str(smoke), "stage=sr_net", "sr_net_training.max_minutes=1e-6"]) == 0
    (checkpoint,) = list_checkpoints(tmp_path / "run" / "checkpoints" / "sr_net")
    progress = read_progress(checkpoint)
    assert (progress.step, progress.finished) == (1, True)
    assert ATDModel.from_pretrained(tmp_path / "run" / "model" / "sr_net").config.depths == [2]


def test_best_weights_are_kept_over_a_resume_and_old_checkpoints_are_not(smoke: Path, tmp_path: Path) -> None:
    common = ["--config", str(smoke), "stage=sr_net", "validate_every=1", "checkpoint_every=1"]
    assert main([*common, "sr_net_training.max_steps=1"]) == 0
    run = tmp_path / "run"
    weights = "sr_net/diffusion_pytorch_model.safetensors"
    best = load_file(run / "model" / weights)

    ruin = ["sr_net_training.lr=3", "sr_net_training.warmup_steps=0", "checkpoints_total_limit=2"]
    assert main([*common, *ruin, "sr_net_training.max_steps=3", "--resume", "latest"]) == 0
    checkpoints = list_checkpoints(run / "checkpoints" / "sr_net")
    assert [path.name for path in checkpoints] == ["step-00000002", "step-00000003"]
    assert read_progress(checkpoints[-1]).best_step == 1
    kept, last = load_file(run / "model" / weights), load_file(run / "model_last" / weights)
    assert all(torch.equal(kept[key], best[key]) for key in best)
    assert any(not torch.equal(last[key], best[key]) for key in best)


def test_a_loss_that_is_no_number_ends_the_run_with_one_line(
    smoke: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ruin = ["sr_net_training.lr=1e38", "sr_net_training.warmup_steps=0", "validate_every=0", "checkpoint_every=0"]
    assert main(["--config", str(smoke), "stage=sr_net", *ruin]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("train.py: error: sr_net: the loss is ")
    assert "lower sr_net_training.lr" in error
    assert not list((tmp_path / "run").glob("model*"))


def test_a_few_steps_on_one_photo_lower_both_losses(photos: Path, smoke: Path, tmp_path: Path) -> None:
    only = tmp_path / "one"
    only.mkdir()
    shutil.copy(photos / "0.png", only)
    run = tmp_path / "run"
    overrides = [f"data.train_dir={only}", f"data.val_dir={only}", "data.preset=bicubic", "validate_every=0"]
    overrides += ["log_every=40", "checkpoint_every=0", "unet_training.ema_decay=0.9", "sr_net_training.ema_decay=0.9"]
    overrides += ["sr_net_training.max_steps=40", "unet_training.max_steps=40", "data.cache=true"]
    overrides += ["sr_net_training.best_metric=psnr", "unet_training.best_metric=psnr"]
    assert main(["--config", str(smoke), *overrides]) == 0
    scores = {
        stage: read_progress(list_checkpoints(run / "checkpoints" / stage)[-1]).best_score
        for stage in ("sr_net", "unet")
    }
    config = load_config(smoke, overrides)
    bicubic = bicubic_psnr(config)
    assert scores["sr_net"] is not None
    assert scores["sr_net"] > bicubic + 0.3
    # The denoiser starts at G and pays for fine detail with squared error, but it must not be noise.
    assert scores["unet"] is not None
    assert scores["unet"] > bicubic


def bicubic_psnr(config: TrainConfig) -> float:
    source = prepare_images(config).val
    assert source is not None
    photos = HeldOutPhotos(source, config.data, config.scale, config.seed, torch.device("cpu"))
    scores = photos.score(photos.bicubic)[0]
    return sum(values["psnr"] for values in scores.values()) / len(scores)
