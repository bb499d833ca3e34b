"""ComfyUI's IMAGE (B,H,W,C) and MASK (B,H,W) to the library's tensors and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .notices import logger

IMAGE_CHANNELS = (1, 3, 4)


def check_image(image: torch.Tensor) -> None:
    """Raise ValueError if the value is no IMAGE that can be upscaled."""
    if image.ndim != 4 or image.shape[-1] not in IMAGE_CHANNELS:
        raise ValueError(f"image must be (batch,height,width,3 or 4 channels), not {tuple(image.shape)}")
    if 0 in image.shape:
        raise ValueError(f"image is empty: {tuple(image.shape)}")


def frame_of(image: torch.Tensor, index: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One image of an IMAGE batch.

    Args:
        image: (B,H,W,C) with gray, RGB or RGBA, as `check_image` accepts it.
        index: which of the batch.

    Returns:
        RGB (1,3,H,W) and alpha (1,1,H,W), None without a fourth channel; float32 in [0,1]. Values outside of the range,
        as other nodes' filters may give, are clipped with a notice.

    Raises:
        ValueError: NaN or infinity.
    """
    frame = image[index : index + 1].movedim(-1, 1).float()
    if not frame.isfinite().all():
        raise ValueError(f"image {index} of the batch holds NaN or infinity; look at the node it comes from")
    low, high = frame.min().item(), frame.max().item()
    if low < 0 or high > 1:
        logger.warning("Image %d spans %.3f to %.3f and was clipped to 0 to 1.", index, low, high)
        frame = frame.clamp(0, 1)
    if frame.shape[1] == 1:
        frame = frame.expand(-1, 3, -1, -1)
    return frame[:, :3].contiguous(), (frame[:, 3:] if frame.shape[1] == 4 else None)


def frame_weight(mask: torch.Tensor, index: int, frames: int, height: int, width: int) -> torch.Tensor:
    """The noise weight for one image of a batch.

    Args:
        mask: (B,H,W) or (H,W) with B 1 or ``frames``.
        index: which of the batch.
        frames: size of the batch of images.
        height, width: of the output; a mask of another size is resized and that is said.

    Returns:
        (1,1,height,width), float32.

    Raises:
        ValueError: no mask, or as many as fit no batch.
    """
    mask = mask if mask.ndim == 3 else mask[None]
    if mask.ndim != 3 or 0 in mask.shape[1:]:
        raise ValueError(f"noise_weight must be masks (batch,height,width), not {tuple(mask.shape)}")
    if len(mask) not in (1, frames):
        raise ValueError(f"noise_weight holds {len(mask)} masks for {frames} images; pass one, or one for each")
    weight = mask[index if len(mask) > 1 else 0][None, None].float()
    if weight.shape[-2:] != (height, width):
        if index == 0:
            given = f"{weight.shape[-1]}x{weight.shape[-2]}"
            logger.warning("The noise weight is %s and was resized to the output's %dx%d.", given, width, height)
        weight = F.interpolate(weight, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return weight


def empty_image(frames: int, channels: int, height: int, width: int, device: torch.device) -> torch.Tensor:
    """Room for an IMAGE (frames,height,width,channels), float32, which `put_frame` fills.

    A batch put together of finished frames would be in memory twice, and a third time where their layout changes.
    """
    return torch.empty(frames, height, width, channels, device=device)


def empty_mask(frames: int, height: int, width: int, device: torch.device) -> torch.Tensor:
    """As `empty_image`, for a MASK (frames,height,width)."""
    return torch.empty(frames, height, width, device=device)


def put_frame(batch: torch.Tensor, index: int, frame: torch.Tensor) -> None:
    """Write ``frame`` (1,C,H,W) to its place in an IMAGE, or averaged over C in a MASK."""
    batch[index] = frame[0].movedim(0, -1) if batch.ndim == 4 else frame[0].mean(dim=0)
