"""The endless, resumable stream of training batches."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from trainer.data.config import DataConfig
from trainer.data.crops import CropDataset
from trainer.data.lettering import Lettering
from trainer.data.pair_pool import PairPool
from trainer.data.sources.base import ImageSource
from trainer.typed_yaml import ConfigError
from upsr_core.degradation.degrading import Degradation

# HR (B,3,H,W) and the samples' seeds -> LR (B,3,h,w), both in [0,1].
Degrade = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


def derived_seed(*key: int) -> int:
    """A seed that is unlike that of any other key."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 2


class MicroStepSampler(Sampler[list[int]]):
    """Dataset indices of each micro-step. They depend on nothing else, so a resumed run just starts later.

    Each pass through the images is shuffled anew, and the processes share it out.

    Args:
        num_images: items of one pass.
        batch_size: items per process and micro-step.
        seed: decides the order.
        start: first micro-step.
        rank, world_size: this process and how many there are.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, start: int, rank: int, world_size: int):
        self.num_images, self.batch_size, self.seed, self.start = num_images, batch_size, seed, start
        self.rank, self.world_size = rank, world_size
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, completed: int) -> np.ndarray:
        return np.random.default_rng([self.seed, completed]).permutation(self.num_images)

    def _index(self, position: int) -> int:
        completed, item = divmod(position, self.num_images)
        return completed * self.num_images + int(self._order(completed)[item])

    def __iter__(self) -> Iterator[list[int]]:
        micro_step = self.start
        while True:
            first = (micro_step * self.world_size + self.rank) * self.batch_size
            yield [self._index(first + i) for i in range(self.batch_size)]
            micro_step += 1


class Batches:
    """Endless batches ``(lr, hr)`` in [0,1] on the training device.

    Args:
        data: what becomes of the images.
        source: the images.
        scale: super-resolution factor.
        batch_size: pairs per batch.
        seed: decides order, crops and degradations.
        device: where the batches go.
        rank, world_size: this process and how many there are.
        memory_format: of the batches.
    """

    def __init__(
        self,
        data: DataConfig,
        source: ImageSource,
        scale: int,
        batch_size: int,
        seed: int,
        device: torch.device,
        rank: int,
        world_size: int,
        memory_format: torch.memory_format = torch.channels_last,
    ):
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device
        self.rank, self.world_size, self.memory_format = rank, world_size, memory_format
        self.source = source
        self.dataset = CropDataset(
            source,
            data.hr_size,
            scale,
            seed=seed,
            cache=data.cache,
            shrink=data.shrink,
            lettering=Lettering(data.lettering, data.fonts) if data.lettering else None,
        )
        self.degradation: Degrade = Degradation(data.training_degradation(), scale)
        size = data.pool_size
        self.pool = PairPool(size, derived_seed(seed, rank)) if size else None

    def from_micro_step(self, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches from a micro-step on. A pool must have got its state of that moment beforehand."""
        sampler = MicroStepSampler(len(self.source), self.batch_size, self.seed, start, self.rank, self.world_size)
        loader = DataLoader(
            self.dataset,
            batch_sampler=sampler,
            num_workers=self.data.num_workers,
            worker_init_fn=_ignore_signals,
            collate_fn=self._collate,
            # Workers' seeds would come from the global generator otherwise, though nothing uses them.
            generator=torch.Generator().manual_seed(0),
            pin_memory=self.device.type == "cuda",
        )
        for batch in _clear_errors(loader):
            hr = batch["hr"].to(self.device, memory_format=self.memory_format, non_blocking=True)
            if "lr" in batch:
                lr = batch["lr"].to(self.device, non_blocking=True)
            else:
                lr = self.degradation(hr, batch["seeds"])
            if self.pool is not None:
                hr, lr = self.pool.exchange(hr, lr)
            yield lr.contiguous(memory_format=self.memory_format), hr

    def _collate(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        hr, seeds = torch.stack([item["hr"] for item in items]), [item["seed"] for item in items]
        batch = {"hr": hr, "seeds": seeds}
        if self.source.paired:
            batch["lr"] = torch.stack([item["lr"] for item in items])
        elif self.data.degrade_on == "loader":
            batch["lr"] = self.degradation(hr, seeds)
        return batch


def _ignore_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM reach the whole group: a worker that ended by them would end the process that saves."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _clear_errors(loader: DataLoader[Any]) -> Iterator[dict[str, Any]]:
    """The loader's batches; a worker's ConfigError without the traceback that torch puts before its message."""
    try:
        yield from loader
    except ConfigError as error:
        raise ConfigError(str(error).rpartition("ConfigError: ")[2].strip()) from error
