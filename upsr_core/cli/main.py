"""The command ``upsr``. What can be answered without torch is, before it is imported, which takes seconds."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ..allocation import keep_freed_memory
from ..messages import one_line
from .arguments import parse_arguments
from .evaluate import evaluate
from .naming import Naming
from .output import complain, on_terminal, our_messages
from .paths import Job, check_collisions, plan_jobs, prepare_folders
from .report import ReportWriter, read_report


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
    try:
        args = parse_arguments(None if argv is None else list(argv))
        keep_freed_memory()
        with our_messages(args.verbose):
            return _COMMANDS[args.command](args)
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
    except KeyboardInterrupt as interrupt:
        complain(": ".join(["interrupted", *map(str, interrupt.args)]))
        return 130


OUT_OF_MEMORY = "out of memory; choose a smaller --tile, --dtype float16, or another --device"


def _upscale(args: argparse.Namespace) -> int:
    if args.tile and args.tile_overlap >= args.tile:
        raise ValueError(f"--tile-overlap {args.tile_overlap} must be smaller than --tile {args.tile}")
    jobs = _plan(args, "{stem}_upscaled")
    from .commands import upscale

    return upscale(args, jobs)


def _uncertainty(args: argparse.Namespace) -> int:
    jobs = _plan(args, "{stem}_uncertainty")
    from .commands import show_uncertainty

    return show_uncertainty(args, jobs)


def _repeat(args: argparse.Namespace) -> int:
    """With several groups, each is a run of its own."""
    runs = []
    for group in read_report(Path(args.report_file), Path(args.out) if args.out else None):
        try:
            again = parse_arguments([*group.arguments, "--", "-"])
        except ValueError as error:
            raise ValueError(f"{args.report_file}: settings that this version does not know: {error}") from error
        if again.command not in ("upscale", "uncertainty"):
            raise ValueError(f"{args.report_file}: {again.command} makes no images")
        again.model_sha256 = group.model_sha256
        for name in ("skip_existing", "report", "quiet", "verbose"):
            setattr(again, name, getattr(args, name))
        check_collisions(group.jobs)
        _prepare(again, group.jobs)
        runs.append((again, group.jobs))
    several = sum(len(jobs) for _, jobs in runs) > 1
    for again, _ in runs:
        again.several = several
    from .commands import show_uncertainty, upscale

    return max((upscale if again.command == "upscale" else show_uncertainty)(again, jobs) for again, jobs in runs)


def _convert(args: argparse.Namespace) -> int:
    from .commands import convert

    return convert(args)


def _info(args: argparse.Namespace) -> int:
    from .facts import info

    return info(args)


def _doctor(args: argparse.Namespace) -> int:
    from .facts import doctor

    return doctor(args)


_COMMANDS = {
    **{"upscale": _upscale, "uncertainty": _uncertainty, "repeat": _repeat},
    **{"convert": _convert, "evaluate": evaluate, "info": _info, "doctor": _doctor},
}


def _plan(args: argparse.Namespace, beside: str) -> list[Job]:
    jobs = plan_jobs(
        args.inputs,
        args.out,
        suffix=f".{args.format}" if args.format else None,
        beside=Naming(beside),
        named=Naming(args.name, getattr(args, "seed", 0)) if args.name is not None else None,
        recursive=args.recursive,
    )
    _prepare(args, jobs)
    return jobs


def _prepare(args: argparse.Namespace, jobs: list[Job]) -> None:
    """Do the checks and create the folders before the work begins."""
    if any(job.target is None for job in jobs) and on_terminal(sys.stdout):
        raise ValueError("-o -: the standard output is a terminal; send it to a file or a program")
    prepare_folders(jobs)
    if args.report:
        ReportWriter(Path(args.report))
