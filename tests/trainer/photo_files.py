"""Image files that tell where their pixels are from, and folders and tar files of them."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


def gradient(height: int, width: int, blue: int) -> np.ndarray:
    """Red counts columns, green counts rows, blue names the image."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = np.arange(width), np.arange(height)[:, None], blue
    return pixels


def save_gradient(path: Path, height: int, width: int, blue: int) -> None:
    Image.fromarray(gradient(height, width, blue)).save(path)


def png(height: int, width: int, blue: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(gradient(height, width, blue)).save(stream, "png")
    return stream.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def make_old(*paths: Path) -> None:
    """Last changed an hour ago, so that an index of them can be trusted."""
    for path in paths:
        os.utime(path, (time.time() - 3600,) * 2)


def levels(item: dict[str, Any], key: str = "hr") -> np.ndarray:
    """(3, H, W) in 0..255."""
    return torch.round(item[key] * 255).long().numpy()
