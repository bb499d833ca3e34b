"""Memory of `upsr upscale` over a folder of many small images, at a tenth of it and at its end.

python -m benchmarks.folder --images 2000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=16, help="of each image in pixels")
    parser.add_argument("--model", help="default: the bundled model")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        rng = np.random.default_rng(0)
        for number in range(args.images):
            levels = rng.integers(0, 256, (args.side, args.side, 3), np.uint8)
            Image.fromarray(levels).save(folder / "in" / f"{number:05}.png")
        print("| images done | resident, MiB | seconds |\n| --- | --- | --- |")
        measure(folder, args.images, ["--model", args.model] if args.model else [])


def measure(folder: Path, images: int, options: list[str]) -> None:
    """Run the command and print a row at every tenth of the images."""
    command = [sys.executable, "-m", "upsr_core.cli", "upscale", str(folder / "in"), "-o", str(folder / "out")]
    start = time.perf_counter()
    with subprocess.Popen([*command, "--steps", "1", *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        resident = psutil.Process(process.pid)
        for done, _ in enumerate(process.stdout, start=1):
            if done % max(1, images // 10) == 0 and process.poll() is None:
                memory = resident.memory_info().rss / MIB
                print(f"| {done} | {memory:.0f} | {time.perf_counter() - start:.0f} |", flush=True)
    if process.returncode:
        raise SystemExit(f"upsr ended with status {process.returncode}")


if __name__ == "__main__":
    main()
