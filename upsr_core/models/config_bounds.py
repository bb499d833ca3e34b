"""Bounds of a configuration's whole numbers, checked before they become memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Bounds = Mapping[str, tuple[int, int]]


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
