"""Progress bar, live preview and cancelling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.model_management as mm
import torch
import torch.nn.functional as F
from comfy.utils import ProgressBar

PREVIEW_SIDE = 512


@contextmanager
def cancellable(*networks: torch.nn.Module) -> Iterator[None]:
    """Let a cancel end a call of a network at the next of its modules, which may be seconds before the call's end."""

    def check(_module: torch.nn.Module, _inputs: tuple) -> None:
        mm.throw_exception_if_processing_interrupted()

    hooks = [module.register_forward_pre_hook(check) for network in networks for module in network.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class NodeProgress:
    """The bar of a node that works frame by frame, each frame counting the same.

    Args:
        frames: how many there are.
    """

    def __init__(self, frames: int):
        self._frames = frames
        self._bar = ProgressBar(frames)
        self._value = 0

    def listener(self, frame: int) -> Callable[[int, int], None]:
        """For `callback_on_tile_end` of this frame; raises ComfyUI's exception if the user has cancelled."""

        def listen(done: int, total: int) -> None:
            mm.throw_exception_if_processing_interrupted()
            self._value = frame * total + done
            self._bar.update_absolute(self._value, self._frames * total)

        return listen

    def preview(self, image: torch.Tensor) -> None:
        """Show (1,3,H,W) in [-1,1] in the node."""
        from upsr_core.pixels import to_pil

        longest = max(image.shape[-2:])
        if longest > PREVIEW_SIDE:
            size = [max(1, round(side * PREVIEW_SIDE / longest)) for side in image.shape[-2:]]
            image = F.interpolate(image, size, mode="area")
        self._bar.update_absolute(self._value, preview=("JPEG", to_pil((image[0] + 1) / 2), PREVIEW_SIDE))
