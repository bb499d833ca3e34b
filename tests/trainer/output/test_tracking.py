from __future__ import annotations

import importlib.util
import logging
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.trainer.runs import write_config, write_denoiser_config, write_photos
from trainer.config import load_config
from trainer.output.checkpointing import list_checkpoints, read_progress
from trainer.output.tracking import check_trackers
from trainer.train import main
from trainer.typed_yaml import ConfigError


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """Two steps of g, validated once, at the end."""
    photos = write_photos(tmp_path / "photos", 3)
    return write_config(tmp_path / "c.yaml", photos, stage="sr_net", data={"val_dir": str(photos), "preset": "bicubic"})


def test_tensorboard_shows_all_that_is_known_of_a_run(
    config_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "trainer"):
        assert main(["--config", str(config_file), "log_every=1"]) == 0
    events = EventAccumulator(str(tmp_path / "run" / "logs" / "sr_net"), {"images": 0, "scalars": 0})
    events.Reload()
    names = set(events.Tags()["scalars"])
    train = ("loss", "l1", "grad_norm", "lr", "images_per_second", "memory_gib", "seconds_per_step", "data_share")
    assert {f"train/{name}" for name in train} <= names
    scores = {f"{kind}_{metric}/{method}" for kind in ("plain", "degraded")
              for metric in ("psnr", "ssim", "fine_detail") for method in ("bicubic", "g")}  # fmt: skip
    assert scores <= names
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    assert all(math.isfinite(event.value) for name in names for event in events.Scalars(name))
    assert events.Scalars("train/memory_gib")[0].value > 0.01
    assert {"samples/plain", "samples/degraded"} <= set(events.Tags()["images"])
    # LR | g | HR
    assert (events.Images("samples/plain")[0].width, events.Images("samples/plain")[0].height) == (3 * 32, 2 * 32)
    progress = read_progress(list_checkpoints(tmp_path / "run" / "checkpoints" / "sr_net")[-1])
    assert progress.best_scores["plain"]["g"]["psnr"] == pytest.approx(events.Scalars("plain_psnr/g")[0].value)
    assert "images/s" in caplog.text


def test_wandb_gets_the_same_without_a_network(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb").teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    assert main(["--config", str(config_file), "trackers=[wandb]", "log_every=1"]) == 0
    logs = tmp_path / "run" / "logs"
    (run,) = (logs / "wandb").glob("offline-run-*")
    (record,) = run.glob("run-*.wandb")
    content = record.read_bytes()
    for name in (b"train/loss", b"plain_psnr/g", b"samples/plain", b"sr_net_training"):
        assert name in content, name
    assert list((run / "files" / "media" / "images" / "samples").glob("plain_*.png"))
    assert not list(logs.rglob("events.*"))


def test_wandb_without_a_key_is_one_line(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # It would remember how it was set up by an earlier test.
    pytest.importorskip("wandb").teardown()
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    # A server that nothing answers at.
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert main(["--config", str(config_file), "trackers=[wandb]"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("train.py: error: trackers: wandb: No API key configured")
    assert error.endswith("Or set WANDB_MODE=offline in the environment")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_tracker_that_is_not_installed_is_one_line(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(config_file, ["trackers=[tensorboard,wandb]"])
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    message = r"^trackers: wandb is not installed; run: pip install wandb, or do without: trackers=\[tensorboard\]$"
    with pytest.raises(ConfigError, match=message):
        check_trackers(config)
    check_trackers(load_config(config_file, ["trackers=[]"]))


def test_a_run_without_trackers_leaves_no_logs(tmp_path: Path) -> None:
    config_file = write_denoiser_config(tmp_path)
    assert main(["--config", str(config_file), "trackers=[]", "unet_training.max_steps=1"]) == 0
    assert not (tmp_path / "run" / "logs").exists()
