"""Switches that change how fast a run is and what memory it takes, but not what is trained."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.trainer.runs import write_denoiser_config
from trainer.config import load_config
from trainer.loop import StageTrainer
from trainer.meter import Meter
from trainer.preparation import prepare
from trainer.train import make_accelerator


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_denoiser_config(tmp_path_factory.mktemp("switches"))


@pytest.fixture(autouse=True)
def _untouched() -> Iterator[None]:
    """Precisions are set for a whole process."""
    before = torch.get_float32_matmul_precision()
    AcceleratorState._reset_state()
    yield
    torch.set_float32_matmul_precision(before)
    AcceleratorState._reset_state()


def trainer_with(config_file: Path, *overrides: str) -> StageTrainer:
    config = load_config(config_file, overrides)
    parts = prepare(config)
    return StageTrainer(config, parts.stage("unet"), parts.images, make_accelerator(config, "unet"))


def losses(trainer: StageTrainer, steps: int = 2) -> list[float]:
    trainer.model.train()
    batches = trainer.batches.from_micro_step(0)
    meter, values = Meter(), []
    for _ in range(steps):
        trainer.step(batches, meter)
        values.append(meter.read(trainer.accelerator).means["loss"])
    return values


def test_channels_last_is_a_memory_format_of_weights_and_images(config_file: Path) -> None:
    values = []
    for switch, memory_format in (("true", torch.channels_last), ("false", torch.contiguous_format)):
        trainer = trainer_with(config_file, f"channels_last={switch}")
        networks = (trainer.model, trainer.stage.sr_net)  # type: ignore[attr-defined]
        for weight in (weight for network in networks for weight in network.parameters() if weight.ndim == 4):
            assert weight.is_contiguous(memory_format=memory_format)
        for image in next(trainer.batches.from_micro_step(0)):
            assert image.is_contiguous(memory_format=memory_format)
        values.append(losses(trainer))
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_tf32_is_a_precision_of_matrix_products_that_degradations_leave_as_it_is(config_file: Path) -> None:
    for switch, precision in (("true", "high"), ("false", "highest")):
        trainer = trainer_with(config_file, f"tf32={switch}")
        losses(trainer, steps=1)
        assert torch.get_float32_matmul_precision() == precision


def test_a_compiled_network_is_trained_alike(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced as always, but without the C++ compiler, which would take a minute.
    monkeypatch.setattr(torch.nn.Module, "compile", functools.partialmethod(torch.nn.Module.compile, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain = losses(trainer_with(config_file, "compile=false"), steps=1)
    assert not torch._dynamo.utils.counters["stats"]
    trainer = trainer_with(config_file, "compile=true")
    assert losses(trainer, steps=1) == pytest.approx(plain, rel=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    # Nothing of the compiler is in what is saved.
    assert not any("_orig_mod" in name for name in trainer.accelerator.get_state_dict(trainer.model))
    torch._dynamo.reset()


def test_bf16_computes_in_16_bits_and_keeps_weights_in_32(config_file: Path) -> None:
    full = losses(trainer_with(config_file))
    AcceleratorState._reset_state()
    trainer = trainer_with(config_file, "mixed_precision=bf16")
    half = losses(trainer)
    assert half != full
    assert half == pytest.approx(full, rel=5e-2)
    assert all(weight.dtype == torch.float32 for weight in trainer.model.parameters())
    assert all(average.dtype == torch.float32 for average in trainer.ema.weights.values())


def test_recomputing_activations_trains_alike(config_file: Path) -> None:
    trainer = trainer_with(config_file, "gradient_checkpointing=true")
    assert trainer.model.gradient_checkpointing
    assert losses(trainer) == pytest.approx(losses(trainer_with(config_file)), rel=1e-5)
    assert trainer.optimizer.param_groups[0]["fused"]
