"""Parity, speed, memory, training and running out of memory on an accelerator.

    python -m benchmarks.accelerator -o FOLDER

For a bare machine with one NVIDIA GPU: random weights of the published size, the golden tensors of the tests, no
downloads. Every part is a process of its own, so that one that fails or hangs ends nothing but itself; all of it ends
within ten minutes. FOLDER gets results.json and table.md, rewritten after each part with all results so far.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.accelerator_parts import PARTS, Row, Setting
from benchmarks.common import machine, markdown_table
from upsr_core.messages import one_line

LIMIT_SECONDS = 570
LIMIT_PER_PART = 150
STARTED_AS = "-m", "benchmarks.accelerator"


@dataclass
class PartResult:
    """A part's rows, and why there are no more of them where it did not end well."""

    part: str
    rows: list[Row]
    seconds: float
    failure: str | None = None


def run_part(part: str, setting: Setting, limit: float) -> PartResult:
    """A part in a process of its own, ended after ``limit`` seconds; the rows it had ready by then count."""
    command = [sys.executable, *STARTED_AS, "--child", part, "--setting", json.dumps(asdict(setting))]
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        failure = None
        try:
            folder = Path(__file__).parents[1]
            status = subprocess.run(command, stdout=out, stderr=log, cwd=folder, timeout=limit, check=False).returncode
            if status:
                log.seek(0)
                lines = [line for line in log.read().splitlines() if line.strip()]
                failure = lines[-1] if lines else f"ended with status {status}"
        except subprocess.TimeoutExpired:
            failure = f"not done after {limit:.0f} s"
        out.seek(0)
        rows = [Row(**json.loads(line)) for line in out.read().splitlines() if line.startswith("{") and line[-1] == "}"]
    return PartResult(part, rows, time.monotonic() - start, failure)


def run_parts(parts: Sequence[str], setting: Setting, limit: float) -> Iterator[PartResult]:
    """All parts, in turn; together they take no longer than ``limit`` seconds."""
    end = time.monotonic() + limit
    for part in parts:
        left = end - time.monotonic()
        if left <= 0:
            yield PartResult(part, [], 0.0, "no time was left")
        else:
            yield run_part(part, setting, min(left, LIMIT_PER_PART))


def child(part: str, setting: Setting) -> int:
    """Run a part in this process: a line of JSON for each row."""
    function: Callable[[Setting], Iterator[Row]] = PARTS[part]
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for row in function(setting):
                print(json.dumps(asdict(row)), flush=True)
    except Exception as error:  # what fails is part of the result
        traceback.print_exc()
        print(f"{type(error).__name__}: {one_line(error, 300)}", file=sys.stderr)
        return 1
    return 0


def table(results: Sequence[PartResult]) -> str:
    """Markdown, a row for each measurement and for each failure."""
    rows: list[list[object]] = []
    for result in results:
        rows += [[result.part, row.what, row.value, row.note] for row in result.rows]
        if result.failure:
            rows.append([result.part, "failed", "", result.failure.replace("|", "/")])
    return markdown_table(["part", "what", "result", "note"], rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, help="folder for results.json and table.md")
    parser.add_argument("--device", help="default: the accelerator there is, else cpu")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all")
    parser.add_argument("--small", action="store_true", help="tiny sizes: whether it runs, not how fast")
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, metavar="SECONDS", help="time for all parts")
    parser.add_argument("--child", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--setting", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return child(args.child, Setting(**json.loads(args.setting)))
    if args.out is None:
        parser.error("-o FOLDER is missing")
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    setting = Setting(device, args.small or device == "cpu")
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    head = f"{name}; {machine()}; CUDA {torch.version.cuda}" + ("; tiny sizes" if setting.small else "")
    args.out.mkdir(parents=True, exist_ok=True)
    results: list[PartResult] = []
    for result in run_parts(args.parts, setting, args.limit):
        results.append(result)
        found = {"machine": head, "setting": asdict(setting), "parts": [asdict(part) for part in results]}
        (args.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
        (args.out / "table.md").write_text(f"{head}\n\n{table(results)}\n")
        print(f"{result.part}: {result.failure or f'{len(result.rows)} results'}, {result.seconds:.0f} s", flush=True)
    print(f"\n{table(results)}")
    return 1 if any(result.failure for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
