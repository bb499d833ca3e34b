from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from upsr_core.evaluation import columns
from upsr_core.evaluation.columns import NIQE_VARIABLE, all_metrics
from upsr_core.evaluation.metrics import psnr


def test_own_metrics_are_those_of_the_library() -> None:
    generator = torch.Generator().manual_seed(0)
    sr, hr = (torch.rand(1, 3, 40, 48, generator=generator) for _ in range(2))
    metrics = all_metrics()
    device = torch.device("cpu")
    assert metrics["psnr"].load(device)(sr, hr, 4) == pytest.approx(psnr(sr, hr, 4).tolist())
    shift = metrics["colour_shift"]
    assert len(shift.load(device)(sr, hr, 4)) == len(shift.columns) == 3
    assert metrics["grid"].load(device)(sr, None, 4)[0] >= 0
    keys = [key for metric in metrics.values() for key in metric.columns]
    assert len(set(keys)) == len(keys)


def test_niqe_parameters_come_from_the_argument_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(NIQE_VARIABLE, raising=False)
    assert "are not named; get https://" in all_metrics()["niqe"].missing()
    file = tmp_path / "a.npz"
    assert f"{file} is missing, get it from https://" in all_metrics(str(file))["niqe"].missing()
    file.touch()
    assert all_metrics(str(file))["niqe"].missing() == ""
    monkeypatch.setenv(NIQE_VARIABLE, str(file))
    assert all_metrics()["niqe"].missing() == ""


def test_weights_are_looked_for_where_pyiqa_keeps_them_and_named_as_it_does() -> None:
    pytest.importorskip("pyiqa")
    from pyiqa.archs import lpips_arch, maniqa_arch, musiq_arch
    from pyiqa.utils.download_util import DEFAULT_CACHE_DIR

    names = {
        "LPIPS_v0.1_alex-df73285e.pth": lpips_arch.default_model_urls["0.1_alex"],
        "musiq_koniq_ckpt-e95806b9.pth": musiq_arch.default_model_urls["koniq10k"],
        "ckpt_koniq10k.pt": maniqa_arch.default_model_urls["koniq"],
    }
    for name, address in names.items():
        assert columns._pyiqa_file(name) == (Path(DEFAULT_CACHE_DIR, name), address)
    # Not imported: its package needs a pkg_resources that new versions of setuptools lack.
    spec = importlib.util.find_spec("clip")
    assert spec is not None
    assert spec.origin is not None
    assert f'"{columns._clip_files()[0][1]}"' in Path(spec.origin).with_name("clip.py").read_text()


def test_pyiqa_scores_a_pair_or_a_single_image() -> None:
    pytest.importorskip("pyiqa")
    generator = torch.Generator().manual_seed(0)
    sr, hr = (torch.rand(1, 3, 64, 64, generator=generator) for _ in range(2))
    # A metric of pyiqa without weights of its own.
    (value,) = columns._pyiqa("psnr")(torch.device("cpu"))(sr, hr, 4)
    assert value == pytest.approx(-10 * math.log10((sr - hr).square().mean().item()), abs=1e-3)
    (entropy,) = columns._pyiqa("entropy", needs_hr=False)(torch.device("cpu"))(sr, hr, 4)
    assert 0 < entropy < 8.1
