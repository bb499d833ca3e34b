"""Tensors that depend on the weights alone, computed once for a run that does not change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class KeepsDerived(nn.Module):
    """A module with tensors that depend on its weights alone; within `keep_derived` it keeps them."""

    _kept: dict[str, tuple[torch.Tensor, torch.Tensor]] | None = None

    def derived(
        self, name: str, weight: torch.Tensor, dtype: torch.dtype, compute: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """``compute()``, or its earlier result in this run for the same ``weight``, device and ``dtype``."""
        # Asked first: a compiled graph would otherwise hold for the one state of what is kept.
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or self._kept is None:
            return compute()
        kept = self._kept
        source, found = kept.get(name, (None, None))
        # Weights may move to another device within a run, and a failed tile runs again with weights of another type.
        if source is not weight or found is None or found.device != weight.device or found.dtype != dtype:
            found = compute()
            kept[name] = weight, found
        return found


@contextmanager
def keep_derived(*networks: nn.Module) -> Iterator[None]:
    """Within this, the networks' weights must not change; tensors that depend on them alone are computed once."""
    modules = [module for network in networks for module in network.modules() if isinstance(module, KeepsDerived)]
    for module in modules:
        module._kept = {}
    try:
        yield
    finally:
        for module in modules:
            module._kept = None
