"""The commands of ``upsr`` that make files: upscale, uncertainty, convert."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import diffusers
import torch
from huggingface_hub.utils import disable_progress_bars
from PIL import Image

from ..choices import LARGEST_SCALE
from ..images.files import DecodedImage
from ..loading import load_pipeline, model_sha256
from ..pipeline_upsr import UPSRPipeline
from ..published.conversion import convert_published, export_published
from ..resampling import output_size
from ..uncertainty import heat_map
from ..upscaling import check_scale, opaque, resizing_note
from ..upscaling import upscale as upscale_image
from .output import complain, on_terminal, say
from .paths import Job
from .running import check_job, read_job, run_jobs, write_job


def upscale(args: argparse.Namespace, jobs: list[Job]) -> int:
    """``upsr upscale``; its exit status."""
    _set_limits(args)
    pipe = load(args)
    if args.tile and args.tile % pipe.tile_multiple:
        raise ValueError(f"--tile {args.tile} must be a multiple of {pipe.tile_multiple} for this model")
    scale = check_scale(pipe, args.scale, "--scale")
    pipe.scheduler.set_timesteps(args.steps)
    if args.compile:
        pipe.compile()
    if (note := resizing_note(pipe, scale)) and not args.quiet:
        complain(note)

    def process(job: Job, callback_on_tile_end: Callable[[int, int], None]) -> str:
        image = read_job(job)
        lr_height, lr_width = image.rgb.shape[-2:]
        factor = scale
        if args.width:
            factor = args.width / lr_width
            if factor > LARGEST_SCALE:
                raise ValueError(
                    f"{job.source_name}: --width {args.width} is more than {LARGEST_SCALE:g} times "
                    f"its {lr_width} pixels"
                )
            if factor > pipe.scale and not args.quiet:
                complain(f"{job.source_name}: {resizing_note(pipe, factor)}")
        height, width = output_size(lr_height, lr_width, factor)
        check_job(job, image, height, width, image.alpha is not None and args.background is None)
        rgb, alpha = upscale_image(
            pipe,
            image.rgb,
            image.alpha,
            scale=factor,
            seed=args.seed,
            num_inference_steps=args.steps,
            stochasticity=args.stochasticity,
            noise_strength=args.noise_strength,
            flat_threshold=args.flat_threshold,
            tile_size=args.tile,
            tile_overlap=args.tile_overlap,
            adaptive_steps=args.adaptive_steps,
            color_fix=args.color_fix,
            callback_on_tile_end=callback_on_tile_end,
        )
        result = replace(image, rgb=rgb, alpha=alpha)
        write_job(job, result, args.quality, args.background)
        return f"{width}x{height}"

    return run_jobs(args, jobs, pipe, process)


def show_uncertainty(args: argparse.Namespace, jobs: list[Job]) -> int:
    """``upsr uncertainty``; its exit status."""
    _set_limits(args)
    pipe = load(args)
    psi_max = args.psi_max or pipe.scheduler.config.psi_max

    def process(job: Job, callback_on_tile_end: Callable[[int, int], None]) -> str:
        image = read_job(job)
        height, width = (pipe.scale * side for side in image.rgb.shape[-2:])
        check_job(job, image, height, width, has_alpha=False)
        psi, _ = pipe.estimate_uncertainty(opaque(image.rgb, image.alpha), callback_on_tile_end)
        write_job(job, DecodedImage(rgb=heat_map(psi, psi_max).cpu(), format=image.format), args.quality)
        return f"{width}x{height}, mean uncertainty {psi.mean():.4f}, last colour {psi_max:g}"

    return run_jobs(args, jobs, pipe, process)


def _set_limits(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.max_pixels:
        Image.MAX_IMAGE_PIXELS = args.max_pixels


def load(args: argparse.Namespace) -> UPSRPipeline:
    """The model that ``--model``, ``--variant``, ``--device`` and ``--dtype`` ask for.

    Raises:
        ValueError: there is none, or it is not that of the report to repeat.
    """
    if not args.verbose:
        diffusers.utils.logging.disable_progress_bar()
        diffusers.utils.logging.set_verbosity_error()
        if not on_terminal(sys.stderr):
            disable_progress_bars()  # of downloads
    device = find_device(args.device)
    pipe = load_pipeline(args.model, dtype=args.dtype, device=device, variant=args.variant)
    if args.model_sha256 is not None and model_sha256(pipe) != args.model_sha256:
        name = args.model or "the bundled model"
        other = " or was loaded in another type" if args.dtype == "auto" else ""
        raise ValueError(f"{name}: is another model than the report's{other}, of SHA-256 {args.model_sha256[:12]}")
    return pipe


def accelerator() -> torch.device | None:
    """The kind of accelerator that is here."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def find_device(name: str) -> torch.device:
    found = accelerator()
    if name == "auto":
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name}: no such kind of device; try cpu, cuda, cuda:1 or mps") from error
    # PyTorch takes any number of a processor, and means the one there is.
    count = int(device.type == "cpu")
    if found and found.type == device.type:
        count = torch.accelerator.device_count()
    if (device.index or 0) >= count:
        raise ValueError(f"--device {name}: not available here; `upsr doctor` lists the devices")
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
