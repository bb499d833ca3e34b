"""UPSRExamplePhoto: something to try the other nodes with."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from .library import PACK

PHOTO = PACK / "examples" / "chelsea_lr.png"


class UPSRExamplePhoto(io.ComfyNode):
    """The small photo of the templates.

    A node of its own, since `LoadImage` reads the user's input folder only, and a pack has nothing to write there.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One output."""
        return io.Schema(
            node_id="UPSRExamplePhoto",
            display_name="Example Photo (UPSR)",
            category="image/upscaling",
            description="A small photo to try UPSR with. For a photo of yours, put Load Image in its place.",
            inputs=[],
            outputs=[io.Image.Output("image", display_name="image", tooltip="Chelsea the cat, 112x75 pixels.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Read it, and show it at the node."""
        with Image.open(PHOTO) as photo:
            levels = np.asarray(photo.convert("RGB"))
        image = torch.from_numpy(levels.astype(np.float32) / 255)[None]
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))
