"""The networks of UPSR: the denoiser, and the SR networks it can have for its g."""

from .atd import ATDModel
from .conv_sr import ConvSRModel
from .sr_output import SRNetOutput
from .unet_upsr import UPSRUNet, UPSRUNetOutput, denoiser_input

SRNet = ATDModel | ConvSRModel

__all__ = [
    "ATDModel",
    "ConvSRModel",
    "SRNet",
    "SRNetOutput",
    "UPSRUNet",
    "UPSRUNetOutput",
    "denoiser_input",
]
