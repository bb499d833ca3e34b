"""Tells diffusers of our classes at the moment it can first load a pipeline, without importing it before."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TypeVar

# Defines DiffusionPipeline: nothing can be loaded before it is imported.
_PIPELINES = "diffusers.pipelines.pipeline_utils"
# Imports all classes there are.
_OURS = "upsr_core.pipeline_upsr"

Class = TypeVar("Class", bound=type)


def registered_with_diffusers(cls: Class) -> Class:
    """Class decorator: let diffusers save and load the class under the library name ``upsr_core``.

    diffusers has no public hook for components of another package: without this, `save_pretrained` writes module
    paths into model_index.json that no Hub repository can be loaded by.
    """
    import diffusers
    from diffusers.pipelines import pipeline_loading_utils

    methods = ["save_pretrained", "from_pretrained"]
    pipeline_loading_utils.LOADABLE_CLASSES.setdefault("upsr_core", {})[cls.__name__] = methods
    pipeline_loading_utils.ALL_IMPORTABLE_CLASSES[cls.__name__] = methods
    setattr(diffusers, cls.__name__, cls)
    return cls


def register_when_imported() -> None:
    """Have all classes registered: now where diffusers' pipelines are imported already, else right after them."""
    if _PIPELINES in sys.modules:
        importlib.import_module(_OURS)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds diffusers' pipelines as anyone would, and has them followed by our registration."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _PIPELINES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # As if we had not been there, for what looks at the loader later.
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        importlib.import_module(_OURS)
