from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.runs import write_photos
from trainer.data.batches import Batches, MicroStepSampler, derived_seed
from trainer.data.config import DataConfig
from trainer.data.sources.image_folders import FolderSource


def test_every_pass_sees_every_photo_once_whatever_the_number_of_processes() -> None:
    def indices(rank: int, world_size: int, micro_steps: int) -> list[int]:
        sampler = iter(MicroStepSampler(7, 2, seed=3, start=0, rank=rank, world_size=world_size))
        return [index for _ in range(micro_steps) for index in next(sampler)]

    alone = indices(0, 1, 14)
    assert Counter(index % 7 for index in alone) == dict.fromkeys(range(7), 4)
    # Each crop is a new one.
    assert len(set(alone)) == len(alone)
    assert [index % 7 for index in alone[:7]] != [index % 7 for index in alone[7:14]]
    shared = [indices(rank, 2, 7) for rank in range(2)]
    assert sorted(shared[0] + shared[1]) == sorted(alone)

    later = iter(MicroStepSampler(7, 2, seed=3, start=5, rank=0, world_size=1))
    assert next(later) == alone[10:12]


@pytest.mark.parametrize("pool_size", [0, 4])
def test_batches_are_pairs_in_range(tmp_path: Path, pool_size: int) -> None:
    photos = write_photos(tmp_path / "photos", 3)

    def first(degrade_on: Any, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        data = DataConfig(photos, hr_size=32, preset="mild", degrade_on=degrade_on, pool_size=pool_size)
        stream = Batches(data, FolderSource(photos), 4, 2, 5, torch.device("cpu"), 0, 1).from_micro_step(0)
        return [next(stream) for _ in range(count)]

    batches = first("loader", 4)
    for lr, hr in batches:
        assert lr.shape == (2, 3, 8, 8)
        assert hr.shape == (2, 3, 32, 32)
        assert min(lr.min(), hr.min()) >= 0
        assert max(lr.max(), hr.max()) <= 1
        # lr belongs to hr.
        assert (torch.nn.functional.avg_pool2d(hr, 4) - lr).abs().mean() < 0.1
    for (lr, hr), (lr_again, hr_again) in zip(batches, first("device", 4), strict=True):
        assert torch.equal(lr, lr_again)
        assert torch.equal(hr, hr_again)


def test_derived_seeds_are_valid_and_unlike() -> None:
    seeds = {derived_seed(a, b) for a in range(10) for b in range(10)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**62 for seed in seeds)


def test_workers_leave_signals_to_the_process_that_saves(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    data = DataConfig(photos, hr_size=32, preset="bicubic", num_workers=1)
    stream = Batches(data, FolderSource(photos), 4, 2, 5, torch.device("cpu"), 0, 1).from_micro_step(0)
    next(stream)
    workers = torch.multiprocessing.active_children()
    assert workers
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
    assert len([next(stream) for _ in range(8)]) == 8
