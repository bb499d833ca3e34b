"""Peak memory and time of a tiled run, by size of the image. Linux only.

    python -m benchmarks.memory --sides 256 512 1024 --tile 256 --threads 2

Every size runs in a process of its own. What a run needs beyond the tensors that are as large as the image should
not grow with it, nor should the time per pixel.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

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

# Tensors of the image's output size, (1,3,s*h,s*w) float32, that a run holds at the same time whatever it does with
# tiles: G, Y, the state, the estimate of the clean image, and in a scheduler's step the next state.
OWN_TENSORS = 5
MIB = 2**20


def own_bytes(side: int, scale: int) -> int:
    """The image's own tensors: OWN_TENSORS at output size and the LR image."""
    return 4 * 3 * side**2 * (OWN_TENSORS * scale**2 + 1)


def measure(model: str | None, side: int, tile: int, threads: int | None) -> dict[str, float]:
    """Run in this process: bytes before and at the peak, and seconds."""
    if threads:
        torch.set_num_threads(threads)
    pipe = load_model(model)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present size
    before = status_bytes("VmRSS")
    # The first run loads kernels and starts threads; what it frees, the process keeps.
    pipe(random_image(min(side, tile)), generator=torch.Generator().manual_seed(0), tile_size=tile)
    lr = random_image(side)
    start = time.perf_counter()
    pipe(lr, generator=torch.Generator().manual_seed(0), tile_size=tile, output_type="pt")
    seconds = time.perf_counter() - start
    own = own_bytes(side, pipe.scale)
    return {"before": before, "peak": status_bytes("VmHWM"), "own": own, "seconds": seconds}


def measure_apart(model: str | None, side: int, tile: int, threads: int | None) -> dict[str, float]:
    """`measure` in a fresh process."""
    if model and Path(model).exists():
        model = str(Path(model).resolve())  # the process runs elsewhere
    arguments = ["--child", str(side), "--tile", str(tile)]
    arguments += ["--model", model] if model else []
    arguments += ["--threads", str(threads)] if threads else []
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def result_table(results: dict[int, dict[str, float]]) -> str:
    """A row for each size; growth is against the first one."""
    first = next(iter(results))
    rows = []
    for side, result in results.items():
        beyond = result["peak"] - result["own"]
        first_beyond = results[first]["peak"] - results[first]["own"]
        per_pixel = {key: results[key]["seconds"] / key**2 for key in (first, side)}
        rows.append(
            [
                f"{side}x{side}",
                *(f"{result[key] / MIB:.0f}" for key in ("before", "peak", "own")),
                f"{beyond / MIB:.0f}",
                f"{beyond / first_beyond:.2f}",
                f"{result['seconds']:.1f}",
                f"{1e6 * per_pixel[side]:.1f}",
                f"{per_pixel[side] / per_pixel[first]:.2f}",
            ]
        )
    header = ["LR image", "MiB before", "MiB at the peak", "of these the image's own", "beyond", "growth", "seconds"]
    return markdown_table([*header, "us per LR pixel", "growth"], rows)


def status_bytes(field: str) -> int:
    """A size in /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_argument(parser)
    add_threads_argument(parser)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024], help="LR sizes")
    parser.add_argument("--tile", type=int, default=128, help="tile size in LR pixels (default: 128)")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        print(json.dumps(measure(args.model, args.child, args.tile, args.threads)))
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"{model_name(args.model)}, float32, tiles of {args.tile}; {machine()}\n")
    results = {}
    for side in args.sides:
        print(f"measuring {side}x{side} ...", file=sys.stderr)
        results[side] = measure_apart(args.model, side, args.tile, args.threads)
    print(result_table(results))


if __name__ == "__main__":
    main()
