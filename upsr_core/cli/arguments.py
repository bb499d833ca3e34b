"""The command line of `upsr`: its commands, arguments and their help."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
from collections.abc import Callable
from typing import NoReturn

from PIL import ImageColor

from ..choices import COLOR_FIXES, DEFAULT_TILE_OVERLAP, DTYPES, LARGEST_NOISE, WRITE_FORMATS
from .evaluate import NOTE as EVALUATE_NOTE
from .evaluate import add_evaluate_arguments

FORMATS = sorted(suffix[1:] for suffix in WRITE_FORMATS)
FILES_NOTE = """\
IN is an image file, a folder, or a glob pattern (in quotes where the shell is not to expand it). Results
appear whole or not at all; existing ones are replaced, inputs never. With several inputs a failure does not
stop the rest: what failed is listed at the end, with exit status 1. Where nothing can be done it is 2."""
CONVERT_USAGE = "upsr convert DENOISER SR_NET OUT [--config FILE]\n       upsr convert --to-published FOLDER OUT"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Arguments of one command, whose name is in ``command``.

    Raises:
        ValueError: in one line, for arguments that cannot be understood.
        SystemExit: with status 0 after ``--help`` and ``--version``.
    """
    parser = _Parser(prog="upsr", description="Super-resolution of photos by uncertainty-guided diffusion.")
    parser.add_argument("--version", action="version", version=installed_version())
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND", required=True)

    def command(name: str, help: str, note: str = "") -> _Parser:
        layout = argparse.RawDescriptionHelpFormatter
        return commands.add_parser(name, help=help, description=help, epilog=note, formatter_class=layout)

    upscale = command("upscale", "Upscale images.", FILES_NOTE)
    _add_file_arguments(upscale)
    _add_sampling_arguments(upscale)
    _add_tile_arguments(upscale)
    _add_model_arguments(upscale)

    uncertainty = command("uncertainty", "Show as a heat map where the model is unsure.", FILES_NOTE)
    _add_file_arguments(uncertainty)
    help = "uncertainty that gets the last colour; default: that from which on the model's noise is full"
    uncertainty.add_argument("--psi-max", type=_number(float, 1e-6, 1), metavar="P", help=help)
    _add_model_arguments(uncertainty)

    convert = command("convert", "Convert published checkpoints to a model folder, or back.")
    convert.usage = CONVERT_USAGE
    help = "DENOISER and SR_NET: .pth or .safetensors files; FOLDER: a model folder; OUT: a new folder"
    convert.add_argument("paths", nargs="+", metavar="PATH", help=help)
    help = "configuration in the published code's terms, as JSON; default: that of its x4 model"
    convert.add_argument("--config", metavar="FILE", help=help)
    help = "write the folder's networks to OUT/denoiser.pth and OUT/sr_net.pth"
    convert.add_argument("--to-published", action="store_true", help=help)

    evaluate = command("evaluate", "Compare methods on a data set, in numbers and pictures.", EVALUATE_NOTE)
    add_evaluate_arguments(evaluate)

    info = command("info", "Show versions, devices, and what a model is.")
    info.add_argument("model", nargs="?", metavar="MODEL", help="folder or Hub id; default: the bundled model")
    info.add_argument("--variant", help="weights variant, such as fp16")
    return parser.parse_args(argv)


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
    add("inputs", nargs="+", metavar="IN", help="image file, folder or glob pattern")
    add("-o", "--out", help="file for one input, folder for several or for a folder; default: beside IN")
    add("-r", "--recursive", action="store_true", help="descend into subfolders")
    add("-f", "--format", choices=FORMATS, help="default: what -o names, else the input's, else png")
    add("--quality", type=_number(int, 1, 100), default=95, metavar="Q", help="of JPEG and WebP; default 95")
    add("--skip-existing", action="store_true", help="leave out inputs whose result exists")
    help = "refuse inputs of more pixels; default about 89 million, as larger ones are often made to fill the memory"
    add("--max-pixels", type=_number(int, 1), metavar="N", help=help)


def _add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("sampling").add_argument
    add("--seed", type=_number(int, 0, 2**64 - 1), default=0, help="of the noise of each image; default 0")
    add("--steps", type=_number(int, 1), metavar="N", help="fewer are faster; default: all the model has")
    help = "share of fresh noise in each step, 0 (default) to 1"
    add("--stochasticity", type=_number(float, 0, 1), default=0.0, metavar="C", help=help)
    help = "factor on the noise, below 1 stays closer to the input; default 1"
    add("--noise-strength", type=_number(float, 0, LARGEST_NOISE), default=1.0, metavar="F", help=help)
    help = "give the result the input's colours: wavelet (coarse scales), adain (mean and spread); default none"
    add("--color-fix", choices=COLOR_FIXES, default="none", help=help)
    size = parser.add_argument_group("size of the result").add_mutually_exclusive_group()
    help = "enlargement; below the model's own, its result is resized (Lanczos)"
    size.add_argument("-s", "--scale", type=_number(float, 0.01), metavar="S", help=help)
    help = "width in pixels, at most the model's enlargement of each input; resized like --scale"
    size.add_argument("--width", type=_number(int, 1), metavar="W", help=help)
    help = "colour (name or #rrggbb) to put behind transparent images, as JPEG needs it"
    add("--background", type=_colour, metavar="COLOUR", help=help)


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("model").add_argument
    add("--model", help="model folder or Hub id; default: the small model of this package")
    add("--variant", help="weights variant, such as fp16")
    add(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1, mps, ...; default: an accelerator if there is one",
    )
    add("--threads", type=_number(int, 1, 1024), metavar="N", help="processor threads; default: as many as cores")
    add("--dtype", choices=DTYPES, default="float32", help="of the networks; default float32")


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
