"""Models for bad input to meet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PIL import Image

from tests.core.conftest import golden, golden_files, tiny_folder, tiny_pipe
from tests.nodes.conftest import node_module

__all__ = ["golden", "golden_files", "node_module", "tiny_folder", "tiny_pipe"]


@pytest.fixture(autouse=True)
def usual_limit_of_pixels() -> Iterator[None]:
    """Which ``--max-pixels`` changes for the whole process."""
    before = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = before
