"""The two networks of UPSR: the denoiser and the SR network."""

from .atd import ATDModel, ATDModelOutput
from .unet_upsr import UPSRUNet, UPSRUNetOutput, denoiser_input

__all__ = ["ATDModel", "ATDModelOutput", "UPSRUNet", "UPSRUNetOutput", "denoiser_input"]
