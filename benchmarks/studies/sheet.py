"""Fig. 6: the methods beside each other on a part of the bundled photo, by `upsr evaluate`."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.studies.findings import ROOT, Findings
from upsr_core.cli.main import main


def add_sheet_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `sheet`."""
    parser.add_argument("--photos", type=Path, default=ROOT / "examples", help="LR images; default: the bundled one")
    parser.add_argument("--model", default="bundled", help="of the columns g and upsr; default: the bundled one")
    parser.add_argument("--rival", type=Path, metavar="FILE", help="weights of another method, such as an ncnn .param")


def sheet(args: argparse.Namespace) -> Findings:
    """Fig. 6, the methods beside each other."""
    model = "" if args.model == "bundled" else f":{args.model}"
    methods = ["bicubic", f"g{model}", f"upsr{model}", *([str(args.rival)] if args.rival else [])]
    with tempfile.TemporaryDirectory() as out:
        command = ["evaluate", str(args.photos), "-o", out, "--page-images", "0", "-m", *methods]
        if main(command) != 0:
            raise ValueError("upsr evaluate has failed; see its message above")
        with Image.open(Path(out) / "sheet.png") as picture:
            rows = picture.convert("RGB")
        results = json.loads((Path(out) / "table.json").read_text(encoding="utf-8"))["results"]
    words = "The part of the photo in which the methods differ most, enlarged."
    return Findings(words, {"results": results}, {".jpg": rows})
