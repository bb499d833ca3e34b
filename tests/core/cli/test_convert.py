from __future__ import annotations

from pathlib import Path

import torch

from upsr_core import load_pipeline
from upsr_core.cli.main import main


def test_convert_and_back(golden_files: dict[str, Path], tmp_path: Path) -> None:
    files = [str(golden_files["denoiser"]), str(golden_files["sr_net"])]
    config = ["--config", str(golden_files["config"])]
    assert main(["convert", *files, str(tmp_path / "model"), *config]) == 0
    model = load_pipeline(tmp_path / "model")
    assert main(["convert", "--to-published", str(tmp_path / "model"), str(tmp_path / "published")]) == 0
    again = [str(tmp_path / "published" / name) for name in ("denoiser.pth", "sr_net.pth")]
    assert main(["convert", *again, str(tmp_path / "again"), *config]) == 0
    for name, tensor in load_pipeline(tmp_path / "again").unet.state_dict().items():
        assert torch.equal(tensor, model.unet.state_dict()[name])
