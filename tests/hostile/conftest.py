"""Models for bad input to meet."""

from __future__ import annotations

from tests.core.conftest import golden, golden_files, tiny_folder, tiny_pipe
from tests.nodes.conftest import node_module

__all__ = ["golden", "golden_files", "node_module", "tiny_folder", "tiny_pipe"]
