"""The nodes' modules that need no ComfyUI, under a name of their own.

Never as ``nodes``: that is the name of a module of ComfyUI's, which other tests import.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "upsr_pack_nodes"


@pytest.fixture(scope="session")
def node_module() -> Callable[[str], ModuleType]:
    """Imports a module of the folder nodes/ by its name."""
    folder = ROOT / "nodes"
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    return lambda name: importlib.import_module(f"{PACKAGE}.{name}")
