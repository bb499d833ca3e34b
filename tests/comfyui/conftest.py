"""Fixtures of the tests in a real ComfyUI; without one, all tests of this folder are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.comfyui.in_process import HostedPack, photo
from tests.comfyui.pictures import put_image
from tests.comfyui.server import ComfyServer


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The ComfyUI checkout that COMFYUI_PATH names."""
    named = os.environ.get("COMFYUI_PATH")
    if not named:
        pytest.skip("COMFYUI_PATH names no ComfyUI checkout; tests/comfyui/run.sh CHECKOUT runs this")
    path = Path(named).resolve()
    if not (path / "comfyui_version.py").is_file():
        pytest.fail(f"COMFYUI_PATH={named} is no ComfyUI checkout: comfyui_version.py is missing")
    return path


@pytest.fixture(scope="session")
def server(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """One server for all tests, with the pack as the registry ships it."""
    with ComfyServer.running(checkout, tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture(scope="session")
def pack(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> HostedPack:
    """The pack in this process."""
    return HostedPack(checkout, tmp_path_factory.mktemp("in_process"))


@pytest.fixture(scope="session")
def model(pack: HostedPack) -> Any:
    """The bundled model as Load UPSR gives it."""
    return pack.load()


@pytest.fixture(scope="session")
def small(server: ComfyServer) -> torch.Tensor:
    """small.png, 16x24."""
    return put_image(server, "small.png", photo(16, 24))
