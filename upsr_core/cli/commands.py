"""What the commands of ``upsr`` do: upscale, uncertainty, convert, info."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import diffusers
import torch
from PIL import Image

from ..images.files import DecodedImage, check_output, read_image, write_image
from ..loading import load_pipeline
from ..memory import is_out_of_memory
from ..messages import one_line, printable
from ..pipeline_upsr import UPSRPipeline
from ..published.conversion import convert_published, export_published
from ..resampling import output_size
from ..uncertainty import heat_map
from ..upscaling import check_scale, opaque
from ..upscaling import upscale as upscale_image
from .arguments import installed_version
from .main import OUT_OF_MEMORY
from .output import complain, say
from .paths import Job


def upscale(args: argparse.Namespace, jobs: list[Job]) -> int:
    """``upsr upscale``; its exit status."""
    _set_limits(args)
    pipe = _load(args)
    if args.tile and args.tile % pipe.tile_multiple:
        raise ValueError(f"--tile {args.tile} must be a multiple of {pipe.tile_multiple} for this model")
    scale = check_scale(pipe, args.scale, "--scale")
    pipe.scheduler.set_timesteps(args.steps)
    if scale < pipe.scale:
        say(f"the model enlarges {pipe.scale}x; results are resized to {scale:g}x (Lanczos)")

    def process(job: Job) -> str:
        image = read_image(job.source)
        lr_height, lr_width = image.rgb.shape[-2:]
        factor = scale
        if args.width:
            factor = args.width / lr_width
            if factor > pipe.scale:
                raise ValueError(
                    f"{job.source}: --width {args.width} is more than {pipe.scale} times its {lr_width} pixels"
                )
        height, width = output_size(lr_height, lr_width, factor)
        check_output(job.target, height, width, image.alpha is not None and args.background is None)
        rgb, alpha = upscale_image(
            pipe,
            image.rgb,
            image.alpha,
            scale=factor,
            seed=args.seed,
            num_inference_steps=args.steps,
            stochasticity=args.stochasticity,
            noise_strength=args.noise_strength,
            tile_size=args.tile,
            tile_overlap=args.tile_overlap,
            color_fix=args.color_fix,
        )
        result = replace(image, rgb=rgb, alpha=alpha)
        write_image(job.target, result, quality=args.quality, background=args.background)
        return f"{width}x{height}"

    return _run_jobs(jobs, process, pipe, args.skip_existing)


def show_uncertainty(args: argparse.Namespace, jobs: list[Job]) -> int:
    """``upsr uncertainty``; its exit status."""
    _set_limits(args)
    pipe = _load(args)
    psi_max = args.psi_max or pipe.scheduler.config.psi_max

    def process(job: Job) -> str:
        image = read_image(job.source)
        height, width = (pipe.scale * side for side in image.rgb.shape[-2:])
        check_output(job.target, height, width, has_alpha=False)
        psi, _ = pipe.estimate_uncertainty(opaque(image.rgb, image.alpha))
        write_image(job.target, DecodedImage(rgb=heat_map(psi, psi_max).cpu()), quality=args.quality)
        return f"{width}x{height}, mean uncertainty {psi.mean():.4f}, last colour {psi_max:g}"

    return _run_jobs(jobs, process, pipe, args.skip_existing)


def _set_limits(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.max_pixels:
        Image.MAX_IMAGE_PIXELS = args.max_pixels


def _load(args: argparse.Namespace) -> UPSRPipeline:
    diffusers.utils.logging.disable_progress_bar()
    device = _device(args.device)
    return load_pipeline(args.model, dtype=getattr(torch, args.dtype), device=device, variant=args.variant)


def _run_jobs(jobs: list[Job], process: Callable[[Job], str], pipe: UPSRPipeline, skip_existing: bool) -> int:
    """Process every job and say what became of it; with several, go on after a failure."""
    todo = [job for job in jobs if not (skip_existing and job.target.exists())]
    if len(todo) < len(jobs):
        say(f"skipped, as their results exist: {len(jobs) - len(todo)} of {len(jobs)}")
    failures: list[str] = []
    unsaid: OSError | None = None
    for number, job in enumerate(todo, start=1):
        counter = f"[{number}/{len(todo)}] " if len(todo) > 1 else ""
        pipe.set_progress_bar_config(desc=f"{counter}{printable(job.source.name)}", leave=False, disable=None)
        start = time.perf_counter()
        try:
            facts = process(job)
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            if len(jobs) == 1:
                raise
            reason = _reason(error)
            failures.append(reason if str(job.source) in reason else f"{job.source}: {reason}")
            complain(f"{counter}failed: {failures[-1]}")
            continue
        seconds = time.perf_counter() - start
        try:
            if unsaid is None:
                say(f"{counter}{job.source} -> {job.target} ({facts}, {seconds:.1f} s)")
        except BrokenPipeError:
            raise
        except OSError as error:
            # The images are what was asked for: they are made all the same.
            unsaid = error
    if unsaid is not None:
        complain(f"error: {unsaid.strerror}; the images are made")
    if failures:
        complain(f"error: {len(failures)} of {len(todo)} images failed", *failures)
    return 1 if failures or unsaid else 0


def _accelerator() -> torch.device | None:
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def _device(name: str) -> torch.device:
    accelerator = _accelerator()
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name}: no such kind of device; try cpu, cuda, cuda:1 or mps") from error
    # PyTorch takes any number of a processor, and means the one there is.
    count = int(device.type == "cpu")
    if accelerator and accelerator.type == device.type:
        count = torch.accelerator.device_count()
    if (device.index or 0) >= count:
        raise ValueError(f"--device {name}: not available here; `upsr info` lists what is")
    return device


def convert(args: argparse.Namespace) -> int:
    """``upsr convert``; its exit status."""
    diffusers.utils.logging.disable_progress_bar()
    if "" in args.paths:
        raise ValueError("a PATH is empty; is a variable of the shell not set?")
    if args.to_published:
        if len(args.paths) != 2 or args.config:
            raise ValueError("--to-published takes FOLDER OUT and nothing else; see upsr convert --help")
        folder, out = args.paths
        if not Path(folder).is_dir():
            raise ValueError(f"{folder}: no such model folder")
        say(" ".join(["written:", *map(str, export_published(folder, out))]))
        return 0
    if len(args.paths) != 3:
        raise ValueError("convert takes DENOISER SR_NET OUT; see upsr convert --help")
    denoiser, sr_net, out = args.paths
    convert_published(denoiser, sr_net, out, config=args.config)
    say(f"written: {out}")
    return 0


def info(args: argparse.Namespace) -> int:
    """``upsr info``; its exit status."""
    diffusers.utils.logging.disable_progress_bar()
    accelerator = _accelerator()
    count = torch.accelerator.device_count() if accelerator else 0
    pipe = load_pipeline(args.model, variant=args.variant)
    scheduler = pipe.scheduler.config
    facts = {
        "upsr": installed_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "devices": ", ".join(["cpu", *(f"{accelerator.type}:{i}" for i in range(count) if accelerator)]),
        "model": args.model or "bundled",
        "scale": f"{pipe.scale}x",
        "denoiser": f"{pipe.unet.num_parameters():,} parameters",
        "sr_net": f"{pipe.sr_net.num_parameters():,} parameters",
        "steps": scheduler.num_train_timesteps,
        "kappa": scheduler.kappa,
        "weight_min": scheduler.weight_min,
        "psi_max": scheduler.psi_max,
    }
    for name, value in facts.items():
        say(f"{name:<12}{value}")
    return 0


def _reason(error: BaseException) -> str:
    return OUT_OF_MEMORY if is_out_of_memory(error) else one_line(error)
