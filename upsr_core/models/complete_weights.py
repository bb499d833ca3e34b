"""Refusing weights that are not all there."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

NAMED_KEYS = 5


class CompleteWeights(ModelMixin):
    """A `ModelMixin` that takes all of its weights from the file.

    diffusers itself leaves a missing weight at its random start and only logs it: the network then runs, and its
    images are noise.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """As `ModelMixin.from_pretrained`.

        Raises:
            ValueError: weights are missing or too many; the message names them.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(pretrained_model_name_or_path, output_loading_info=True, **kwargs)
        for keys, what in (("missing_keys", "are missing"), ("unexpected_keys", "are none of its own")):
            wrong = sorted(info[keys])
            if wrong:
                names = ", ".join(wrong[:NAMED_KEYS]) + (", ..." if len(wrong) > NAMED_KEYS else "")
                raise ValueError(
                    f"{pretrained_model_name_or_path}: {len(wrong)} weights of {cls.__name__} {what} ({names}); the "
                    "file is damaged, or its config.json is another model's"
                )
        return (model, info) if wants_info else model

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """As `ModelMixin.save_pretrained`, from any memory format: safetensors takes the plain one alone."""
        restored = torch.contiguous_format if all(p.is_contiguous() for p in self.parameters()) else torch.channels_last
        self.to(memory_format=torch.contiguous_format)
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self.to(memory_format=restored)


# Pipelines look at the signature to see which arguments, such as the variant, to hand on.
functools.update_wrapper(CompleteWeights.save_pretrained, ModelMixin.save_pretrained)


def in_fast_layout(*networks: nn.Module) -> None:
    """Put the kernels of the networks' convolutions in the layout of their features, channels_last.

    Otherwise every call of a convolution copies its kernel.
    """
    for network in networks:
        network.to(memory_format=torch.channels_last)
