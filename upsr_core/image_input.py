"""Images as Python users hold them, to tensors and back. Strict: nothing is resized, clipped or guessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from .messages import one_line
from .pixels import to_pil

ImageInput = Any  # PIL.Image | np.ndarray | torch.Tensor, or a list of one kind


def to_tensor(images: ImageInput) -> torch.Tensor:
    """Images to a float32 tensor (B,3,h,w) in [0,1].

    Args:
        images: one of
            a PIL image or a list of them (any mode without alpha, 8 bits a channel; converted to RGB, and turned as its
            EXIF orientation says);
            a float array (h,w,3) or (B,h,w,3) in [0,1], or uint8 in 0..255;
            a float tensor (3,h,w) or (B,3,h,w) in [0,1], or uint8 in 0..255;
            a list of such arrays or tensors of one size.

    Raises:
        ValueError: for another type, shape, dtype or range, NaN, or images of several sizes in one list.
    """
    if isinstance(images, (list, tuple)):
        if not images:
            raise ValueError("image is an empty list; pass at least one image")
        tensors = [to_tensor(image) for image in images]
        sizes = sorted({tuple(tensor.shape[-2:]) for tensor in tensors})
        if len(sizes) > 1:
            raise ValueError(f"image holds images of several sizes (h,w) {sizes}; call once per size")
        return torch.cat(tensors)
    if isinstance(images, Image.Image):
        return _from_pil(images)
    if isinstance(images, np.ndarray):
        return _from_array(images)
    if isinstance(images, torch.Tensor):
        return _checked(images if images.ndim == 4 else images[None], images.shape)
    raise ValueError(
        f"image must be a PIL image, a numpy array, a torch tensor or a list of them, not {type(images).__name__}"
    )


def to_output(images: torch.Tensor, output_type: str) -> list[Image.Image] | np.ndarray | torch.Tensor:
    """(B,3,H,W) in [0,1] to the caller's type: ``"pil"`` a list, ``"np"`` (B,H,W,3) float32, ``"pt"`` unchanged."""
    if output_type == "pt":
        return images
    if output_type == "np":
        return images.permute(0, 2, 3, 1).cpu().float().numpy()
    return [to_pil(image) for image in images]


def _from_pil(image: Image.Image) -> torch.Tensor:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        raise ValueError(
            f"image has transparency (mode {image.mode}); pass image.convert('RGB'), or read the file with "
            "upsr_core.images.files.read_image, which keeps alpha"
        )
    if image.mode.startswith(("I", "F")):
        raise ValueError(
            f"image has more than 8 bits a channel (mode {image.mode}), which PIL cannot convert to RGB without "
            "loss; read it with upsr_core.images.files.read_image or pass a float array in [0,1]"
        )
    try:
        array = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))  # only now PIL reads the pixels
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"image is a damaged or incomplete file ({one_line(error)}); get it again") from error
    return _from_array(array)


def _from_array(array: np.ndarray) -> torch.Tensor:
    if array.ndim not in (3, 4) or array.shape[-1] != 3:
        raise ValueError(f"image as an array must be (h,w,3) or (B,h,w,3), not {array.shape}")
    try:
        # PyTorch knows neither negative strides nor other byte orders.
        native = torch.tensor(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))
    except TypeError as error:
        raise ValueError(f"image must be float in [0,1] or uint8, not {array.dtype}; convert it first") from error
    return _checked((native if native.ndim == 4 else native[None]).permute(0, 3, 1, 2), array.shape)


def _checked(batch: torch.Tensor, given_shape: Sequence[int]) -> torch.Tensor:
    if batch.ndim != 4 or batch.shape[1] != 3:
        raise ValueError(f"image as a tensor must be (3,h,w) or (B,3,h,w), not {tuple(given_shape)}")
    if batch.layout != torch.strided or batch.is_meta:
        raise ValueError(f"image must be a dense tensor with values, not {batch.layout} on {batch.device}")
    if 0 in batch.shape:
        raise ValueError(f"image is empty: shape {tuple(given_shape)}")
    if batch.dtype == torch.uint8:
        batch = batch.float() / 255
    if not batch.is_floating_point():
        raise ValueError(f"image must be float in [0,1] or uint8, not {batch.dtype}; scale it to [0,1] first")
    batch = batch.float()
    low, high = batch.min().item(), batch.max().item()
    if not (low >= 0 and high <= 1):
        found = "holds NaN" if low != low else f"spans [{low:.4g},{high:.4g}]"
        raise ValueError(f"image must be in [0,1] but {found}; scale it to [0,1] first")
    return batch.contiguous()
