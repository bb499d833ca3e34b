"""The type that is chosen for a CPU, and how far from float32 it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from upsr_core import UPSRPipeline, load_pipeline
from upsr_core.images.files import read_image
from upsr_core.precision import automatic_dtype

PHOTO = Path(__file__).parents[2] / "examples" / "chelsea_lr.png"


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected", "reason"),
    [
        (False, False, torch.float32, "would only emulate bfloat16"),
        (True, False, torch.bfloat16, "AVX512_BF16"),
        (True, True, torch.bfloat16, "AVX512_BF16, AMX"),
    ],
)
def test_processors_that_compute_in_bfloat16_get_it(
    monkeypatch: pytest.MonkeyPatch, avx512_bf16: bool, amx: bool, expected: torch.dtype, reason: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    dtype, why = automatic_dtype("cpu")
    assert dtype == expected
    assert reason in why
    pipe = load_pipeline(dtype="auto")
    assert pipe.unet.dtype == expected
    assert pipe.sr_net.dtype == torch.float32
    assert automatic_dtype("cuda")[0] == torch.float32


def test_automatic_bfloat16_is_close_to_float32_on_a_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    lr = read_image(PHOTO).rgb

    def run(pipe: UPSRPipeline) -> torch.Tensor:
        pipe.set_progress_bar_config(disable=True)
        return pipe(lr, generator=torch.Generator().manual_seed(0), output_type="pt").images

    difference = run(load_pipeline(dtype="auto")) - run(load_pipeline())
    assert -10 * difference.square().mean().log10() > 55
    # Not by chance, and not because nothing was computed in bfloat16.
    assert difference.abs().max() > 1e-4
