"""Which files a command of `upsr` reads, and where it writes their results."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..choices import READ_SUFFIXES, WRITE_FORMATS
from ..images.whole_files import remove_leftover_files
from .naming import Naming
from .output import complain

STANDARD = "-"
"""Standard input or output, as an argument."""


@dataclass(frozen=True)
class Job:
    """One image to read and the file its result goes to.

    Attributes:
        source: None is the standard input.
        target: None is the standard output.
        suffix: file type of the result, such as ``".png"``; None: that of the image on the standard input.
    """

    source: Path | None
    target: Path | None
    suffix: str | None

    @property
    def source_name(self) -> str:
        """For messages."""
        return "(standard input)" if self.source is None else str(self.source)

    @property
    def target_name(self) -> str:
        """For messages."""
        return "(standard output)" if self.target is None else str(self.target)


def plan_jobs(
    inputs: Sequence[str],
    out: str | None,
    *,
    suffix: str | None,
    beside: Naming,
    named: Naming | None,
    recursive: bool,
) -> list[Job]:
    """Pair every input image with its output file.

    Args:
        inputs: files, folders and glob patterns; or only ``"-"``, the standard input.
        out: the file for a single result; or a folder (created where missing) in which results keep the layout of input
            folders; or ``"-"``, the standard output. None: beside each input.
        suffix: file type of the results, such as ``".png"``. None: the type ``out`` names, else that of the
            input where it can be written, else PNG.
        beside: names of results that lie beside their inputs, unless ``named`` says other ones.
        named: names of results, as the user wants them; None: in a folder, those of their inputs.
        recursive: whether to descend into the subfolders of folders.

    Raises:
        ValueError: nothing to read, an ``out`` that does not fit, or results that would overwrite one another
            or an input.
    """
    if "" in inputs or out == "":
        raise ValueError(f"{'an input' if '' in inputs else '-o'} is empty; is a variable of the shell not set?")
    if STANDARD in inputs or out == STANDARD:
        return [_piped_job(inputs, out, suffix, named)]
    one_file = len(inputs) == 1 and Path(inputs[0]).is_file()
    as_folder = out is not None and (out.endswith(("/", os.sep)) or Path(out).is_dir() or not one_file)
    if out is not None and not as_folder:
        if named is not None:
            raise ValueError(f"--name {named.template}: -o {out} names the file already; name a folder")
        jobs = [_job(Path(inputs[0]), _target_file(Path(out), suffix))]
    else:
        folder = None if out is None else Path(out)
        naming = named or (beside if folder is None else Naming("{stem}"))
        jobs = [
            _job(source, _target_in(folder, source, relative, suffix, naming))
            for source, relative in _find_sources(inputs, folder, recursive, naming)
        ]
        if folder is not None:
            _check_folder(folder)
    check_collisions(jobs)
    return jobs


def prepare_folders(jobs: Sequence[Job]) -> None:
    """Create the folders of the results; fail now rather than after the work where writing is forbidden."""
    for folder in dict.fromkeys(job.target.parent for job in jobs if job.target is not None):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{folder}: cannot be created ({error.strerror}); name another place with -o") from error
        if not os.access(folder, os.W_OK):
            raise ValueError(f"{folder}: no permission to write there; name another place with -o")
        remove_leftover_files(folder)


def _job(source: Path, target: Path) -> Job:
    return Job(source, target, target.suffix.lower())


def _piped_job(inputs: Sequence[str], out: str | None, suffix: str | None, named: Naming | None) -> Job:
    if len(inputs) > 1:
        raise ValueError(f"{STANDARD}, the standard input or output, is for one image; name one input")
    if named is not None:
        raise ValueError(f"--name {named.template}: {STANDARD} has no names; leave it out")
    source = None if inputs[0] == STANDARD else Path(inputs[0])
    if source is not None and not source.is_file():
        raise ValueError(f"{source}: -o {STANDARD} takes one image file, and this is none")
    if out is None:
        raise ValueError(f"{STANDARD}, the standard input, needs -o FILE or -o {STANDARD}")
    if out == STANDARD:
        return Job(source, None, suffix or (None if source is None else _own_suffix(source)))
    if Path(out).is_dir():
        raise ValueError(f"{out}: is a folder; name a file for the image on the standard input")
    target = _target_file(Path(out), suffix)
    return Job(source, target, target.suffix.lower())


def _own_suffix(source: Path) -> str:
    suffix = source.suffix.lower()
    return suffix if suffix in WRITE_FORMATS else ".png"


def _target_file(out: Path, suffix: str | None) -> Path:
    if out.suffix.lower() not in WRITE_FORMATS:
        raise ValueError(f"{out}: no known image type; end it in one of {' '.join(WRITE_FORMATS)}, or name a folder")
    if suffix is not None and WRITE_FORMATS[out.suffix.lower()] != WRITE_FORMATS[suffix]:
        raise ValueError(f"{out}: does not agree with the format {suffix[1:]}; leave one of the two out")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: no such folder {out.parent}; create it first")
    return out


def _target_in(folder: Path | None, source: Path, relative: Path, suffix: str | None, naming: Naming) -> Path:
    place = source if folder is None else folder / relative
    return place.with_name(naming.name(source, suffix or _own_suffix(source)))


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file, but several inputs need a folder for their results")
    if not folder.exists() and folder.suffix.lower() in WRITE_FORMATS:
        raise ValueError(f"{folder}: looks like one file, but several inputs need a folder for their results")


def _find_sources(inputs: Sequence[str], out: Path | None, recursive: bool, naming: Naming) -> list[tuple[Path, Path]]:
    """Every input image once, with the relative path that its result takes in an output folder.

    Where results lie beside the inputs, patterns do not match them: the same command can be run again.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            if out is None:
                raise ValueError(f"{given}: a folder needs -o FOLDER for the results")
            images = _images_in(path, out, recursive)
            if not images:
                raise ValueError(f"{given}: no images in this folder ({' '.join(READ_SUFFIXES)})")
            pairs = [(image, image.relative_to(path)) for image in images]
        elif path.exists():
            pairs = [(path, Path(path.name))]
        else:
            matches = [Path(match) for match in sorted(glob.glob(given, recursive=True)) if Path(match).is_file()]
            if not matches:
                kind = "no file matches this pattern" if glob.has_magic(given) else "no such file or folder"
                raise ValueError(f"{given}: {kind}")
            inputs_only = matches if out is not None else _without_results(matches, naming)
            kind = f"earlier results ({naming.template}.*)"
            if not inputs_only:
                raise ValueError(f"{given}: matches only {kind}; name them or give -o FOLDER")
            if len(inputs_only) < len(matches):
                complain(f"{given}: {len(matches) - len(inputs_only)} {kind} are left out")
            pairs = [(match, Path(match.name)) for match in inputs_only]
        for source, relative in pairs:
            found.setdefault(source.resolve(), (source, relative))
    return list(found.values())


def _without_results(matches: Sequence[Path], naming: Naming) -> list[Path]:
    folders = {match.parent for match in matches}
    stems = {
        folder: {path.stem for path in folder.iterdir() if path.suffix.lower() in READ_SUFFIXES} for folder in folders
    }
    return [match for match in matches if not naming.could_have_made(match, stems[match.parent])]


def _images_in(folder: Path, out: Path, recursive: bool) -> list[Path]:
    """Images below ``folder``, without hidden files and without earlier results where these lie inside it."""
    results = Path(os.path.realpath(out))  # unlike Path.resolve, it takes links that lead in a circle
    results_inside = folder.resolve() in results.parents
    return [
        path
        for path in sorted(folder.rglob("*") if recursive else folder.iterdir())
        if path.suffix.lower() in READ_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not (results_inside and results in path.resolve().parents)
    ]


def _identity(path: Path) -> tuple[int, int]:
    """Equal for two names of one file, be it by links or by a file system that ignores case."""
    status = path.stat()
    return status.st_dev, status.st_ino


def check_collisions(jobs: Sequence[Job]) -> None:
    """Refuse results that would overwrite one another or an input.

    Raises:
        ValueError: the message names the files.
    """
    sources = {_identity(job.source) for job in jobs if job.source is not None and job.source.exists()}
    targets: dict[Path, Job] = {}
    for job in jobs:
        if job.target is None:
            continue
        target = Path(os.path.realpath(job.target))
        if target.exists() and _identity(target) in sources:
            raise ValueError(f"{job.target}: would overwrite an input; choose another -o")
        first = targets.setdefault(target, job)
        if first is not job:
            raise ValueError(
                f"{first.source_name} and {job.source_name}: both results would be {job.target}; run them separately, "
                'or give --name "{stem}_{ext}"'
            )
