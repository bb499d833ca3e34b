from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import ONE_LAYER_ATD
from tests.trainer.runs import write_config, write_photos
from trainer.config import load_config
from trainer.preparation import PERCEPTUAL, build_seeded, prepare
from trainer.typed_yaml import ConfigError
from upsr_core import ATDModel, UNWScheduler, UPSRPipeline


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return write_config(tmp_path / "c.yaml", write_photos(tmp_path / "photos", 3))


def test_initial_weights_follow_the_seed_and_leave_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    first, same, other = (build_seeded(ATDModel, ONE_LAYER_ATD, seed).conv_in.weight for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", PERCEPTUAL)
def test_the_perceptual_term_is_the_chosen_one(
    config_file: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert prepare(load_config(config_file)).perceptual == {"sr_net": None, "unet": None}
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # A proxy that nothing listens at: no download, with or without a network.
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    config = load_config(config_file, [f"unet_training.perceptual={name}", "unet_training.perceptual_weight=0.01"])
    if name == "lpips-vgg":
        message = r"^unet_training\.perceptual: lpips-vgg needs torchvision's VGG weights, .*=st-lpips-vgg"
    else:
        assert type(prepare(config).perceptual["unet"]) is PERCEPTUAL[name]
        monkeypatch.setattr("upsr_core.evaluation.st_lpips.WEIGHTS_PACKAGE", "no_such_package")
        message = r"^unet_training\.perceptual: .*pip install"
    with pytest.raises(ConfigError, match=message) as error:
        prepare(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.train_dir=nowhere"], r"^data\.train_dir: nowhere: no such folder"),
        (["data.val_dir=nowhere"], r"^data\.val_dir: nowhere: no such folder"),
        (["data.pool_size=1"], r"^data\.pool_size 1 must be 0 or at least the batch size 2$"),
        (["data.val_size=30"], r"^data\.val_size 30 must be a multiple of scale 4"),
        (["data.preset=upsr"], r"^data\.hr_size 32 must be .* at least \d+"),
        (["data.degradation_mix={mild: 1, upsr: 1}"], r"^data\.hr_size 32 must be .* at least \d+"),
        (["data.hr_size=48"], r"^data\.hr_size / scale = 12 must be a multiple of .* = 8$"),
        (["data.hr_size=64"], r"^unet\.image_size 8 must be data\.hr_size / scale = 16$"),
        (
            [
                "scale=2",
                "data.hr_size=16",
                "unet_training.perceptual=st-lpips-vgg",
                "unet_training.perceptual_weight=1",
            ],
            r"^data\.hr_size 16 must be at least 32 for unet_training\.perceptual=st-lpips-vgg$",
        ),
        (["unet.swin_embed_dim=40"], r"^unet: swin_embed_dim must be a multiple of 32"),
        (["unet.pad_multiple=4"], r"^unet: pad_multiple must be a multiple of .* = 8$"),
        (["sr_net.num_heads=[2,2]"], r"^sr_net: num_heads must have 1 entries"),
        (["sr_net={}", "conv_sr_net={channels: 0}"], r"^conv_sr_net: channels must"),
        (["sr_net_from=g"], r"^sr_net_from: stage both trains a g of its own; set stage=unet"),
        (["scheduler.kappa=-1"], r"^scheduler: kappa must be above 0"),
        (["stage=unet"], r"run/model: holds no sr_net; train stage sr_net first or set sr_net_from"),
    ],
)
def test_parts_that_cannot_be_built_are_named(config_file: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        prepare(load_config(config_file, overrides))
    assert "\n" not in str(error.value)


def test_held_out_crops_must_suit_the_denoiser(config_file: Path) -> None:
    """Its loss is taken on them as they are, where the pipeline would pad them."""
    photos = load_config(config_file).data.train_dir
    assert photos is not None
    (folder,) = photos
    with pytest.raises(ConfigError, match=r"^data\.val_size / scale = 12 must be a multiple of .* = 8$"):
        prepare(load_config(config_file, [f"data.val_dir={folder}", "data.val_size=48"]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 works where there is CUDA")
def test_fp16_needs_a_device_for_it(config_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"^mixed_precision: fp16 needs a CUDA device"):
        prepare(load_config(config_file, ["mixed_precision=fp16"]))


def test_g_of_another_scale_is_refused(config_file: Path, tmp_path: Path) -> None:
    ATDModel(**ONE_LAYER_ATD, scale=2).save_pretrained(tmp_path / "g")
    with pytest.raises(ConfigError, match=r"g: has scale 2, the configuration 4$"):
        prepare(load_config(config_file, ["stage=unet", f"sr_net_from={tmp_path / 'g'}"]))


def test_another_diffusion_than_that_of_the_initial_weights_is_told_of(
    config_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = prepare(load_config(config_file))
    scheduler = UNWScheduler(kappa=1.5, default_inference_steps=2)
    pipe = UPSRPipeline(parts.networks["unet"], parts.networks["sr_net"], scheduler)
    pipe.save_pretrained(tmp_path / "source")
    keys = "scheduler.kappa=1.5 scheduler.default_inference_steps=2"
    prepare(load_config(config_file, [f"init_from={tmp_path / 'source'}", *keys.split()]))
    assert not caplog.records
    prepare(load_config(config_file, [f"init_from={tmp_path / 'source'}"]))
    assert caplog.messages == [
        f"init_from {tmp_path / 'source'}: was trained with another scheduler; to keep it, set {keys}"
    ]


def test_the_crop_rule_is_the_denoisers_alone(config_file: Path) -> None:
    assert list(prepare(load_config(config_file, ["data.hr_size=48", "stage=sr_net"])).networks) == ["sr_net"]


def test_each_part_is_built_once_and_used(config_file: Path) -> None:
    parts = prepare(load_config(config_file, ["data.val_dir=" + str(config_file.parent / "photos")]))
    networks = dict(parts.networks)
    stage = parts.stage("sr_net")
    assert stage.network is networks["sr_net"]
    assert parts.images.val is not None
    assert len(parts.images.train) == len(parts.images.val) == 3
    # g is not trained yet: it is read when it is the denoiser's turn.
    with pytest.raises(ConfigError, match=r"run/model: holds no sr_net"):
        parts.stage("unet")
