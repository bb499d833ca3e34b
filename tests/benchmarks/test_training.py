from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import training
from benchmarks.training import PARTS, paper_figures
from trainer.config import load_config
from upsr_core import UPSRUNet

CONFIGS = Path(training.__file__).parents[1] / "trainer" / "configs"
SMALL = [
    "data.hr_size=64",
    "data.cache=false",
    "unet.image_size=16",
    "unet.channel_mult=[1,2]",
    "unet.num_res_blocks=[1,1]",
    "unet.attention_resolutions=[16,8]",
    "unet.swin_embed_dim=32",
    "unet.num_feat=8",
    "conv_sr_net={channels: 8, num_blocks: 1}",
    "unet_training.batch_size=2",
    "sr_net_training.batch_size=3",
]
QUICK = ["--steps", "1", "--rounds", "1"]


def run(photo_folder: Path, capsys: pytest.CaptureFixture, *options: str) -> tuple[str, dict[str, dict[str, str]]]:
    """The line above the table, and the table's rows by preset and column."""
    config = ["--config", str(CONFIGS / "tiny.yaml"), f"data.train_dir={photo_folder}"]
    training.main([*config, *SMALL, *QUICK, *options])
    output = capsys.readouterr().out
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines() if line[:1] == "|"]
    return output, {row[0]: dict(zip(table[0], row, strict=True)) for row in table[2:]}


def percent(cell: str) -> float:
    return float(cell.removesuffix("%"))


def test_shares_of_a_denoiser_step_for_each_preset(photo_folder: Path, capsys: pytest.CaptureFixture) -> None:
    output, rows = run(photo_folder, capsys, "--presets", "mild", "upsr")
    assert output.startswith("tiny.yaml, unet, batch 2 x 1, HR 64, 0 workers, degradation on the loader, precision no")
    assert "Peak memory: " in output
    assert list(rows) == ["mild", "upsr"]
    for row in rows.values():
        shares = {part: percent(row[part]) for part in (*PARTS, "rest")}
        assert all(shares[part] > 0 for part in PARTS)
        assert sum(shares.values()) == pytest.approx(100, abs=0.5)
        assert percent(row["data + degradation"]) == pytest.approx(shares["data"] + shares["degradation"], abs=0.11)
        assert float(row["images/s"]) == pytest.approx(2 / float(row["s/iteration"]), rel=0.1)


def test_degradation_on_the_device_and_the_sr_nets_step(photo_folder: Path, capsys: pytest.CaptureFixture) -> None:
    output, rows = run(photo_folder, capsys, "data.degrade_on=device", "--stage", "sr_net")
    assert "sr_net, batch 3 x 1" in output
    assert "degradation on the device" in output
    assert list(rows) == ["mild"]
    assert percent(rows["mild"]["degradation"]) > 0


def test_accumulated_micro_steps_are_one_iteration(photo_folder: Path, capsys: pytest.CaptureFixture) -> None:
    output, rows = run(photo_folder, capsys, "unet_training.gradient_accumulation=3")
    assert "batch 2 x 3" in output
    row = rows["mild"]
    assert float(row["images/s"]) == pytest.approx(6 / float(row["s/iteration"]), rel=0.1)


def test_the_papers_figures_stand_beside_the_published_network() -> None:
    config = load_config(CONFIGS / "published.yaml", ["data.train_dir=."])
    with torch.device("meta"):
        published = UPSRUNet(**config.unet_arguments)
    assert paper_figures(published, 16) == "Paper, Table 3: 0.45 s/iteration, 14.9 GB at batch 16."
    assert paper_figures(published, 8) == ""
    assert paper_figures(torch.nn.Linear(2, 2), 16) == ""


def test_what_cannot_be_run_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = ["--config", str(CONFIGS / "tiny.yaml")]
    for overrides, words in (([f"data.train_dir={tmp_path}"], "no images"), (["data.size=3"], "data.size")):
        with pytest.raises(SystemExit):
            training.main([*config, *overrides])
        assert words in capsys.readouterr().err.splitlines()[-1]
