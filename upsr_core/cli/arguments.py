"""The command line of `upsr`: its commands, arguments and their help."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
from collections.abc import Callable
from typing import NoReturn

from PIL import ImageColor

from ..choices import COLOR_FIXES, DEFAULT_TILE_OVERLAP, DTYPES, LARGEST_NOISE, LARGEST_SCALE, WRITE_FORMATS
from .completion import SHELLS, PrintCompletion
from .evaluate import NOTE as EVALUATE_NOTE
from .evaluate import add_evaluate_arguments

FORMATS = sorted(suffix[1:] for suffix in WRITE_FORMATS)
EXIT_CODES = """\
exit status:
  0 done; 1 some images failed, memory ran out or something could not be written; 2 wrong usage or input;
  130 interrupted"""
EXAMPLES = {
    "": """\
  upsr upscale photo.jpg -o photo_4x.png
  upsr doctor
  upsr --print-completion bash > ~/.local/share/bash-completion/completions/upsr""",
    "upscale": """\
  upsr upscale photo.jpg -o photo_4x.png             one photo
  upsr upscale holiday/ -o holiday_4x/ -r            a folder with its subfolders
  upsr upscale "scans/*.tif" -o out/ --tile 128      a pattern; small tiles for little memory
  upsr upscale *.jpg --name "{stem}_x4" -f png       beside the inputs, under names of your choice
  upsr upscale in/ -o out/ --report run.jsonl        and again with --skip-existing where it was interrupted
  upsr upscale - -o - < photo.jpg > photo_4x.jpg     from standard input to standard output""",
    "uncertainty": """\
  upsr uncertainty photo.jpg -o map.png
  upsr uncertainty holiday/ -o maps/ -f png""",
    "repeat": """\
  upsr repeat run.jsonl                              all images again, where they were
  upsr repeat run.jsonl --skip-existing              only those that are missing or failed
  upsr repeat run.jsonl -o again/                    into another folder, to compare""",
    "convert": """\
  upsr convert denoiser.pth sr_net.pth my-model
  upsr convert --to-published my-model published/""",
    "evaluate": """\
  upsr evaluate Set5/ -o set5/                       bicubic, g and the bundled model
  upsr evaluate photos/ --preset mild -o mild/ -m bicubic upsr upsr:my-model x4plus.param""",
    "info": """\
  upsr info                                          the bundled model
  upsr info my-model --json""",
    "doctor": """\
  upsr doctor
  upsr doctor --model my-model --dtype bfloat16 --json""",
}
FILES_NOTE = """\
IN is an image file, a folder, or a glob pattern (in quotes where the shell is not to expand it); or -, the
standard input. Results appear whole or not at all; existing ones are replaced, inputs never. With several
inputs a failure does not stop the rest: what failed is listed at the end. Of animations and files of several
pages the first one is taken.

"""
CONVERT_USAGE = "upsr convert DENOISER SR_NET OUT [--config FILE]\n       upsr convert --to-published FOLDER OUT"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Arguments of one command, whose name is in ``command``.

    Raises:
        ValueError: in one line, for arguments that cannot be understood.
        SystemExit: with status 0 after ``--help``, ``--version`` and ``--print-completion``.
    """
    return _build_parser().parse_args(argv)


def _build_parser() -> _Parser:
    parser = _Parser(
        prog="upsr",
        description="Super-resolution of photos by uncertainty-guided diffusion.",
        epilog=f"examples:\n{EXAMPLES['']}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=installed_version())
    help = "print the script that lets this shell complete upsr's commands and options"
    parser.add_argument("--print-completion", action=PrintCompletion, choices=SHELLS, metavar="SHELL", help=help)
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND", required=True)

    def command(name: str, help: str, note: str = "") -> _Parser:
        layout = argparse.RawDescriptionHelpFormatter
        note = f"{note}examples:\n{EXAMPLES[name]}\n\n{EXIT_CODES}"
        added: _Parser = commands.add_parser(
            name, help=help, description=help, epilog=note.replace("%", "%%"), formatter_class=layout
        )
        added.add_argument("-v", "--verbose", action="store_true", help="show what libraries say, too")
        return added

    upscale = command("upscale", "Upscale images.", FILES_NOTE)
    _add_file_arguments(upscale)
    _add_run_arguments(upscale)
    _add_sampling_arguments(upscale)
    _add_tile_arguments(upscale)
    _add_model_arguments(upscale)
    help = "compile the denoiser: minutes before the first image; measure whether it pays"
    upscale.add_argument("--compile", action="store_true", help=help)

    uncertainty = command("uncertainty", "Show as a heat map where the model is unsure.", FILES_NOTE)
    _add_file_arguments(uncertainty)
    _add_run_arguments(uncertainty)
    help = "uncertainty that gets the last colour; default: that from which on the model's noise is full"
    uncertainty.add_argument("--psi-max", type=_number(float, 1e-6, 1), metavar="P", help=help)
    _add_model_arguments(uncertainty)

    repeat = command("repeat", "Make the images of a --report again, with the same model, seed and settings.")
    repeat.add_argument("report_file", metavar="REPORT", help="written by --report; the last line for a result counts")
    repeat.add_argument("-o", "--out", metavar="FOLDER", help="for the results; default: where they were")
    _add_run_arguments(repeat)

    convert = command("convert", "Convert published checkpoints to a model folder, or back.")
    convert.usage = CONVERT_USAGE
    help = "DENOISER and SR_NET: .pth or .safetensors files; FOLDER: a model folder; OUT: a new folder"
    convert.add_argument("paths", nargs="+", metavar="PATH", help=help)
    help = "configuration in the published code's terms, as JSON; default: that of its x4 model"
    convert.add_argument("--config", metavar="FILE", help=help)
    help = "write the folder's networks to OUT/denoiser.pth and OUT/sr_net.pth"
    convert.add_argument("--to-published", action="store_true", help=help)

    evaluate = command("evaluate", "Compare methods on a data set, in numbers and pictures.", f"{EVALUATE_NOTE}\n\n")
    add_evaluate_arguments(evaluate)

    info = command("info", "Describe a model.")
    info.add_argument("model", nargs="?", metavar="MODEL", help="folder or Hub id; default: the bundled model")
    info.add_argument("--variant", help="weights variant, such as fp16")
    info.set_defaults(device="cpu", dtype="float32", model_sha256=None)

    doctor = command("doctor", "Show versions, devices, free memory, and what would be chosen here.")
    _add_model_arguments(doctor)
    for teller in (info, doctor):
        teller.add_argument("--json", action="store_true", help="one line of JSON, for programs")
    return parser


def installed_version() -> str:
    """Version of the installed package; ``"unknown"`` where it runs from a clone that is not installed."""
    try:
        return importlib.metadata.version("upsr")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def _add_file_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("inputs", nargs="+", metavar="IN", help="image file, folder or glob pattern; - is the standard input")
    help = "file for one input, folder for several or for a folder, - for the standard output; default: beside IN"
    add("-o", "--out", help=help)
    add("-r", "--recursive", action="store_true", help="descend into subfolders")
    add("-f", "--format", choices=FORMATS, help="default: what -o names, else the input's, else png")
    help = "name of the results: {stem} is the input's name, {ext} its file type; {seed}; default {stem} in a folder"
    add("--name", metavar="TEMPLATE", help=help)
    add("--quality", type=_number(int, 1, 100), default=95, metavar="Q", help="of JPEG and WebP; default 95")
    help = "refuse inputs of more pixels; default about 89 million, as larger ones are often made to fill the memory"
    add("--max-pixels", type=_number(int, 1), metavar="N", help=help)


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--skip-existing", action="store_true", help="leave out images whose result exists")
    help = "append a line of JSON for each image: input, output, seed, settings, model, seconds, error; see upsr repeat"
    add("--report", metavar="FILE", help=help)
    add("-q", "--quiet", action="store_true", help="print only warnings and errors")


def _add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("sampling").add_argument
    add("--seed", type=_number(int, 0, 2**64 - 1), default=0, help="of the noise of each image; default 0")
    add("--steps", type=_number(int, 1), metavar="N", help="fewer are faster; default: those the model is made for")
    help = "share of fresh noise in each step, 0 (default) to 1"
    add("--stochasticity", type=_number(float, 0, 1), default=0.0, metavar="C", help=help)
    help = "mean uncertainty, above 0 to 1, from which on a tile gets all steps; others get fewer, and are faster"
    add("--adaptive-steps", type=_number(float, 1e-6, 1), metavar="P", help=help)
    help = "factor on the noise, below 1 stays closer to the input; default 1"
    add("--noise-strength", type=_number(float, 0, LARGEST_NOISE), default=1.0, metavar="F", help=help)
    help = "local contrast below which the SR network's image is kept, free of grain; 0 never; default: the model's"
    add("--flat-threshold", type=_number(float, 0, 1), metavar="F", help=help)
    help = "give the result the input's colours: wavelet (coarse scales), adain (mean and spread); default: the model's"
    add("--color-fix", choices=COLOR_FIXES, help=help)
    size = parser.add_argument_group("size of the result").add_mutually_exclusive_group()
    help = "enlargement; where it is not the model's own, its result is resized (Lanczos)"
    size.add_argument("-s", "--scale", type=_number(float, 0.01, LARGEST_SCALE), metavar="S", help=help)
    help = "width in pixels, resized like --scale"
    size.add_argument("--width", type=_number(int, 1), metavar="W", help=help)
    help = "colour (name or #rrggbb) to put behind transparent images, as JPEG needs it"
    add("--background", type=_colour, metavar="COLOUR", help=help)


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    # What only `upsr repeat` knows.
    parser.set_defaults(model_sha256=None, several=False)
    add = parser.add_argument_group("model").add_argument
    add("--model", help="model folder or Hub id; default: the small model of this package")
    add("--variant", help="weights variant, such as fp16")
    add(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1, mps, ...; default: an accelerator if there is one",
    )
    add("--threads", type=_number(int, 1, 1024), metavar="N", help="processor threads; default: as many as cores")
    help = "of the networks; auto: the denoiser in bfloat16 on CPUs that compute in it; default float32"
    add("--dtype", choices=DTYPES, default="float32", help=help)


def _add_tile_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("tiles").add_argument
    help = "side in input pixels of the tiles to work on; default auto: by the free memory"
    add("-t", "--tile", type=_tile, metavar="N|auto|off", help=help)
    help = f"input pixels that tiles share and are blended over; default {DEFAULT_TILE_OVERLAP}"
    add("--tile-overlap", type=_number(int, 0), default=DEFAULT_TILE_OVERLAP, metavar="N", help=help)


def _number(kind: type[int] | type[float], low: float, high: float = math.inf) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value: float = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or math.isinf(value):
            name = "a whole number" if kind is int else "a number"
            limits = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"must be {name} {limits}, got {text!r}")
        return value

    return parse


def _tile(text: str) -> int | None:
    """The pipeline's ``tile_size``."""
    if text in ("auto", "off"):
        return None if text == "auto" else 0
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be auto, off or a number of pixels, got {text!r}")
    return int(text)


def _colour(text: str) -> tuple[float, ...]:
    try:
        return tuple(level / 255 for level in ImageColor.getrgb(text)[:3])
    except ValueError as error:
        message = f"must be a colour such as white or #ffffff, got {text!r}"
        raise argparse.ArgumentTypeError(message) from error
