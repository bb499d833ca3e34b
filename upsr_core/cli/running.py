"""Runs over images: one after the other, each told of, and what fails stops no other."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch

from ..choices import WRITE_FORMATS
from ..images.files import (
    DecodedImage,
    check_format,
    check_output,
    decode_image,
    encode_image,
    read_image,
    write_image,
)
from ..loading import model_sha256
from ..memory import is_out_of_memory
from ..messages import one_line
from ..pipeline_upsr import UPSRPipeline
from .arguments import installed_version
from .main import OUT_OF_MEMORY
from .output import complain, emit, say
from .paths import Job
from .progress import RunProgress, count_pixels
from .report import ReportWriter, record_of

Process = Callable[[Job, Callable[[int, int], None]], str]
"""Makes an image's result with the pipeline's ``callback_on_tile_end``; returns a remark for the user."""


def read_job(job: Job) -> DecodedImage:
    """The job's image."""
    return read_image(job.source) if job.source is not None else decode_image(sys.stdin.buffer.read(), job.source_name)


def check_job(job: Job, image: DecodedImage, height: int, width: int, has_alpha: bool) -> None:
    """Check, before long work, that `write_job` can write a result of this size; see `check_output`."""
    if job.target is not None:
        check_output(job.target, height, width, has_alpha)
    else:
        check_format(_format_of(job, image), job.target_name, height, width, has_alpha)


def write_job(
    job: Job, image: DecodedImage, quality: int, background: tuple[float, float, float] | None = None
) -> None:
    """Write the job's result."""
    if job.target is not None:
        write_image(job.target, image, quality=quality, background=background)
    else:
        file_format = _format_of(job, image)
        emit(encode_image(image, file_format, job.target_name, quality=quality, background=background))


def _format_of(job: Job, image: DecodedImage) -> str:
    if job.suffix is not None:
        return WRITE_FORMATS[job.suffix]
    return image.format if image.format in WRITE_FORMATS.values() else "PNG"


def run_jobs(args: argparse.Namespace, jobs: list[Job], pipe: UPSRPipeline, process: Process) -> int:
    """Process every job and say what became of it; with several, go on after a failure.

    Args:
        args: of the command; reads ``skip_existing``, ``quiet``, ``report`` and ``several``, true where the jobs are a
            part of all.
        jobs: the images.
        pipe: that processes them.
        process: makes one result.

    Returns:
        Exit status of the command.

    Raises:
        ValueError, OSError, RuntimeError, MemoryError: of the only job there is.
        KeyboardInterrupt: with several jobs, it says how many are done.
    """
    return _Run(args, jobs, pipe).go(process)


class _Run:
    def __init__(self, args: argparse.Namespace, jobs: list[Job], pipe: UPSRPipeline):
        self.args, self.several = args, args.several or len(jobs) > 1
        self.todo = [job for job in jobs if not self._is_made(job)]
        if len(self.todo) < len(jobs) and not args.quiet:
            say(f"skipped, as their results exist: {len(jobs) - len(self.todo)} of {len(jobs)}")
        self.failures: list[str] = []
        self.unsaid: OSError | None = None
        self.report: ReportWriter | None = None
        if args.report:
            self.report = ReportWriter(Path(args.report))
            versions = {"upsr": installed_version(), "torch": torch.__version__, "diffusers": diffusers.__version__}
            self.software = {"model_sha256": model_sha256(pipe), "device": str(pipe.device), **versions}
        # The headers of very many files on a slow disk take their time.
        pixels = [1 if args.quiet else count_pixels(job.source) for job in self.todo]
        self.progress = RunProgress(pixels, quiet=args.quiet)
        pipe.set_progress_bar_config(disable=True)  # ours knows of all images

    def go(self, process: Process) -> int:
        done = 0
        try:
            for index, job in enumerate(self.todo):
                counter = f"[{index + 1}/{len(self.todo)}] " if len(self.todo) > 1 else ""
                # Another run may have made it in the meantime.
                if not self._is_made(job):
                    self.progress.begin(index, job.source.name if job.source else job.source_name)
                    self._do(job, process, counter)
                    self.progress.end()
                done += 1
        except KeyboardInterrupt as interrupt:
            if not self.several:
                raise
            made = f"{done - len(self.failures)} of {len(self.todo)} images are made"
            raise KeyboardInterrupt(f"{made}; --skip-existing goes on from there") from interrupt
        if self.unsaid is not None:
            complain(f"error: {self.unsaid.strerror}; the images are made")
        if self.failures:
            complain(f"error: {len(self.failures)} of {len(self.todo)} images failed", *self.failures)
        return 1 if self.failures or self.unsaid else 0

    def _is_made(self, job: Job) -> bool:
        return self.args.skip_existing and job.target is not None and job.target.exists()

    def _do(self, job: Job, process: Process, counter: str) -> None:
        start = time.perf_counter()
        try:
            facts = process(job, self.progress.called)
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            reason = OUT_OF_MEMORY if is_out_of_memory(error) else one_line(error)
            self._record(job, time.perf_counter() - start, reason)
            if not self.several:
                raise
            self.failures.append(reason if job.source_name in reason else f"{job.source_name}: {reason}")
            complain(f"{counter}failed: {self.failures[-1]}")
            return
        seconds = time.perf_counter() - start
        self._record(job, seconds, None)
        if job.target is not None and not self.args.quiet:
            self._try_to_tell(say, f"{counter}{job.source_name} -> {job.target_name} ({facts}, {seconds:.1f} s)")

    def _record(self, job: Job, seconds: float, error: str | None) -> None:
        if self.report is not None:
            self._try_to_tell(self.report.write, record_of(self.args, job, self.software, seconds, error))

    def _try_to_tell(self, tell: Callable, what: object) -> None:
        """Print or record a result; where that fails, the images are made all the same."""
        try:
            if self.unsaid is None:
                tell(what)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.unsaid = error
