"""UPSR: 4x super-resolution of photos by uncertainty-guided diffusion, as diffusers classes.

Importing the package also makes plain ``diffusers.DiffusionPipeline.from_pretrained`` find its classes. Importing it is
quick: torch and diffusers are imported when the first of its names is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .diffusers_hook import register_when_imported

if TYPE_CHECKING:
    from .loading import load_pipeline
    from .models import ATDModel, ConvSRModel, UPSRUNet
    from .pipeline_upsr import UPSRPipeline, UPSRPipelineOutput
    from .scheduling_unw import UNWScheduler

__all__ = [
    "ATDModel",
    "ConvSRModel",
    "UNWScheduler",
    "UPSRPipeline",
    "UPSRPipelineOutput",
    "UPSRUNet",
    "load_pipeline",
]

_MODULES = {
    "ATDModel": "models",
    "ConvSRModel": "models",
    "UNWScheduler": "scheduling_unw",
    "UPSRPipeline": "pipeline_upsr",
    "UPSRPipelineOutput": "pipeline_upsr",
    "UPSRUNet": "models",
    "load_pipeline": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_imported()
