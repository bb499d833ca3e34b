"""Runs with an adversarial term: what is trained, and that they resume and share out as exactly as any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.runs import assert_same_state, log_of, logged_losses, together, write_denoiser_config
from trainer.config import load_config
from trainer.losses.adversarial import Discriminator
from trainer.losses.vgg_features import VGGFeatureLoss
from trainer.optimization import DISCRIMINATOR_RATE, make_optimizer, set_learning_rate
from trainer.stages import DenoiserStage
from trainer.train import main
from trainer.typed_yaml import ConfigError
from upsr_core import ATDModel, UNWScheduler, UPSRUNet

CONFIGS = Path(__file__).parents[2] / "trainer" / "configs"
FEATURES = ["unet_training.perceptual=vgg-features", "unet_training.perceptual_weight=0.003"]
ADVERSARIAL = [*FEATURES, "unet_training.adversarial_weight=0.01"]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_denoiser_config(tmp_path_factory.mktemp("adversarial"))


def test_four_steps_are_two_and_a_resume_and_two_and_two_processes_train_as_one(config_file: Path) -> None:
    folder = config_file.parent
    common = ["--config", str(config_file), *ADVERSARIAL]
    four = [*common, "unet_training.max_steps=4"]
    with log_of("trainer") as lines:
        assert main([*four, f"output_dir={folder / 'whole'}"]) == 0
    halves = f"output_dir={folder / 'halves'}"
    assert main([*common, halves, "unet_training.max_steps=2"]) == 0
    assert main([*four, halves, "--resume", "latest"]) == 0
    last = Path("checkpoints", "unet", "step-00000004")
    assert_same_state(folder / "whole" / last, folder / "halves" / last)
    assert (folder / "whole" / last / "model_1.safetensors").is_file()  # the discriminator

    log = together([*four, "unet_training.batch_size=2", f"output_dir={folder / 'two'}"])
    losses = logged_losses("\n".join(lines))
    assert len(losses) == 4
    # Features are scaled by the magnitudes of a process's own photos, so the two differ by more than rounding.
    assert logged_losses(log) == pytest.approx(losses, rel=0.03)
    assert "+ 0.01 adversarial" in log


def test_the_held_out_loss_is_without_it(config_file: Path) -> None:
    config = load_config(config_file, [*ADVERSARIAL, "unet_training.grid_weight=2"])
    torch.manual_seed(0)
    unet, sr_net = UPSRUNet(**config.unet_arguments), ATDModel(**config.sr_net_arguments)
    stage = DenoiserStage(config, unet, VGGFeatureLoss(), sr_net, UNWScheduler(), Discriminator())
    hr = torch.rand(1, 3, 32, 32)
    found = {}
    for training in (True, False):
        generators = [torch.Generator().manual_seed(0)]
        with torch.no_grad():
            found[training] = stage.losses(unet.train(training), hr[..., ::4, ::4], hr, generators)
    assert set(found[True]) == {"loss", "mse", "perceptual", "grid", "adversarial", "discriminator"}
    assert set(found[False]) == {"loss", "mse", "perceptual", "grid"}
    for name in ("mse", "perceptual", "grid"):
        torch.testing.assert_close(found[True][name], found[False][name])
    terms = {name: value.item() for name, value in found[False].items()}
    assert terms["loss"] == pytest.approx(terms["mse"] + 0.003 * terms["perceptual"] + 2 * terms["grid"], rel=1e-5)
    own = found[False]["loss"] + 0.01 * found[True]["adversarial"]
    torch.testing.assert_close(found[True]["loss"], own + found[True]["discriminator"])


def test_the_discriminator_has_a_rate_of_its_own(config_file: Path) -> None:
    training = load_config(config_file).unet_training
    network, discriminator = torch.nn.Linear(2, 2), Discriminator()
    optimizer = make_optimizer(network, training, torch.device("cpu"), discriminator)
    set_learning_rate(optimizer, 1e-4)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, DISCRIMINATOR_RATE * 1e-4]
    assert optimizer.param_groups[0]["params"] == list(network.parameters())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sr_net_training.adversarial_weight=0.01"], r"set unet_training\.adversarial_weight"),
        (["sr_net_training.missing_detail_weight=1"], r"set unet_training\.missing_detail_weight$"),
        (
            ["unet_training.grid_weight=1", "data.hr_size=16"],
            r"^data\.hr_size 16 .* 32 for unet_training\.grid_weight$",
        ),
        (["unet_training.adversarial_weight=0.01", "unet_training.perceptual_weight=1"], r"set .*=vgg-features and"),
        (["unet_training.adversarial_weight=0.01", FEATURES[0]], r"and a unet_training\.perceptual_weight$"),
    ],
)
def test_what_it_needs_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_config(CONFIGS / "tiny.yaml", ["data.train_dir=x", *overrides])
    assert "\n" not in str(error.value)
