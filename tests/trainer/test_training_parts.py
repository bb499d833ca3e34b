"""The parts of the training loop, one promise each."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from trainer.config import DataConfig, StageConfig, load_config
from trainer.data.batches import Batches, MicroStepSampler, derived_seed
from trainer.ema import EMA
from trainer.losses.terms import LPIPSLoss
from trainer.losses.vgg_features import VGGFeatureLoss
from trainer.optimization import learning_rate
from trainer.output.checkpointing import Progress, read_progress
from trainer.preflight import load_perceptual, preflight
from trainer.stages import build_seeded, noisy_input
from trainer.train import plan, run
from trainer.typed_yaml import ConfigError
from upsr_core import ATDModel, UNWScheduler
from upsr_core.published.conversion import build_published, load_published

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def config_file(photos: Path, tmp_path: Path) -> Path:
    content: dict[str, Any] = {
        "output_dir": str(tmp_path / "run"),
        "data": {"train_dir": str(photos), "hr_size": 32, "preset": "mild", "val_size": 32},
        "sr_net": {"embed_dim": 16, "depths": [1], "num_heads": [2]},
        "unet": {"image_size": 8, "channel_mult": [1], "num_res_blocks": [1], "model_channels": 32, "pad_multiple": 8},
        "sr_net_training": {"max_steps": 1, "batch_size": 2},
        "unet_training": {"max_steps": 1, "batch_size": 2},
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


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
def test_batches_are_pairs_in_range(photos: Path, pool_size: int) -> None:
    def first(degrade_on: Any, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        data = DataConfig(photos, hr_size=32, preset="mild", degrade_on=degrade_on, pool_size=pool_size)
        stream = Batches(data, 4, 2, 5, torch.device("cpu"), 0, 1).from_micro_step(0)
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


def test_learning_rate_warms_up_and_ends_where_it_should() -> None:
    constant = StageConfig(max_steps=100, lr=2.0, warmup_steps=4)
    assert [learning_rate(constant, step) for step in (0, 1, 3, 4, 99)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    cosine = StageConfig(max_steps=100, lr=2.0, warmup_steps=20, lr_schedule="cosine", lr_end=0.1)
    assert learning_rate(cosine, 20) == 2.0
    assert learning_rate(cosine, 60) == pytest.approx(1.1)
    assert learning_rate(cosine, 100) == pytest.approx(0.2)
    assert learning_rate(cosine, 1000) == pytest.approx(0.2)
    no_warmup = StageConfig(max_steps=100, lr=2.0, lr_schedule="cosine")
    assert learning_rate(no_warmup, 0) == 2.0


def test_ema_forgets_the_start_then_has_a_constant_decay() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(100.0)
    ema = EMA(network, decay=0.5)
    network.weight.data.fill_(0.0)
    values = []
    for _ in range(12):
        ema.update(network)
        values.append(ema.weights["weight"].item())
    assert values[0] == pytest.approx(100 * 2 / 11)
    # (1 + n) / (10 + n) reaches 0.5 at n = 8.
    assert values[9] / values[8] == pytest.approx(0.5)
    assert values[6] / values[5] == pytest.approx(8 / 17)
    assert not ema.weights["weight"].requires_grad
    assert network.weight.requires_grad

    other = EMA(network, decay=0.5)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 12
    assert torch.equal(other.weights["weight"], ema.weights["weight"])
    copy = nn.Linear(1, 1, bias=False)
    ema.copy_to(None)
    ema.copy_to(copy)
    assert torch.equal(copy.weight, ema.weights["weight"])


def test_initial_weights_follow_the_seed_and_leave_torchs_generator_alone() -> None:
    arguments = {"embed_dim": 16, "depths": (1,), "num_heads": (2,)}
    before = torch.get_rng_state()
    first, same, other = (build_seeded(ATDModel, arguments, seed).conv_in.weight for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_derived_seeds_are_valid_and_unlike() -> None:
    seeds = {derived_seed(a, b) for a in range(10) for b in range(10)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**62 for seed in seeds)


def test_noisy_input_and_loss_are_the_published_implementations() -> None:
    with np.load(DATA / "golden.npz") as file:
        keys = [key for key in file.files if key.startswith(("train.", "weights."))]
        golden = {key: torch.from_numpy(file[key]) for key in keys}
    unet, sr_net, scheduler = build_published(json.loads((DATA / "golden_config.json").read_text()))
    for network, name in ((unet, "denoiser"), (sr_net, "sr_net")):
        prefix = f"weights.{name}."
        weights = {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}
        load_published(network, {key: w.float() for key, w in weights.items()}, name)
    hr, t = golden["train.gt"].float(), golden["train.t"]
    lr = (golden["train.lr"].float() + 1) / 2
    sample, condition = noisy_input(sr_net, scheduler, lr, hr, golden["train.noise"].float(), t, sr_condition=True)
    squared_error = (unet(sample, t, condition).sample - hr).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(squared_error.detach(), golden["train.mse"].float(), atol=1e-5, rtol=1e-5)


def test_the_denoiser_trains_without_the_sr_condition_too() -> None:
    sr_net = ATDModel(embed_dim=16, depths=(1,), num_heads=(2,), window_size=8)
    generator = torch.Generator().manual_seed(0)
    lr, hr = (torch.rand(2, 3, size, size, generator=generator) for size in (8, 32))
    noise, t = torch.zeros(2, 3, 32, 32), torch.tensor([0, 4])
    _, condition = noisy_input(sr_net, UNWScheduler(), lr, hr, noise, t, sr_condition=False)
    _, both = noisy_input(sr_net, UNWScheduler(), lr, hr, noise, t, sr_condition=True)
    assert condition.shape == (2, 48, 8, 8)
    # Unshuffled, channel c of the image is channels 16 c to 16 c + 15: G comes first, then Y.
    assert torch.equal(both[:, 48:], condition)


def test_lpips_is_a_distance_with_gradients() -> None:
    lpips = LPIPSLoss(pretrained=False)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 64, 64, generator=generator) * 2 - 1
    estimate = (image + 0.3 * torch.randn(image.shape, generator=generator)).requires_grad_()
    assert lpips(image, image).item() == 0
    distance = lpips(estimate, image)
    assert distance.item() > 0
    distance.backward()
    assert estimate.grad is not None
    assert estimate.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in lpips.parameters())
    # Values outside [-1,1] count as what an image file would hold.
    assert lpips(torch.full_like(image, 3.0), torch.ones_like(image)).item() == 0


def test_lpips_without_its_backbone_is_one_line(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load_perceptual(load_config(config_file), "unet") is None
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # A proxy that nothing listens at: no download, with or without a network.
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    message = r"unet_training\.perceptual_weight 0\.5 needs torchvision's VGG weights"
    with pytest.raises(ConfigError, match=message) as error:
        load_perceptual(load_config(config_file, ["unet_training.perceptual_weight=0.5"]), "unet")
    assert "\n" not in str(error.value)


def test_vgg_features_need_no_download(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["unet_training.perceptual=vgg-features", "unet_training.perceptual_weight=0.01"]
    config = load_config(config_file, overrides)
    assert isinstance(load_perceptual(config, "unet"), VGGFeatureLoss)
    monkeypatch.setattr("upsr_core.evaluation.st_lpips.WEIGHTS_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r"^unet_training\.perceptual: .*pip install"):
        load_perceptual(config, "unet")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.train_dir=nowhere"], r"^data\.train_dir: nowhere: no such folder"),
        (["data.val_dir=nowhere"], r"^data\.val_dir: nowhere: no such folder"),
        (["data.pool_size=1"], r"^data\.pool_size 1 must be 0 or at least the batch size 2$"),
        (["data.val_size=30"], r"^data\.val_size 30 must be a multiple of scale 4"),
        (["data.preset=upsr"], r"^data\.hr_size 32 must be .* at least \d+"),
        (["unet.swin_embed_dim=40"], r"^unet: swin_embed_dim must be a multiple of 32"),
        (["unet.pad_multiple=4"], r"^unet: pad_multiple must be a multiple of .* = 8$"),
        (["sr_net.num_heads=[2,2]"], r"^sr_net: num_heads must have 1 entries"),
        (["scheduler.kappa=-1"], r"^scheduler: kappa must be above 0"),
        (["stage=unet"], r"run/model: holds no sr_net; train stage sr_net first or set sr_net_from"),
    ],
)
def test_preflight_names_what_would_fail(config_file: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        preflight(load_config(config_file, overrides))
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 works where there is CUDA")
def test_fp16_needs_a_device_for_it(config_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"^mixed_precision: fp16 needs a CUDA device"):
        preflight(load_config(config_file, ["mixed_precision=fp16"]))


def test_g_of_another_scale_is_refused(config_file: Path, tmp_path: Path) -> None:
    ATDModel(scale=2, embed_dim=16, depths=(1,), num_heads=(2,)).save_pretrained(tmp_path / "g")
    with pytest.raises(ConfigError, match=r"g: has scale 2, the configuration 4$"):
        run(load_config(config_file, ["stage=unet", f"sr_net_from={tmp_path / 'g'}"]))


def test_a_folder_with_a_run_in_it_is_not_overwritten(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file)
    with pytest.raises(ConfigError, match=r"holds no checkpoint; leave out --resume to start anew$"):
        plan(config, "latest")
    write_checkpoint(tmp_path / "run/checkpoints/sr_net/step-00000005", Progress("sr_net", {}, 5))
    with pytest.raises(ConfigError, match=r"holds a run already .*step-00000005\); add --resume latest"):
        plan(config, None)
    with pytest.raises(ConfigError, match=r"is no checkpoint of this trainer"):
        plan(config, str(tmp_path))


def test_resuming_takes_up_the_stage_that_was_left(config_file: Path, tmp_path: Path) -> None:
    config, folder = load_config(config_file), tmp_path / "run" / "checkpoints"
    first = write_checkpoint(folder / "sr_net" / "step-00000005", Progress("sr_net", {}, 5))
    # Half-written ones don't count.
    write_checkpoint(folder / "sr_net" / "step-00000009.partial", Progress("sr_net", {}, 9))
    assert plan(config, "latest") == [("sr_net", first), ("unet", None)]
    done = write_checkpoint(folder / "sr_net" / "step-00000006", Progress("sr_net", {}, 6, finished=True))
    assert plan(config, "latest") == [("unet", None)]
    last = write_checkpoint(folder / "unet" / "step-00000002", Progress("unet", {}, 2))
    assert plan(config, "latest") == [("unet", last)]
    assert plan(config, str(last)) == [("unet", last)]
    only_g = load_config(config_file, ["stage=sr_net"])
    assert plan(only_g, "latest") == [("sr_net", done)]
    with pytest.raises(ConfigError, match=r"is a checkpoint of stage unet, but the configuration says sr_net$"):
        plan(only_g, str(last))


def test_a_checkpoint_of_another_architecture_is_refused(config_file: Path, tmp_path: Path) -> None:
    assert run(load_config(config_file, ["stage=sr_net"])) == 0
    checkpoint = tmp_path / "run/checkpoints/sr_net/step-00000001"
    assert read_progress(checkpoint).architecture["embed_dim"] == 16
    with pytest.raises(ConfigError, match=r"was trained with sr_net\.num_tokens = 64, the configuration says 32; use"):
        run(load_config(config_file, ["stage=sr_net", "sr_net.num_tokens=32"]), "latest")


def write_checkpoint(folder: Path, progress: Progress) -> Path:
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps(vars(progress)))
    return folder
