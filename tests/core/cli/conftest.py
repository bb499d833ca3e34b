"""Fixtures of the tests of the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.cli.photos import save_photo


@pytest.fixture(scope="session")
def model(tiny_folder: Path) -> list[str]:
    return ["--model", str(tiny_folder), "--device", "cpu"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return save_photo(tmp_path / "photo.png")
