"""ComfyUI nodes: `LoadUPSR`, `EstimateUncertainty`, `UPSRSample`, `UPSRExamplePhoto`; glue over upsr_core."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension


async def comfy_entrypoint() -> ComfyExtension:
    """Entry point that ComfyUI calls to get the nodes."""
    from .extension import UPSRExtension

    return UPSRExtension()
