"""Which type the denoiser should have where the choice is left to the library."""

from __future__ import annotations

import torch


def automatic_dtype(device: str | torch.device = "cpu") -> tuple[torch.dtype, str]:
    """The denoiser's type for ``dtype="auto"``, and why. The SR network is float32 then.

    A question to the processor, not a measurement of it: the same machine always gives the same answer, and so the
    same pixels. With AVX512_BF16 the denoiser of the published size took half its time on a CPU (relative error 0.26%);
    processors without it only emulate bfloat16, which is several times slower than float32.
    """
    kind = torch.device(device).type
    if kind != "cpu":
        return torch.float32, f"float32 is the default on {kind}"
    if not torch.backends.mkldnn.is_available():
        return torch.float32, "this PyTorch has no oneDNN"
    found = [name for name, check in (("AVX512_BF16", "_is_avx512_bf16_supported"), ("AMX", "_is_amx_tile_supported"))
             if getattr(torch.cpu, check, lambda: False)()]  # fmt: skip
    if found:
        return torch.bfloat16, f"the processor computes in it ({', '.join(found)})"
    return torch.float32, "the processor has no AVX512_BF16 and no AMX, and would only emulate bfloat16"
