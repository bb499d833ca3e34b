"""UPSR: 4x super-resolution of photos by uncertainty-guided diffusion, as diffusers classes.

Importing the package also makes plain ``diffusers.DiffusionPipeline.from_pretrained`` find its classes.
"""

from .loading import load_pipeline, register_with_diffusers
from .models import ATDModel, UPSRUNet
from .pipeline_upsr import UPSRPipeline, UPSRPipelineOutput
from .scheduling_unw import UNWScheduler

__all__ = ["ATDModel", "UNWScheduler", "UPSRPipeline", "UPSRPipelineOutput", "UPSRUNet", "load_pipeline"]

register_with_diffusers(UPSRPipeline, UPSRUNet, ATDModel, UNWScheduler)
