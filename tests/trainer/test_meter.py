from __future__ import annotations

import time

import pytest
import torch
from accelerate import Accelerator

from trainer.meter import Meter


def test_a_meter_gives_means_since_it_was_read() -> None:
    accelerator, meter = Accelerator(cpu=True), Meter()
    for value in (1.0, 3.0):
        meter.add({"loss": torch.tensor(value)})
        meter.stepped()
    meter.add({"grad_norm": torch.tensor(5.0)})
    reading = meter.read(accelerator)
    assert reading.means == {"loss": 2.0, "grad_norm": 5.0}
    assert reading.memory > 2**20
    meter.add({"loss": torch.tensor(7.0)})
    meter.stepped()
    assert meter.read(accelerator).means == {"loss": 7.0}


def test_a_part_inside_another_one_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0, 12.0, 15.0, 20.0, 30.0, 30.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    meter = Meter()
    with meter.part("outer"), meter.part("inner"):
        pass
    meter.add({"loss": torch.tensor(1.0)})
    meter.stepped()
    shares = meter.read(Accelerator(cpu=True)).shares
    # From 10 to 20, of which 12 to 15 are the inner part's.
    assert shares == {"inner": 3 / 30, "outer": 7 / 30}


def test_what_is_done_between_steps_takes_none_of_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0, 60.0, 70.0, 70.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    meter = Meter()
    with meter.apart():
        pass
    meter.add({"loss": torch.tensor(1.0)})
    meter.stepped()
    assert meter.read(Accelerator(cpu=True)).seconds_per_step == 20
