"""A model and photos for the benchmarks to run on in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.images import write_smooth_photos
from tests.tiny import build_tiny


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, which add a little noise to the bicubic image."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    build_tiny().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_smooth_photos(tmp_path_factory.mktemp("photos"))
