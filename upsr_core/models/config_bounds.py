"""Bounds of a configuration's numbers, checked before memory is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Bounds = Mapping[str, tuple[int, int]]
MOST_ENTRIES = 16
# Pairs of tokens of a window, over all layers: each holds an index, and perhaps masks, of 8 bytes a pair and more.
MOST_PAIRS = 2**26


def check_whole_numbers(config: Any, bounds: Bounds) -> None:
    """Refuse values that are no whole numbers within their bounds.

    Args:
        config: with an attribute for each name, a number or a sequence of numbers.
        bounds: smallest and largest value by name; the sizes published are far below the largest.

    Raises:
        ValueError: the message names the value to change.
    """
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if not numbers or any(type(number) is not int or not low <= number <= high for number in numbers):
            raise ValueError(f"{name} must hold whole numbers from {low} to {high}, not {value!r}")
        if len(numbers) > MOST_ENTRIES:
            raise ValueError(f"{name} has {len(numbers)} entries of whole numbers; it may have 1 to {MOST_ENTRIES}")


def check_numbers(config: Any, bounds: Mapping[str, tuple[float, float]]) -> None:
    """Refuse values that are no finite numbers within their bounds; otherwise as `check_whole_numbers`."""
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or not math.isfinite(value) or not low <= value <= high:
            raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")


def check_lists(config: Any, names: Sequence[str]) -> None:
    """Refuse a single value where each level or group needs its own; otherwise as `check_whole_numbers`."""
    for name in names:
        if not isinstance(getattr(config, name), (list, tuple)):
            raise ValueError(f"{name} must be a list of whole numbers from 1 on, not {getattr(config, name)!r}")


def check_windows(layers: int, window_size: int) -> None:
    """Refuse windows whose tables would fill the memory.

    Raises:
        ValueError: the message says how large they may be.
    """
    largest = math.floor((MOST_PAIRS / layers) ** 0.25)
    if window_size > largest:
        raise ValueError(f"window_size must be at most {largest} in {layers} layers, not {window_size}")
