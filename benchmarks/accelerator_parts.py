"""The parts of `benchmarks.accelerator`: each yields its rows as soon as it has them."""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import diffusers
import numpy as np
import torch
from PIL import Image

from benchmarks.common import load_model, random_image
from benchmarks.training import WITHOUT_VALIDATION, start_run
from trainer.config import load_config
from upsr_core import UPSRPipeline
from upsr_core.published.config import build_published
from upsr_core.published.conversion import load_published
from upsr_core.tile_choice import activation_bytes

REPOSITORY = Path(__file__).parents[1]
GOLDEN = REPOSITORY / "tests" / "data"
GOLDEN_STRIDE = 3
FLOAT32_TOLERANCE = 1e-4
# The types to compare: name, type of the networks, whether float32 products may be rounded to TF32, and compiled.
PRECISIONS: dict[str, tuple[torch.dtype, bool, bool]] = {
    "float32": (torch.float32, False, False),
    "TF32": (torch.float32, True, False),
    "bfloat16": (torch.bfloat16, False, False),
    "float16": (torch.float16, False, False),
    "float32, compiled": (torch.float32, False, True),
}
# Memory that is given to a run of a large image, as a small card has it.
SMALL_CARD_BYTES = 4 * 10**9
SMALL_TRAINING = (
    "data.hr_size=64", "unet.image_size=16", "unet.model_channels=32", "unet.channel_mult=[1,2]",
    "unet.num_res_blocks=[1,1]", "unet.attention_resolutions=[16,8]", "unet.swin_embed_dim=32", "unet.num_feat=8",
    "sr_net.embed_dim=16", "sr_net.depths=[1,1]", "sr_net.num_heads=[2,2]", "unet_training.batch_size=2",
    "unet_training.perceptual_weight=0.0", "mixed_precision=no",
)  # fmt: skip


def wait_for(device: str) -> None:
    """Until the accelerator has done its work; a CPU has."""
    if device != "cpu":
        torch.accelerator.synchronize(torch.device(device))


@dataclass(frozen=True)
class Setting:
    """``device``: where to run. ``small``: the bundled model and tiny images, for a look at whether all of it runs.
    ``backend``: of torch.compile."""

    device: str
    small: bool
    backend: str = "inductor"


@dataclass
class Row:
    """A measurement: of what, the result with its unit, and what else is to be said."""

    what: str
    value: str
    note: str = ""


@contextmanager
def precision(tf32: bool) -> Iterator[None]:
    """Whether float32 products may be rounded to TF32."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def precisions(device: str) -> dict[str, tuple[torch.dtype, bool, bool]]:
    """Those to compare on the device: a CPU has no TF32, and float16 and compiling there take too long to wait for."""
    left_out = ("TF32", "float16", "float32, compiled") if device == "cpu" else ()
    return {name: values for name, values in PRECISIONS.items() if name not in left_out}


def compile_networks(pipe: UPSRPipeline, backend: str) -> None:
    """The denoiser in place: g's argsort and single call gain nothing."""
    pipe.unet.compile(backend=backend)


def peak_gigabytes(device: str) -> str:
    """The most the device's tensors took since `reset_peak`; empty on a CPU, where nobody counts."""
    return f"{torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB" if device.startswith("cuda") else ""


def reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def seconds_of(call: Callable[[], object], device: str, repeats: int) -> float:
    """Median of ``repeats`` calls after one to warm up; the device is waited for."""
    times = []
    for _ in range(repeats + 1):
        wait_for(device)
        start = time.perf_counter()
        call()
        wait_for(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def benchmark_pipeline(setting: Setting, dtype: torch.dtype = torch.float32) -> UPSRPipeline:
    return load_model(None if setting.small else "published").to(setting.device, dtype)


def upscale(
    pipe: UPSRPipeline, lr: torch.Tensor, tile_size: int | None = None, tile_batch_size: int | None = None
) -> torch.Tensor:
    """The images of a run with the same noise each time."""
    images, _ = pipe(
        lr,
        generator=torch.Generator().manual_seed(0),
        tile_size=tile_size,
        tile_batch_size=tile_batch_size,
        output_type="pt",
        return_dict=False,
    )
    return images


def parity(setting: Setting) -> Iterator[Row]:
    """The whole pipeline on the golden weights against the published implementation's image."""
    diffusers.utils.logging.disable_progress_bar()
    with np.load(GOLDEN / "golden.npz") as file:
        golden = {key: torch.from_numpy(file[key]).float() for key in file.files}
    config = json.loads((GOLDEN / "golden_config.json").read_text())
    expected = golden["e2e.0.ddim_out"]
    for name, (dtype, tf32, compiled) in precisions(setting.device).items():
        unet, sr_net, scheduler = build_published(config)
        for key, network in (("denoiser", unet), ("sr_net", sr_net)):
            prefix = f"weights.{key}."
            weights = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
            load_published(network, weights, f"golden {key}")
            network.eval()
        pipe = UPSRPipeline(unet=unet, sr_net=sr_net, scheduler=scheduler).to(setting.device, dtype)
        pipe.set_progress_bar_config(disable=True)
        if compiled:
            compile_networks(pipe, setting.backend)
        with precision(tf32):
            found, _ = pipe(golden["e2e.0.lr"], noise=golden["e2e.0.noise"], output_type="pt", return_dict=False)
        difference = found.float().cpu()[..., ::GOLDEN_STRIDE, ::GOLDEN_STRIDE] - expected
        psnr = -10 * float(difference.square().mean().clamp(min=1e-20).log10())
        largest = float(difference.abs().max())
        exact = dtype == torch.float32 and not tf32
        verdict = ("holds" if largest <= FLOAT32_TOLERANCE else "FAILS") + f" {FLOAT32_TOLERANCE:g}" if exact else ""
        yield Row(name, f"{largest:.1e} largest difference, {psnr:.1f} dB", verdict)


def speed(setting: Setting) -> Iterator[Row]:
    """A batch of 64x64 LR images, five steps, and the denoiser's call within it."""
    batch, side = (2, 32) if setting.small else (32, 64)
    lr = random_image(side).repeat(batch, 1, 1, 1)
    for name, (dtype, tf32, compiled) in precisions(setting.device).items():
        if compiled:
            continue
        pipe = benchmark_pipeline(setting, dtype)
        reset_peak(setting.device)
        with precision(tf32):
            call = partial(upscale, pipe, lr, tile_batch_size=batch)
            seconds = seconds_of(call, setting.device, 1 if setting.small else 3)
        yield Row(f"{batch}x3x{side}x{side} LR, {name}", f"{1000 * seconds:.0f} ms", peak_gigabytes(setting.device))


def compiled_speed(setting: Setting) -> Iterator[Row]:
    """The same compiled: time to the first image, and after how many batches that has paid."""
    batch, side = (1, 32) if setting.small else (32, 64)
    dtype = torch.float32 if setting.small else torch.bfloat16
    lr = random_image(side).repeat(batch, 1, 1, 1)
    pipe = benchmark_pipeline(setting, dtype)
    repeats = 1 if setting.small else 3

    def call() -> object:
        return upscale(pipe, lr, tile_batch_size=batch)

    plain = seconds_of(call, setting.device, repeats)
    compile_networks(pipe, setting.backend)
    start = time.perf_counter()
    call()
    wait_for(setting.device)
    first = time.perf_counter() - start
    yield Row("to the first batch", f"{first:.1f} s", f"{str(dtype).removeprefix('torch.')}, {setting.backend}")
    compiled = seconds_of(call, setting.device, repeats)
    pays = f"pays after {(first - compiled) / (plain - compiled):.0f} batches" if compiled < plain else "never pays"
    yield Row(f"{batch}x3x{side}x{side} LR", f"{1000 * compiled:.0f} ms", f"{1000 * plain:.0f} ms uncompiled; {pays}")


def tiles(setting: Setting) -> Iterator[Row]:
    """A large image in tiles: time, peak, and what the choice of tiles had reckoned with."""
    side, sizes = (64, (32,)) if setting.small else (512, (64, 128, 256))
    dtype = torch.float32 if setting.small else torch.bfloat16
    pipe = benchmark_pipeline(setting, dtype)
    lr = random_image(side)
    for size in sizes:
        reset_peak(setting.device)
        seconds = seconds_of(partial(upscale, pipe, lr, size, 1), setting.device, 1)
        estimate = f"{activation_bytes(pipe.unet, size**2) / 1e9:.2f} GB reckoned with for a tile"
        peak = peak_gigabytes(setting.device)
        yield Row(f"{side}x{side} LR, tiles of {size}", f"{seconds:.2f} s", f"{peak} at the peak, {estimate}".lstrip())


def training(setting: Setting) -> Iterator[Row]:
    """A denoiser's step of published.yaml with 16 images, on images made here."""
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for seed in range(2 if setting.small else 32):
            pixels = random_image(96 if setting.small else 320, seed)[0].permute(1, 2, 0).numpy()
            Image.fromarray((255 * pixels).astype(np.uint8)).save(photos / f"{seed}.png")
        overrides = [f"data.train_dir={photos}", f"output_dir={folder}/run", "data.num_workers=0", "trackers=[]"]
        overrides += ["data.degrade_on=device", *(SMALL_TRAINING if setting.small else ())]
        config = load_config(REPOSITORY / "trainer" / "configs" / "published.yaml", overrides)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, **WITHOUT_VALIDATION))
        run = start_run(config, "unet")
        reset_peak(setting.device)
        run.measure(1 if setting.small else 3)
        run.seconds_per_step.clear()
        run.measure(1 if setting.small else 10)
        what = f"batch {config.unet_training.batch_size}, {config.mixed_precision}"
        note = f"{peak_gigabytes(setting.device)}; paper: 0.45 s, 14.9 GB".lstrip("; ")
        yield Row(what, f"{run.seconds_per_step[-1]:.3f} s a step", note)


def offload(setting: Setting) -> Iterator[Row]:
    """Networks that are on the device only while they run."""
    _needs_cuda(setting)
    lr = random_image(64)
    pipe = benchmark_pipeline(setting, torch.bfloat16)
    reset_peak(setting.device)
    expected = upscale(pipe, lr).cpu()
    yield Row("without", peak_gigabytes(setting.device))
    pipe = benchmark_pipeline(dataclasses.replace(setting, device="cpu"), torch.bfloat16)
    pipe.enable_model_cpu_offload(device=setting.device)
    reset_peak(setting.device)
    start = time.perf_counter()
    found = upscale(pipe, lr).cpu()
    seconds, same = time.perf_counter() - start, torch.equal(found, expected)
    note = f"{seconds:.2f} s; the image is {'the same' if same else 'ANOTHER'}"
    yield Row("model offload", peak_gigabytes(setting.device), note)


def out_of_memory(setting: Setting) -> Iterator[Row]:
    """More than a small card holds: what the memory limit does not tell beforehand is met by smaller tiles."""
    _needs_cuda(setting)
    side = 128 if setting.small else 512
    pipe = benchmark_pipeline(setting, torch.bfloat16)
    total = torch.cuda.get_device_properties(setting.device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, SMALL_CARD_BYTES / total))
    reset_peak(setting.device)
    start = time.perf_counter()
    image = upscale(pipe, random_image(side), tile_size=side, tile_batch_size=1)
    seconds = time.perf_counter() - start
    finite = bool(image.isfinite().all())
    note = f"{peak_gigabytes(setting.device)} at the peak, {'finite' if finite else 'NOT FINITE'}"
    yield Row(f"{side}x{side} LR, {SMALL_CARD_BYTES / 1e9:.0f} GB allowed", f"{seconds:.2f} s", note)


def _needs_cuda(setting: Setting) -> None:
    if not setting.device.startswith("cuda"):
        raise RuntimeError(f"needs a CUDA device, not {setting.device}")


PARTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "parity": parity,
    "speed": speed,
    "training": training,
    "tiles": tiles,
    "offload": offload,
    "out of memory": out_of_memory,
    "compiled": compiled_speed,
}
