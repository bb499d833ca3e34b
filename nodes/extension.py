"""The list of nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .estimate_uncertainty import EstimateUncertainty
from .example_photo import UPSRExamplePhoto
from .load_upsr import LoadUPSR
from .model_folders import register_folder
from .upsr_sample import UPSRSample


class UPSRExtension(ComfyExtension):
    """The nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The classes; on the way, ``models/upsr`` is made known, as `on_load` is not called by older versions."""
        register_folder()
        return [LoadUPSR, EstimateUncertainty, UPSRSample, UPSRExamplePhoto]
