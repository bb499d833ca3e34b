"""The network that a published checkpoint holds, found without loading it."""

from __future__ import annotations

from pathlib import Path

ROLE_KEYS = {"denoiser": "input_blocks.0.0.weight", "SR network": "conv_first.weight"}
"""A tensor that one network has and the other has not."""
# Both formats name their tensors before the first of them; even a thousand names take a tenth of this.
_HEAD_BYTES = 2**21


def role_in_head(path: str | Path) -> str | None:
    """The network by the tensors' names at a checkpoint's start, where ``.safetensors`` and ``.pth`` have them.

    The bytes are searched and not parsed, so nothing that a file holds can do harm.

    Returns:
        A key of `ROLE_KEYS`; None where the file names neither, or cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    return next((role for role, key in ROLE_KEYS.items() if key.encode() in head), None)
