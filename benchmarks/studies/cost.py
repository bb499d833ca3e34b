"""Table 2 and 3: parameters, time, memory, and a training step, on this machine."""

from __future__ import annotations

import argparse
import os
from functools import partial

import torch

from benchmarks.common import load_model, machine, markdown_table, model_name, random_image
from benchmarks.memory import MIB
from benchmarks.studies.findings import Findings
from upsr_core import UPSRPipeline
from upsr_core.evaluation.usage import measured
from upsr_core.models.unet_upsr import denoiser_input

PAPER = (
    "Paper, with an RTX 4090: 119.42 M parameters of the denoiser and 2.53 M of g, 1.12 s for 32 images "
    "of 64x64 in 5 steps "
    "(ResShift-15: 1.98 s, ResShift-4: 1.00 s); a training step of 16 images takes 0.45 s and 14.9 GB "
    "(ResShift: 1.20 s, "
    "24.1 GB)."
)


def cost(args: argparse.Namespace) -> Findings:
    """Table 2 and 3, for an LR image of ``side`` and a batch of one."""
    cpu = torch.device("cpu")
    rows, data = [], {}
    for model in args.models:
        pipe = load_model(None if model == "bundled" else model)
        lr = random_image(args.side)
        _upscale(pipe, lr, 1)  # loads kernels and starts threads
        facts: dict[str, float] = {"denoiser": pipe.unet.num_parameters(), "g": pipe.sr_net.num_parameters()}
        for steps in args.steps:
            _, seconds, peak = measured(partial(_upscale, pipe, lr, steps), cpu)
            facts[f"{steps} steps, s"] = seconds
            facts["upscaling, MiB"] = max(facts.get("upscaling, MiB", 0), (peak or 0) / MIB)
        _, facts["training, s"], peak = measured(partial(_training_step, pipe, lr), cpu)
        facts["training, MiB"] = (peak or 0) / MIB
        data[model] = facts
        name = model_name(None if model == "bundled" else model)
        parameters = [f"{facts['denoiser'] / 1e6:.2f} M", f"{facts['g'] / 1e6:.2f} M"]
        times = [f"{facts[f'{steps} steps, s']:.2f}" for steps in args.steps]
        rest = [f"{facts['upscaling, MiB']:.0f}", f"{facts['training, s']:.2f}", f"{facts['training, MiB']:.0f}"]
        rows.append([name, *parameters, *times, *rest])
    header = ["model", "denoiser", "g", *(f"{steps} step{'s' * (steps > 1)}, s" for steps in args.steps), "peak MiB"]
    table = markdown_table([*header, "training step, s", "peak MiB"], rows)
    load = os.getloadavg()[0]
    words = (
        f"One LR image of {args.side}x{args.side}, float32, each timed once after a warm-up; a training step "
        f"is the forward and backward "
        f"pass of the denoiser, with g run for it. {machine()}; load {load:.1f} on {os.cpu_count()} cores. Peaks are "
        "of the whole process."
    )
    return Findings(f"{words}\n\n{table}\n\n{PAPER}", {"load": load, "results": data})


def _upscale(pipe: UPSRPipeline, lr: torch.Tensor, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pipe(lr, num_inference_steps=steps, generator=generator, tile_size=0, output_type="pt")


def _training_step(pipe: UPSRPipeline, lr: torch.Tensor) -> None:
    with torch.no_grad():
        psi, sr = pipe.estimate_uncertainty(lr)
    state, target = 2 * torch.rand_like(psi) - 1, torch.zeros_like(psi)
    condition = pipe.unet.config.sr_condition
    inputs = denoiser_input(state, 2 * sr - 1, state, scale=pipe.scale, sr_condition=condition)
    pipe.unet.requires_grad_(True)
    torch.nn.functional.mse_loss(pipe.unet(inputs[0], 0, inputs[1]).sample, target).backward()
    pipe.unet.zero_grad()


def add_cost_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `cost`."""
    help = "model folders, bundled, or published for random weights of the published size"
    parser.add_argument("--models", nargs="+", default=["bundled", "published"], help=help)
    parser.add_argument("--side", type=int, default=64, help="of the LR image; default 64")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 5], help="default 1 2 5")
