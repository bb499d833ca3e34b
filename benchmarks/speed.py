"""Speed of the networks beside the machine's convolutions, and the time of a whole image.

    python -m benchmarks.speed --threads 2

The best rate of a 3x3 convolution is measured in the same run, turn by turn with the networks, so that whatever
else the machine is doing slows all of them alike.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import (
    add_model_argument,
    add_threads_argument,
    load_model,
    machine,
    markdown_table,
    model_name,
    random_image,
)
from upsr_core import UPSRPipeline

CONV_CHANNELS, CONV_SIDE = 320, 32


def convolution(batch_size: int, channels: int = CONV_CHANNELS, side: int = CONV_SIDE) -> Callable[[], object]:
    """A call of one 3x3 convolution in channels_last."""
    layer = nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last)
    x = random_image(side).mean(1, keepdim=True).repeat(batch_size, channels, 1, 1)
    x = x.contiguous(memory_format=torch.channels_last)
    return lambda: layer(x)


def network_calls(pipe: UPSRPipeline, side: int) -> dict[str, Callable[[], object]]:
    """A call of the denoiser and one of g, on an LR image of ``side`` x ``side``."""
    lr = random_image(side)

    def folded(channels: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, channels, side, side, generator=generator)

    sample, condition = folded(pipe.unet.state_channels, 1), folded(pipe.unet.condition_channels, 2)
    return {"denoiser": lambda: pipe.unet(sample, 0, condition), "g": lambda: pipe.sr_net(lr)}


def count_gflop(pipe: UPSRPipeline, side: int) -> dict[str, float]:
    """Floating-point operations of one call of each network: 2 for every multiplication with addition."""
    unet, sr_net = (copy.deepcopy(network).to("meta") for network in (pipe.unet, pipe.sr_net))
    sample, condition, lr = (
        torch.empty(1, channels, side, side, device="meta")
        for channels in (unet.state_channels, unet.condition_channels, 3)
    )
    counts = {}
    for name, call in {"denoiser": lambda: unet(sample, 0, condition), "g": lambda: sr_net(lr)}.items():
        with FlopCounterMode(display=False) as counter:
            call()
        counts[name] = counter.get_total_flops() / 1e9
    return counts


def median_seconds(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median time of each call over ``repeats`` rounds in which each has one turn, after a round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def rate_table(pipe: UPSRPipeline, side: int, batch_sizes: Sequence[int], repeats: int) -> str:
    """Time and rate of the networks, and the share of the machine's best convolution rate that they reach."""
    gflop = count_gflop(pipe, side)
    calls = network_calls(pipe, side)
    for batch_size in batch_sizes:
        name = f"3x3 convolution, batch {batch_size}"
        calls[name] = convolution(batch_size)
        gflop[name] = 2 * 9 * CONV_CHANNELS**2 * CONV_SIDE**2 * batch_size / 1e9
    seconds = median_seconds(calls, repeats)
    rates = {name: gflop[name] / seconds[name] for name in calls}
    best = max(rate for name, rate in rates.items() if name.startswith("3x3"))
    rows = [
        [name, f"{gflop[name]:.1f}", f"{1000 * seconds[name]:.1f}", f"{rate:.0f}", f"{rate / best:.0%}"]
        for name, rate in rates.items()
    ]
    return markdown_table(["call", "GFLOP", "ms", "GFLOP/s", "of the best convolution"], rows)


def pipeline_table(pipe: UPSRPipeline, sides: Sequence[int], repeats: int) -> str:
    """Time of the whole pipeline, untiled."""
    rows = []
    for side in sides:
        lr = random_image(side)

        def call(lr: torch.Tensor = lr) -> object:
            return pipe(lr, generator=torch.Generator().manual_seed(0), tile_size=0, output_type="pt")

        seconds = median_seconds({"pipeline": call}, repeats)["pipeline"]
        rows.append([f"{side}x{side}", pipe.scheduler.num_inference_steps, f"{seconds:.2f}"])
    return markdown_table(["LR image", "steps", "seconds"], rows)


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_argument(parser)
    add_threads_argument(parser)
    parser.add_argument("--side", type=int, default=64, help="LR image of the network calls (default: 64)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="of the convolution")
    parser.add_argument("--repeats", type=int, default=7, help="rounds to take the median of")
    parser.add_argument("--pipeline-sides", type=int, nargs="*", default=[64, 128], help="LR sizes of whole runs")
    parser.add_argument("--pipeline-repeats", type=int, default=3)
    parser.set_defaults(model="published")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = load_model(args.model)
    print(f"{model_name(args.model)}, float32, {args.side}x{args.side} LR; {machine()}\n")
    print(rate_table(pipe, args.side, args.batch_sizes, args.repeats), end="\n\n")
    if args.pipeline_sides:
        print(pipeline_table(pipe, args.pipeline_sides, args.pipeline_repeats))


if __name__ == "__main__":
    main()
