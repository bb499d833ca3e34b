"""Compiling the denoiser: the time before the first image, the time that an image then takes, and when that pays.

    python -m benchmarks.compile --threads 1

In an empty folder for what is compiled, once, and in the same folder again, as a second run has it. Images take turns
with those of a pipeline that is not compiled, in one process, so that whatever else the machine is doing slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import (
    add_model_argument,
    add_threads_argument,
    load_model,
    machine,
    markdown_table,
    model_name,
    random_image,
)
from benchmarks.speed import median_seconds
from upsr_core import UPSRPipeline


def measure(model: str | None, side: int, tile: int, repeats: int, threads: int | None) -> dict[str, float]:
    """Run in this process: seconds of the first image, and of later ones, beside those without compiling."""
    if threads:
        torch.set_num_threads(threads)
    plain, compiled = load_model(model), load_model(model)
    compiled.compile()
    lr = random_image(side)

    def upscale(pipe: UPSRPipeline) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        options: dict[str, Any] = {"tile_size": tile, "tile_batch_size": 1, "output_type": "pt"}
        return pipe(lr, generator=generator, **options, return_dict=False)[0]

    start = time.perf_counter()
    found = upscale(compiled)
    first = time.perf_counter() - start
    expected = upscale(plain)
    seconds = median_seconds({"plain": lambda: upscale(plain), "compiled": lambda: upscale(compiled)}, repeats)
    return {**seconds, "first": first, "difference": (found - expected).abs().max().item()}


def _measure_apart(arguments: list[str], cache: str) -> dict[str, float]:
    """`measure` in a process of its own, which keeps what it compiles in a folder."""
    command = [sys.executable, "-m", "benchmarks.compile", "--child", *arguments]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def result_table(results: dict[str, dict[str, float]]) -> str:
    """A row for each run."""
    rows = []
    for name, result in results.items():
        saved = result["plain"] - result["compiled"]
        pays = f"{(result['first'] - result['compiled']) / saved:.0f}" if saved > 0 else "never"
        numbers = [f"{result[key]:.2f}" for key in ("first", "compiled", "plain")]
        rows.append(
            [name, *numbers, f"{result['plain'] / result['compiled']:.2f}", pays, f"{result['difference']:.1e}"]
        )
    header = ["run", "first image, s", "later ones, s", "not compiled, s", "faster", "pays from image", "difference"]
    return markdown_table(header, rows)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_argument(parser)
    add_threads_argument(parser)
    parser.add_argument("--side", type=int, default=128, help="LR image (default: 128)")
    parser.add_argument("--tile", type=int, default=128, help="tile size in LR pixels (default: 128)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds to take the median of")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.child:
        print(json.dumps(measure(args.model, args.side, args.tile, args.repeats, args.threads)))
        return
    if args.model and Path(args.model).exists():
        arguments += ["--model", str(Path(args.model).resolve())]  # the process runs elsewhere
    with tempfile.TemporaryDirectory() as cache:
        results = {name: _measure_apart(arguments, cache) for name in ("first run", "second run")}
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"{model_name(args.model)}, float32, {args.side}x{args.side} LR, tiles of {args.tile}; {machine()}\n")
    print(result_table(results))


if __name__ == "__main__":
    main()
