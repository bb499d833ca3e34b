from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.runs import write_config
from trainer.config import load_config
from trainer.stages import DenoiserStage
from trainer.typed_yaml import ConfigError
from trainer.weight_edits import edit_weights
from upsr_core import ATDModel, UNWScheduler, UPSRUNet

CONFIGS = Path(__file__).parents[2] / "trainer" / "configs"


def generators(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


def test_the_share_is_edited_and_the_rest_left_alone() -> None:
    weight = torch.rand(400, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    edited = edit_weights(weight, generators(400), 0.5)
    assert edited.shape == weight.shape
    assert edited.min() >= 0
    assert edited.max() <= 1
    # A rectangle can be empty.
    share = (edited != weight).flatten(1).any(1).float().mean()
    assert 0.35 < share < 0.55
    assert torch.equal(edit_weights(weight, generators(400), 0.0), weight)


def test_the_whole_image_or_a_rectangle_goes_towards_one_constant() -> None:
    weight = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = 0
    for before, after in zip(weight, edit_weights(weight, generators(64), 1.0), strict=True):
        changed = (before != after).all(0)
        assert torch.equal(changed, (before != after).any(0))
        if not changed.any():
            continue
        rows, columns = changed.any(1), changed.any(0)
        assert torch.equal(changed, rows[:, None] & columns)
        whole += bool(changed.all())
        # after = (1 - m) before + m c: its spread shrinks by one factor.
        inside, outcome = before[:, changed].flatten(), after[:, changed].flatten()
        slope = (outcome[1] - outcome[0]) / (inside[1] - inside[0])
        offset = outcome[0] - slope * inside[0]
        torch.testing.assert_close(outcome, slope * inside + offset, atol=1e-4, rtol=0)
        assert 0 <= slope <= 1
        assert 0 <= offset <= 1
    assert 16 < whole < 48


def test_a_sample_is_edited_alike_in_any_batch() -> None:
    weight = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    edited = edit_weights(weight, generators(6), 0.7)
    assert torch.equal(edited[4:], edit_weights(weight[4:], generators(2, first=4), 0.7))


def denoiser_sees(tmp_path: Path, share: float, training: bool) -> torch.Tensor:
    """The noisy image of a step."""
    config = load_config(write_config(tmp_path / "c.yaml", tmp_path, unet_training={"weight_edits": share}))
    unet, sr_net = UPSRUNet(**config.unet_arguments), ATDModel(**config.sr_net_arguments)
    stage, seen = DenoiserStage(config, unet.train(training), None, sr_net, UNWScheduler()), []
    unet.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    hr = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stage.losses(unet, hr[..., ::4, ::4], hr, generators(2))
    return seen[0]


def test_the_denoiser_is_trained_with_edits_and_scored_without(tmp_path: Path) -> None:
    paper = denoiser_sees(tmp_path, 0.0, training=True)
    assert not torch.equal(denoiser_sees(tmp_path, 1.0, training=True), paper)
    assert torch.equal(denoiser_sees(tmp_path, 1.0, training=False), paper)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("unet_training.weight_edits=1.5", r"weight_edits: must be less than or equal to 1, not 1\.5$"),
        ("sr_net_training.weight_edits=0.5", r"set unet_training\.weight_edits"),
    ],
)
def test_what_makes_no_sense_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIGS / "tiny.yaml", ["data.train_dir=x", override])
