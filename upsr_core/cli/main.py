"""The command ``upsr``. What can be answered without torch is, before it is imported, which takes seconds."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ..messages import one_line
from .arguments import parse_arguments
from .evaluate import evaluate
from .output import complain
from .paths import Job, plan_jobs, prepare_folders


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM, which a system that shuts down sends, ends the run as Ctrl-C does; and both do so during imports."""

    def end(_: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                # An exception would come out as another one, of a module that cannot be imported.
                complain("interrupted")
                os._exit(130)
            frame = frame.f_back
        raise KeyboardInterrupt

    usual: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    mine = [number for number, handler in usual.items() if signal.getsignal(number) == handler]
    if threading.current_thread() is not threading.main_thread():
        mine = []
    for number in mine:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, usual[number])


@_ended_by_signals()
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
