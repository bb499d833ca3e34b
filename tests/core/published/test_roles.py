"""Which network a checkpoint holds, from its first bytes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.core.conftest import Golden
from upsr_core.published.roles import role_in_head


@pytest.mark.parametrize(("network", "role"), [("denoiser", "denoiser"), ("sr_net", "SR network")])
@pytest.mark.parametrize("layout", ["safetensors", "zip", "legacy"])
def test_every_layout_of_both_networks(golden: Golden, tmp_path: Path, network: str, role: str, layout: str) -> None:
    path, weights = tmp_path / "weights", golden.weights(network)
    if layout == "safetensors":
        save_file(weights, path)
    else:
        torch.save({"params_ema": weights}, path, _use_new_zipfile_serialization=layout == "zip")
    assert role_in_head(path) == role


class _Runs:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a pickle ran",))


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "code.pth"
    path.write_bytes(pickle.dumps({"conv_first.weight": _Runs()}))
    assert role_in_head(path) == "SR network"


def test_strangers(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "other.pth").write_bytes(bytes(range(256)) * 100)
    assert [role_in_head(tmp_path / name) for name in ("empty.pth", "other.pth", "missing.pth")] == [None] * 3
