"""What is told before the first step."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import build_tiny
from tests.trainer.runs import write_config
from trainer.config import load_config
from trainer.summary import summary


def test_summary_of_a_denoiser(tmp_path: Path) -> None:
    file = write_config(tmp_path / "config.yaml", tmp_path, unet_training={"batch_size": 4, "max_steps": 30})
    changes = ["unet_training.gradient_accumulation=2", "unet_training.perceptual=st-lpips-vgg"]
    config = load_config(
        file, [*changes, "unet_training.perceptual_weight=0.1", "unet_training.missing_detail_weight=0.7"]
    )
    pipe = build_tiny()
    lines = summary(config, "unet", pipe.unet, pipe.sr_net, images=60, processes=2)
    parameters = pipe.unet.num_parameters()
    assert (
        lines[0]
        == f"{parameters:,} parameters are trained, beside the frozen SR network's {pipe.sr_net.num_parameters():,}"
    )
    assert lines[1] == "batch: 4 x 2 micro-steps x 2 processes = 16 images a step; 30 steps are 8.0 epochs of 60"
    assert lines[2] == "degradation: mild; crops of 32 HR pixels"
    assert lines[3] == "loss: squared error + 0.1 st-lpips-vgg + 0.7 missing detail"
    assert lines[4].startswith(f"memory: {round(parameters * 20 / 2**20)} MiB for weights")


def test_summary_of_g_names_the_mix(tmp_path: Path) -> None:
    file = write_config(tmp_path / "config.yaml", tmp_path, data={"degradation_mix": {"bicubic": 0.5, "upsr": 0.5}})
    pipe = build_tiny()
    lines = summary(load_config(file), "sr_net", pipe.sr_net, None, images=4, processes=1)
    assert lines[0] == f"{pipe.sr_net.num_parameters():,} parameters are trained"
    assert lines[2] == "degradation: 0.5 bicubic + 0.5 upsr; crops of 32 HR pixels"
    assert lines[3] == "loss: L1 + no perceptual term"
