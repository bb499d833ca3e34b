"""Both networks: parity with the published implementation, the published size, and what training needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.core.conftest import Golden
from tests.tiny import TINY_ATD, TINY_UNET, build_tiny
from upsr_core import ATDModel, UPSRPipeline, UPSRUNet
from upsr_core.models import attention
from upsr_core.models.attention import MASKED, WindowAttention, attend, shift_masks
from upsr_core.resampling import mirror_indices, pad_to_multiple


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_published_sizes() -> None:
    with torch.device("meta"):
        assert parameters(UPSRUNet()) == 119_418_319
        assert parameters(ATDModel()) == 2_532_360


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Attention over small windows takes another way with several threads."""
    usual = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(usual)


def test_denoiser_matches_the_published_one(golden: Golden, golden_pipe: UPSRPipeline, threads: int) -> None:
    with torch.no_grad():
        out = golden_pipe.unet(golden["denoiser.0.sample"], golden["denoiser.0.timestep"], golden["denoiser.0.cond"])
    golden.assert_matches(out.sample, "denoiser.0.out")


@pytest.mark.parametrize("case", [0, 1])
def test_sr_network_matches_the_published_one(
    golden: Golden, golden_pipe: UPSRPipeline, threads: int, case: int
) -> None:
    with torch.no_grad():
        out = golden_pipe.sr_net(golden[f"srnet.{case}.lr"])
    golden.assert_matches(out.sample, f"srnet.{case}.out")


def test_gradients_match_the_published_ones(golden: Golden, golden_pipe: UPSRPipeline) -> None:
    """The MSE term of Eq. 9 per sample, and the global norm of its mean's gradient."""
    pipe, t = golden_pipe, golden["train.t"]
    upsampled = torch.nn.functional.interpolate(golden["train.lr"], scale_factor=4, mode="bicubic")
    with torch.no_grad():
        sr = 2 * pipe.sr_net((golden["train.lr"] + 1) / 2).sample - 1
    weight = pipe.scheduler.noise_weight((sr - upsampled).abs() / 2)
    x_t = pipe.scheduler.add_noise(golden["train.gt"], upsampled, golden["train.noise"], t, weight)
    sample = torch.nn.functional.pixel_unshuffle(pipe.scheduler.scale_model_input(x_t, t), 4)
    condition = torch.nn.functional.pixel_unshuffle(torch.cat([sr, upsampled], dim=1), 4)
    out = pipe.unet(sample, t, condition).sample
    mse = (out - golden["train.gt"]).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(mse.detach(), golden["train.mse"], atol=1e-5, rtol=1e-5)
    gradients = torch.autograd.grad(mse.mean(), list(pipe.unet.parameters()))
    norm = torch.stack([g.norm() for g in gradients]).norm()
    torch.testing.assert_close(norm, golden["train.grad_norm"].squeeze(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tokens", [16, 64, 256])
@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("windows_at_once", [2, 5])
def test_attention_is_the_same_fused_or_not(
    monkeypatch: pytest.MonkeyPatch, threads: int, tokens: int, scale: float | None, windows_at_once: int
) -> None:
    monkeypatch.setattr(attention, "SCORE_ELEMENTS", windows_at_once * 2 * tokens**2)
    q, k, v = torch.randn(3, 5, 2, tokens, 12)
    for bias in (None, torch.randn(2, tokens, tokens)):
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * (12**-0.5 if scale is None else scale)
        expected = (scores + (0 if bias is None else bias)).softmax(-1) @ v
        torch.testing.assert_close(attend(q, k, v, bias, scale), expected, atol=1e-5, rtol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(attend(q, k, v, bias, scale), expected, atol=1e-5, rtol=1e-5)


def published_mask(shift: int, window: int) -> torch.Tensor:
    """The published mask spelt out: tokens of a last-row window see each other if on the same side of a column."""
    mask = torch.zeros(window**2, window**2)
    for i in range(window**2):
        for j in range(window**2):
            if (i % window < window - shift) != (j % window < window - shift):
                mask[i, j] = MASKED
    return mask


def test_published_shift_mask() -> None:
    last_row, last_column, corner = shift_masks(8, "published")
    assert torch.equal(last_row, published_mask(4, 8))
    assert torch.equal(corner, last_row)
    assert not last_column.any()


@pytest.mark.parametrize("size", [(8, 8), (8, 24), (24, 8), (16, 24)])
def test_swin_mask_keeps_opposite_borders_apart(size: tuple[int, int]) -> None:
    """Shifted attention in one piece equals attention over each window's tokens that are neighbours in the image."""
    torch.manual_seed(0)
    height, width = size
    attend_windows = WindowAttention(num_heads=2, window_size=8, shifted=True)
    attend_windows.relative_position_bias.data.zero_()
    qkv = torch.randn(1, height, width, 24)
    with torch.no_grad():
        out = attend_windows(qkv)
    # Windows displaced by 4: rows ..3, 4..11, and so on; those at the border hold fewer tokens.
    borders = [sorted({0, n, *range(4, n, 8)}) for n in (height, width)]
    for top, bottom in zip(borders[0], borders[0][1:], strict=False):
        for left, right in zip(borders[1], borders[1][1:], strict=False):
            q, k, v = qkv[0, top:bottom, left:right].reshape(-1, 3, 2, 4).permute(1, 2, 0, 3)
            expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            expected = expected.transpose(0, 1).reshape(bottom - top, right - left, 8)
            torch.testing.assert_close(out[0, top:bottom, left:right], expected)


@pytest.mark.parametrize("shift_mask", ["swin", "published", None])
@pytest.mark.parametrize("size", [(8, 8), (8, 24), (16, 24)])
def test_windows_are_the_same_in_training_and_inference(shift_mask: Any, size: tuple[int, int]) -> None:
    layer = WindowAttention(num_heads=2, window_size=8, shifted=shift_mask is not None, shift_mask=shift_mask or "swin")
    torch.nn.init.normal_(layer.relative_position_bias)
    qkv = torch.randn(2, *size, 3 * 16)
    trained = layer(qkv)
    with torch.no_grad():
        torch.testing.assert_close(layer(qkv), trained.detach())


def test_only_large_levels_shift() -> None:
    unet = UPSRUNet(**{**TINY_UNET, "image_size": 16})
    shifted = [m.shift > 0 for m in unet.modules() if isinstance(m, WindowAttention)]
    # Level 0 (16 tokens) shifts its second block, level 1 (8 tokens, one window) never.
    assert shifted == [False, True, False, False, False, False, False, False, False, True]


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_every_scale(scale: int) -> None:
    pipe = build_tiny(scale)
    assert pipe.sr_net(torch.rand(1, 3, 9, 17)).sample.shape == (1, 3, 9 * scale, 17 * scale)
    channels = 3 * scale**2
    out = pipe.unet(torch.randn(2, channels, 16, 32), 3, torch.randn(2, 2 * channels, 16, 32))
    assert out.sample.shape == (2, 3, 16 * scale, 32 * scale)


def test_global_residual_starts_at_its_base() -> None:
    lr = torch.rand(1, 3, 16, 16)
    upsampled = torch.nn.functional.interpolate(lr, scale_factor=4, mode="bicubic")
    atd = ATDModel(**TINY_ATD, global_residual=True)
    torch.testing.assert_close(atd(lr).sample, upsampled)
    unet = UPSRUNet(**TINY_UNET, global_residual=True)
    condition = torch.nn.functional.pixel_unshuffle(torch.cat([upsampled, torch.rand(1, 3, 64, 64)], dim=1), 4)
    torch.testing.assert_close(unet(torch.randn(1, 48, 16, 16), 0, condition).sample, upsampled)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tiny_pipe: UPSRPipeline, dtype: torch.dtype) -> None:
    lr = torch.rand(1, 3, 16, 16)
    unet, atd = UPSRUNet(**tiny_pipe.unet.config), ATDModel(**tiny_pipe.sr_net.config)
    unet.load_state_dict(tiny_pipe.unet.state_dict())
    atd.load_state_dict(tiny_pipe.sr_net.state_dict())
    sample, condition = torch.randn(1, 48, 16, 16), torch.randn(1, 96, 16, 16)
    with torch.no_grad():
        expected = unet(sample, 2, condition).sample, atd(lr).sample
        unet.to(dtype)
        atd.to(dtype)
        found = unet(sample.to(dtype), 2, condition.to(dtype)).sample, atd(lr.to(dtype)).sample
    for half, full in zip(found, expected, strict=True):
        assert half.dtype == dtype
        assert (half.float() - full).abs().mean() < 0.02 * full.std()


def test_gradient_checkpointing_changes_nothing(tiny_pipe: UPSRPipeline) -> None:
    sample, condition, lr = torch.randn(1, 48, 16, 16), torch.randn(1, 96, 16, 16), torch.rand(1, 3, 16, 16)

    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        found = []
        for model, args in ((tiny_pipe.unet, (sample, 1, condition)), (tiny_pipe.sr_net, (lr,))):
            if checkpointing:
                model.enable_gradient_checkpointing()
            found += torch.autograd.grad(model(*args).sample.square().mean(), list(model.parameters()))
            model.disable_gradient_checkpointing()
        return found

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_denoiser_compiles_without_graph_breaks(tiny_pipe: UPSRPipeline) -> None:
    sample, condition = torch.randn(1, 48, 16, 16), torch.randn(1, 96, 16, 16)
    compiled = torch.compile(tiny_pipe.unet, fullgraph=True, dynamic=False, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(sample, torch.tensor(2), condition).sample, tiny_pipe.unet(sample, 2, condition).sample
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 3}, "scale must be"),
        ({"sr_condition": 2}, "sr_condition must be"),
        ({"num_res_blocks": (1,)}, "num_res_blocks must have 2"),
        ({"swin_embed_dim": 40}, "swin_embed_dim must be"),
        ({"model_channels": 40}, "model_channels must be"),
        ({"pad_multiple": 24}, "pad_multiple must be"),
        ({"shift_mask": "none"}, "shift_mask must be"),
    ],
)
def test_impossible_denoisers_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UPSRUNet(**{**TINY_UNET, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": (2,)}, "num_heads must have 2"),
        ({"num_heads": (3, 3)}, "embed_dim 16 must be"),
        ({"convffn_kernel_size": 4}, "must be odd"),
    ],
)
def test_impossible_sr_networks_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ATDModel(**{**TINY_ATD, **change})


def test_mirror_padding() -> None:
    line = torch.tensor([1.0, 2.0, 3.0])
    assert line[mirror_indices(3, 9, "reflect")].tolist() == [1, 2, 3, 2, 1, 2, 3, 2, 1]
    assert line[mirror_indices(3, 9, "symmetric")].tolist() == [1, 2, 3, 3, 2, 1, 1, 2, 3]
    assert mirror_indices(1, 4, "reflect").tolist() == [0, 0, 0, 0]
    image = torch.rand(1, 3, 5, 70)
    padded = pad_to_multiple(image, 64)
    assert padded.shape == (1, 3, 64, 128)
    torch.testing.assert_close(padded[..., :5, :], torch.nn.functional.pad(image, (0, 58, 0, 0), mode="reflect"))


def test_g_runs_under_autocast() -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert ATDModel(**TINY_ATD)(torch.rand(1, 3, 16, 16)).sample.shape == (1, 3, 64, 64)


@pytest.mark.parametrize("sr_condition", [True, False])
def test_folders_from_before_sr_condition_load(tmp_path: Path, sr_condition: bool) -> None:
    """They say with two numbers, in_channels and cond_channels, what sr_condition says now."""
    unet = build_tiny(sr_condition=sr_condition).unet
    unet.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    del config["sr_condition"]
    file.write_text(json.dumps({**config, "in_channels": 48, "cond_channels": 96 if sr_condition else 48}))
    loaded = UPSRUNet.from_pretrained(tmp_path)
    assert loaded.config.sr_condition is sr_condition
    assert "cond_channels" not in loaded.config
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), unet.parameters(), strict=True))
