"""Training of the last step from the states that sampling leads to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.runs import write_config
from trainer.config import load_config
from trainer.stages import DenoiserStage
from trainer.typed_yaml import ConfigError
from upsr_core import ATDModel, UNWScheduler, UPSRPipeline, UPSRUNet

CONFIGS = Path(__file__).parents[2] / "trainer" / "configs"


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def first_batch(folder: Path, share: float, training: bool = True) -> tuple[DenoiserStage, torch.Tensor, torch.Tensor]:
    """A stage, and the state and the timesteps of the call that is trained, for four LR images of noise."""
    config = load_config(write_config(folder / "c.yaml", folder, unet_training={"own_states": share}))
    torch.manual_seed(0)
    unet, sr_net = UPSRUNet(**config.unet_arguments), ATDModel(**config.sr_net_arguments)
    for network in (unet, sr_net):  # whose last layer starts at zero
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1) if not parameter.any() else None
    stage, calls = DenoiserStage(config, unet.train(training), None, sr_net, UNWScheduler()), []
    unet.register_forward_pre_hook(lambda module, args: calls.append(args))
    stage.losses(unet, lr_images(), torch.rand(4, 3, 32, 32), generators(4))
    return stage, calls[-1][0], calls[-1][1]


def lr_images() -> torch.Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(9))


def test_the_states_are_those_of_the_pipeline(tmp_path: Path) -> None:
    stage, trained, t = first_batch(tmp_path, 1.0)
    assert t.tolist() == [0, 0, 0, 0]
    pipe = UPSRPipeline(stage.network, stage.sr_net, UNWScheduler())
    pipe.set_progress_bar_config(disable=True)
    sampled: list[torch.Tensor] = []
    stage.network.register_forward_pre_hook(lambda module, args: sampled.append(args[0]))
    noise = []
    for generator in generators(4):
        torch.randint(0, 5, (1,), generator=generator)  # as the timestep was drawn before
        noise.append(torch.randn(3, 32, 32, generator=generator))
    pipe(lr_images(), noise=torch.stack(noise), tile_size=0, flat_threshold=0, output_type="pt")
    assert len(sampled) == 5
    torch.testing.assert_close(trained, sampled[-1], atol=1e-4, rtol=1e-4)


def test_only_a_share_of_the_samples_and_only_in_training(tmp_path: Path) -> None:
    _, paper, times = first_batch(tmp_path, 0.0)
    _, held_out, _ = first_batch(tmp_path, 1.0, training=False)
    assert torch.equal(held_out, paper)
    _, half, times_of_half = first_batch(tmp_path, 0.5)
    same = [torch.equal(one, other) for one, other in zip(half, paper, strict=True)]
    assert 0 < sum(same) < 4
    assert [t == 0 or kept for t, kept in zip(times_of_half.tolist(), same, strict=True)] == [True] * 4
    assert [a == b for a, b, kept in zip(times_of_half, times, same, strict=True) if kept] == [True] * sum(same)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sr_net_training.own_states=0.5"], r"set unet_training\.own_states"),
        (["unet_training.own_states=0.5", "scheduler.default_inference_steps=1"], r"no earlier steps with scheduler"),
        (["unet_training.own_states=1.5"], r"own_states: must be less than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIGS / "tiny.yaml", ["data.train_dir=x", *overrides])
