"""The memory that is free."""

from __future__ import annotations

import pytest
import torch

from upsr_core.memory import free_bytes, free_memory_as


def test_free_memory_of_this_machine() -> None:
    assert 2**20 < free_bytes(torch.device("cpu")) < 2**50


def test_a_host_can_say_what_is_free() -> None:
    cpu = torch.device("cpu")
    with free_memory_as(lambda device: 7 if device == cpu else 0):
        assert free_bytes(cpu) == 7
    assert free_bytes(cpu) > 2**20
    with pytest.raises(ZeroDivisionError), free_memory_as(lambda _: 1 // 0):
        free_bytes(cpu)
    assert free_bytes(cpu) > 2**20
