"""Published checkpoints to our folders and back, and everything that can be wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.core.conftest import Golden, smooth_image
from tests.tiny import build_tiny
from upsr_core import ATDModel, ConvSRModel, UPSRPipeline, UPSRUNet, load_pipeline
from upsr_core.published.config import build_published
from upsr_core.published.conversion import (
    DERIVED_BUFFERS,
    convert_pair,
    convert_published,
    export_published,
    published_state_dict,
    read_state_dict,
)
from upsr_core.published.names import published_names


def parameters_only(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key.rsplit(".", 1)[-1] not in DERIVED_BUFFERS}


def test_every_published_key_has_one_place() -> None:
    """Every parameter of ours has its own published name, and no published parameter is left over."""
    with torch.device("meta"):
        unet, sr_net = UPSRUNet(), ATDModel()
    for model, entries in ((unet, 546), (sr_net, 690)):
        names = published_names(model)
        assert len(set(names.values())) == len(names) == entries


def test_converted_folder_gives_the_published_output(
    golden: Golden, golden_files: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "converted"
    convert_published(golden_files["denoiser"], golden_files["sr_net"], out, config=golden_files["config"])
    pipe = load_pipeline(out)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(golden["e2e.0.lr"], noise=golden["e2e.0.noise"], output_type="pt").images
    golden.assert_matches(images, "e2e.0.ddim_out")


@pytest.mark.parametrize("wrapping", ["bare", "params", "params_ema", "both", "module."])
def test_checkpoint_layouts(golden: Golden, golden_files: dict[str, Path], tmp_path: Path, wrapping: str) -> None:
    weights = golden.weights("sr_net")
    older = {key: torch.zeros_like(value) for key, value in weights.items()}
    content = {
        "bare": weights,
        "params": {"params": weights},
        "params_ema": {"params_ema": weights},
        "both": {"params": older, "params_ema": weights},
        "module.": {"params": {f"module.{key}": value for key, value in weights.items()}},
    }[wrapping]
    path = tmp_path / "sr_net.pth"
    torch.save(content, path)
    pipe = convert_published(golden_files["denoiser"], path, config=golden_files["config"])
    assert torch.equal(pipe.sr_net.conv_in.weight, weights["conv_first.weight"])


def test_there_and_back(golden: Golden, golden_files: dict[str, Path], tmp_path: Path) -> None:
    convert_published(golden_files["denoiser"], golden_files["sr_net"], tmp_path / "ours", golden_files["config"])
    denoiser, sr_net = export_published(tmp_path / "ours", tmp_path / "theirs")
    for path, name in ((denoiser, "denoiser"), (sr_net, "sr_net")):
        state, expected = read_state_dict(path), golden.weights(name)
        assert parameters_only(state).keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(state[key], value), key
    # What a strict loader there wants beside the parameters: one index a block, a mask for shifted blocks only.
    state = read_state_dict(denoiser)
    assert state["input_blocks.1.1.blocks.1.attn_mask"].shape == (64, 64, 64)
    assert state["output_blocks.0.1.blocks.1.attn_mask"].shape == (16, 64, 64)
    assert "input_blocks.1.1.blocks.0.attn_mask" not in state
    assert state["middle_block.1.blocks.0.attn.relative_position_index"].shape == (64, 64)
    assert read_state_dict(sr_net)["relative_position_index_SA"].shape == (64, 64)


def test_published_size_has_the_published_buffers() -> None:
    with torch.device("meta"):
        unet, sr_net = UPSRUNet(), ATDModel()
        denoiser_state, sr_state = published_state_dict(unet), published_state_dict(sr_net)
    assert len(denoiser_state) == 570
    assert len(sr_state) == 691


def test_all_wrong_keys_are_named(golden: Golden, golden_files: dict[str, Path], tmp_path: Path) -> None:
    weights = golden.weights("sr_net")
    del weights["norm.bias"]
    weights["norm.weight"] = torch.zeros(7)
    weights["surprise"] = torch.zeros(1)
    path = tmp_path / "broken.safetensors"
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"broken\.safetensors: does not fit ATDModel") as caught:
        convert_published(golden_files["denoiser"], path, tmp_path / "out", golden_files["config"])
    message = str(caught.value)
    assert "unknown key surprise" in message
    assert "missing key norm.bias" in message
    assert "norm.weight has shape (7,), not (24,)" in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


class RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_never_runs_code(tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"params": RunsCode(marker)}, path)
    with pytest.raises(ValueError, match=r"evil.pth: refused"):
        read_state_dict(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "empty.pth", "empty.safetensors", "text.pth"])
def test_damaged_files(golden_files: dict[str, Path], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "cut.pth":
        torch.save({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:500])
    elif name == "cut.safetensors":
        path.write_bytes(golden_files["sr_net"].read_bytes()[:500])
    else:
        path.write_bytes(b"hello" if name == "text.pth" else b"")
    with pytest.raises(ValueError, match=name) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{"epoch": 3}, {"params": [1, 2]}, {}])
def test_files_without_weights(tmp_path: Path, content: dict) -> None:
    torch.save(content, tmp_path / "log.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_state_dict(tmp_path / "log.pth")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such checkpoint file"):
        read_state_dict(tmp_path / "none.pth")


def test_output_folder_in_use(golden_files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        convert_published(golden_files["denoiser"], golden_files["sr_net"], tmp_path, golden_files["config"])


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("denoiser", "model_chanels", 32, "denoiser: unknown key 'model_chanels'"),
        ("sr_net", "upsampler", "nearest+conv", "sr_net.upsampler: only 'pixelshuffledirect'"),
        ("diffusion", "speed", 2, "diffusion: unknown key 'speed'"),
    ],
)
def test_configurations_we_cannot_build(golden: Golden, section: str, key: str, value: object, message: str) -> None:
    config = json.loads(json.dumps(golden.config))
    config[section][key] = value
    with pytest.raises(ValueError, match=message):
        build_published(config)


@pytest.mark.parametrize(("text", "message"), [("[1]", "JSON object"), ("{", "not a JSON file"), (None, "no such")])
def test_configuration_files_we_cannot_read(
    golden_files: dict[str, Path], tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        convert_published(golden_files["denoiser"], golden_files["sr_net"], config=tmp_path / "config.json")


def test_what_the_published_code_cannot_compute_is_not_exported(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="global_residual"):
        export_published(tiny_folder, tmp_path / "out")
    pipe = build_tiny(global_residual=False)
    UPSRPipeline(pipe.unet, ConvSRModel(channels=8, num_blocks=1), pipe.scheduler).save_pretrained(tmp_path / "conv")
    with pytest.raises(ValueError, match="sr_net is a ConvSRModel"):
        export_published(tmp_path / "conv", tmp_path / "out")
    sr_config = {**pipe.sr_net.config, "global_residual": False}
    sr_net = type(pipe.sr_net).from_config(sr_config)
    UPSRPipeline(unet=pipe.unet, sr_net=sr_net, scheduler=pipe.scheduler).save_pretrained(tmp_path / "swin")
    with pytest.raises(ValueError, match="shift_mask 'swin'"):
        export_published(tmp_path / "swin", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_our_own_training_can_be_exported(tmp_path: Path) -> None:
    """A model trained here in the published form gives the same image after export and conversion."""
    pipe = build_tiny(global_residual=False, shift_mask="published")
    sr_net = type(pipe.sr_net).from_config({**pipe.sr_net.config, "global_residual": False})
    pipe = UPSRPipeline(unet=pipe.unet, sr_net=sr_net.eval(), scheduler=pipe.scheduler)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path / "ours")
    denoiser, sr_path = export_published(tmp_path / "ours", tmp_path / "theirs")
    config = {
        "denoiser": {
            "image_size": 16, "model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": [1, 1],
            "attention_resolutions": [16, 8], "swin_embed_dim": 32, "num_feat": 8,
        },
        "sr_net": {
            "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 8, "category_size": 16,
            "num_tokens": 8, "reducted_dim": 4, "convffn_kernel_size": 3,
        },
        "diffusion": {},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    back = convert_published(denoiser, sr_path, config=tmp_path / "config.json")
    back.set_progress_bar_config(disable=True)
    lr = smooth_image(64, 64)
    images = [
        p(lr, generator=torch.Generator().manual_seed(0), output_type="pt", tile_size=0).images for p in (pipe, back)
    ]
    torch.testing.assert_close(images[0], images[1], atol=1e-4, rtol=0)


def test_a_pair_in_either_order(golden_files: dict[str, Path]) -> None:
    paths = golden_files["denoiser"], golden_files["sr_net"]
    pipes = [convert_pair(*pair, config=golden_files["config"]) for pair in (paths, paths[::-1])]
    for one, other in zip(*(pipe.unet.parameters() for pipe in pipes), strict=True):
        assert torch.equal(one, other)


def test_a_pair_of_two_alike(golden_files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="both hold the denoiser"):
        convert_pair(golden_files["denoiser"], golden_files["denoiser"])


def test_a_pair_with_a_stranger(golden_files: dict[str, Path], tmp_path: Path) -> None:
    save_file({"model.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: neither a denoiser nor an SR network.*model\.weight"):
        convert_pair(golden_files["denoiser"], tmp_path / "other.safetensors")
