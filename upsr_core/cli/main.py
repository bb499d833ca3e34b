"""The command ``upsr``. What can be answered without torch is, before it is imported, which takes seconds."""

from __future__ import annotations

import argparse
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..messages import one_line
from .arguments import parse_arguments
from .evaluate import evaluate
from .output import complain
from .paths import Job, plan_jobs, prepare_folders


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, which a system that shuts down sends, ends the run as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # in another thread than the main one, which gets no signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@_terminated_as_interrupted()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; None for those of the process.

    Returns:
        Exit status: 0 done, 1 some images failed, memory ran out or the output could not be written, 2 wrong usage or
        input, 130 interrupted.
    """
    commands = {
        **{"upscale": _upscale, "uncertainty": _uncertainty, "convert": _convert},
        **{"evaluate": evaluate, "info": _info},
    }
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            args = parse_arguments(None if argv is None else list(argv))
            return commands[args.command](args)
        except BrokenPipeError:
            # Whoever read the output has seen enough, as `head` does.
            return 1
        except (ValueError, OSError) as error:
            complain(f"error: {one_line(error)}")
            return 2
        except (RuntimeError, MemoryError) as error:
            from ..memory import is_out_of_memory

            if not is_out_of_memory(error):
                raise
            complain(f"error: {OUT_OF_MEMORY}")
            return 1
        except KeyboardInterrupt:
            complain("interrupted")
            return 130


OUT_OF_MEMORY = "out of memory; choose a smaller --tile, --dtype float16, or another --device"


def _upscale(args: argparse.Namespace) -> int:
    if args.tile and args.tile_overlap >= args.tile:
        raise ValueError(f"--tile-overlap {args.tile_overlap} must be smaller than --tile {args.tile}")
    jobs = _plan(args, "_upscaled")
    from .commands import upscale

    return upscale(args, jobs)


def _uncertainty(args: argparse.Namespace) -> int:
    jobs = _plan(args, "_uncertainty")
    from .commands import show_uncertainty

    return show_uncertainty(args, jobs)


def _convert(args: argparse.Namespace) -> int:
    from .commands import convert

    return convert(args)


def _info(args: argparse.Namespace) -> int:
    from .commands import info

    return info(args)


def _plan(args: argparse.Namespace, name_end: str) -> list[Job]:
    suffix = f".{args.format}" if args.format else None
    jobs = plan_jobs(args.inputs, args.out, suffix=suffix, name_end=name_end, recursive=args.recursive)
    prepare_folders(jobs)
    return jobs


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    complain(f"warning: {message}")
