"""Models, photos and tables, for all benchmarks."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch

from upsr_core import UPSRPipeline, load_pipeline
from upsr_core.allocation import keep_freed_memory
from upsr_core.models.complete_weights import in_fast_layout
from upsr_core.published.config import build_published
from upsr_core.resampling import upsample


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", help="model folder, or 'published': random weights of the published size (default: bundled)"
    )


def add_threads_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's own choice)")


def load_model(name: str | None) -> UPSRPipeline:
    """The pipeline that `add_model_argument` names, on the CPU in float32, without a progress bar.

    The process keeps freed memory from here on, as the command line does.
    """
    keep_freed_memory()
    diffusers.utils.logging.disable_progress_bar()
    if name == "published":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            unet, sr_net, scheduler = build_published()
        in_fast_layout(unet, sr_net)
        pipe = UPSRPipeline(unet=unet.eval(), sr_net=sr_net.eval(), scheduler=scheduler)
    else:
        pipe = load_pipeline(name)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def model_name(name: str | None) -> str:
    return "bundled model" if name is None else "published size" if name == "published" else Path(name).name


def upscale_each_way(pipe: UPSRPipeline, lr: torch.Tensor, seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The LR image (1,3,h,w) upscaled by bicubic interpolation, by g alone and by UPSR, untiled.

    Returns:
        The images (1,3,s*h,s*w) in [0,1] by name, and the uncertainty psi.
    """
    psi, sr = pipe.estimate_uncertainty(lr)
    generator = torch.Generator().manual_seed(seed)
    upscaled, _ = pipe(lr, generator=generator, tile_size=0, output_type="pt", return_dict=False)
    return {"bicubic": upsample(lr, pipe.scale).clamp(0, 1), "g": sr, "UPSR": upscaled}, psi


def random_image(side: int, seed: int = 0) -> torch.Tensor:
    """Noise of several sizes, (1,3,side,side) in [0,1], where what is in the image does not matter."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand(1, 3, max(1, side // step), max(1, side // step), generator=generator) for step in (1, 4, 16)]
    layers = [torch.nn.functional.interpolate(layer, (side, side), mode="bilinear") for layer in layers]
    return torch.stack(layers).mean(0)


def machine() -> str:
    """Processor, threads and version of PyTorch in a line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)
