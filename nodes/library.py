"""One copy of upsr_core, the one in this repository, imported when a node first needs it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]


def bind_library() -> None:
    """Let ``import upsr_core`` find the copy beside these nodes, unless another is in use.

    A relative import would make a second copy under another name, whose classes diffusers does not know. Loading
    is put off to the first use, since it imports diffusers.
    """
    if "upsr_core" in sys.modules:
        return
    folder = PACK / "upsr_core"
    spec = importlib.util.spec_from_file_location(
        "upsr_core", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["upsr_core"] = module
    spec.loader.exec_module(module)
