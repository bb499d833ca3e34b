"""The run: LR images, every method on each, every metric on each result. Results that are there already are kept."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..degradation.config import DEGRADATION_PRESETS
from ..degradation.degrading import Degradation
from ..images.files import read_image
from ..images.whole_files import file_sha256
from ..memory import is_out_of_memory
from ..messages import one_line
from .columns import Metric, Scorer
from .datasets import LR_ONLY, PAIRED, Sample
from .methods import Method
from .records import Record, pixel_hash, save_image
from .upscalers import Identity, finished_image, identify, load_upscaler
from .usage import measured


@dataclass(frozen=True)
class Plan:
    """The methods to compare, and the images to compare them on.

    Attributes:
        out: folder of the results.
        samples: the images.
        presets: degradations that make LR images of the HR ones; none: the samples' own LR images.
        methods, metrics: rows and columns.
        seeds: each decides the degradations and the noise of one repetition.
        scale: super-resolution factor.
        crop: side of a centre crop in HR pixels, ``"fit"`` to cut sides down to multiples of the scale, or None.
        device: where methods and metrics run.
    """

    out: Path
    samples: Sequence[Sample]
    presets: Sequence[str]
    methods: Sequence[Method]
    metrics: Sequence[Metric]
    seeds: Sequence[int]
    scale: int
    crop: int | str | None
    device: torch.device

    @cached_property
    def identities(self) -> list[Identity]:
        """Of each method."""
        return [identify(method) for method in self.methods]

    @property
    def kinds(self) -> list[str]:
        """The kinds of LR images: presets, ``"pairs"`` or ``"lr"``."""
        if self.presets:
            return list(self.presets)
        return [PAIRED if self.samples[0].hr else LR_ONLY]

    def input_seeds(self, kind: str) -> Sequence[int]:
        """Seeds with LR images of their own."""
        config = DEGRADATION_PRESETS.get(kind)
        return self.seeds if config is not None and config.bicubic_prob < 1 else self.seeds[:1]

    def result_seeds(self, kind: str, method: Method) -> Sequence[int]:
        """Seeds with results of their own."""
        return self.seeds if method.is_random else self.input_seeds(kind)

    def input_path(self, kind: str, seed: int, sample: Sample) -> Path:
        """Path of an LR image."""
        if seed not in self.input_seeds(kind):
            seed = self.seeds[0]
        return self.out / "inputs" / kind / f"seed-{seed}" / f"{sample.name}.png"

    def result_path(self, kind: str, seed: int, method: Method, sample: Sample) -> Path:
        """Path of a result."""
        return self.out / "images" / method.folder_name / kind / f"seed-{seed}" / f"{sample.name}.png"

    def read_hr(self, sample: Sample) -> torch.Tensor | None:
        """The real image (1,3,H,W) in [0,1], cut as the plan says; None without one."""
        return None if sample.hr is None else _cut(_opaque(sample.hr), self.scale, self.crop)

    def read_lr(self, kind: str, seed: int, sample: Sample) -> torch.Tensor:
        """The LR image (1,3,h,w) in [0,1], cut or made as the plan says."""
        if self.presets:
            hr = self.read_hr(sample)
            assert hr is not None
            return degradation(kind, self.scale)(hr, [sample.seed(seed)])
        assert sample.lr is not None
        crop = self.crop // self.scale if isinstance(self.crop, int) else self.crop
        return _cut(_opaque(sample.lr), 1, crop)


@dataclass(frozen=True)
class Result:
    """A result with all its scores, by the names of the columns."""

    kind: str
    seed: int
    method: Method
    sample: Sample
    record: Record
    scores: dict[str, float]


def run(plan: Plan) -> list[Result]:
    """Make and score the missing results.

    Raises:
        ValueError: an image, a method or a metric fails; finished results stay, and the next run goes on from there.
    """
    inputs = _write_inputs(plan)
    results = list(_results(plan, inputs))
    _score(plan, results)
    return [replace(result, scores=_columns(plan.metrics, result.record)) for result in results]


def usable_metrics(metrics: Sequence[Metric], has_hr: bool) -> tuple[list[Metric], list[str]]:
    """The metrics that can be computed here, and a line for each one that cannot."""
    usable, lines = [], []
    for metric in metrics:
        absent = "it compares with real images, and there are none" if metric.needs_hr and not has_hr else ""
        absent = absent or metric.missing()
        if absent:
            lines.append(f"no {metric.title}: {absent}")
        else:
            usable.append(metric)
    return usable, lines


def check_methods(plan: Plan) -> None:
    """Find out before any work whether the methods' files and finished images are there.

    Raises:
        ValueError: something is missing.
    """
    for method, _ in zip(plan.methods, plan.identities, strict=True):
        if method.kind == "folder":
            for kind in plan.kinds:
                for seed in plan.result_seeds(kind, method):
                    for sample in plan.samples:
                        finished_image(method, sample.name, kind, seed)


def _write_inputs(plan: Plan) -> dict[Path, str]:
    """Make the LR images; hashes of all by their files."""
    jobs = [(kind, seed, sample) for kind in plan.kinds for seed in plan.input_seeds(kind) for sample in plan.samples]
    hashes = {}
    with _bar(len(jobs), "LR images") as bar:
        for kind, seed, sample in jobs:
            lr = plan.read_lr(kind, seed, sample)
            path = plan.input_path(kind, seed, sample)
            hashes[path] = pixel_hash(lr)
            if not path.is_file() or pixel_hash(read_image(path).rgb) != hashes[path]:
                save_image(path, lr)
            bar.update()
    return hashes


def _results(plan: Plan, inputs: dict[Path, str]) -> Iterator[Result]:
    jobs = [
        (method, identity, kind, seed, sample)
        for method, identity in zip(plan.methods, plan.identities, strict=True)
        for kind in plan.kinds
        for seed in plan.result_seeds(kind, method)
        for sample in plan.samples
    ]
    upscale = loaded = None
    with _bar(len(jobs), "results") as bar:
        for method, identity, kind, seed, sample in jobs:
            path = plan.result_path(kind, seed, method, sample)
            source = plan.input_path(kind, seed, sample)
            made = _made(method, identity, inputs[source], kind, seed, sample)
            record = Record.read(path, made)
            if record is None:
                if loaded is not method:
                    upscale = None  # before the next one is loaded
                    gc.collect()
                    upscale, loaded = load_upscaler(method, plan.scale, plan.device), method
                assert upscale is not None
                bar.set_postfix_str(method.label, refresh=False)
                record = _make(plan, upscale, source, path, made, (sample.name, kind, seed))
            bar.update()
            yield Result(kind, seed, method, sample, record, {})


def _made(method: Method, identity: Identity, lr_hash: str, kind: str, seed: int, sample: Sample) -> dict[str, Any]:
    made: dict[str, Any] = {"kind": method.kind, "options": method.options, **asdict(identity), "lr": lr_hash}
    if method.is_random:
        made["seed"] = seed
    if method.kind == "folder":
        made["file"] = file_sha256(finished_image(method, sample.name, kind, seed))
    return made


def _make(
    plan: Plan, upscale: Callable[..., torch.Tensor], source: Path, path: Path, made: dict[str, Any], job: Sequence[Any]
) -> Record:
    lr = read_image(source).rgb
    try:
        image, seconds, peak = measured(lambda: upscale(lr, *job), plan.device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(f"{source}: out of memory for {path.parts[-4]}; give the method tile=128") from error
    expected = (1, 3, plan.scale * lr.shape[-2], plan.scale * lr.shape[-1])
    if image.shape != expected:
        raise ValueError(f"{path}: the method gives {tuple(image.shape)} where {expected} is due; give another --scale")
    if image.isnan().any():
        raise ValueError(f"{path}: the method gives NaN for {source}; remove the method or the image")
    record = Record(path, made, pixel_hash(save_image(path, image)), seconds, peak)
    record.write()
    return record


def _score(plan: Plan, results: Sequence[Result]) -> None:
    """Complete the scores of every result; sample by sample, so that each real image is read once."""
    scorers: dict[str, Scorer] = {}
    sample, hr, hr_hash = None, None, ""
    with _bar(len(results), "scores") as bar:
        for result in sorted(results, key=lambda result: result.sample.name):
            if result.sample is not sample:
                sample, hr = result.sample, plan.read_hr(result.sample)
                hr_hash = "" if hr is None else pixel_hash(hr)
            _score_one(plan, result.record, hr, hr_hash, scorers)
            bar.update()


def _score_one(plan: Plan, record: Record, hr: torch.Tensor | None, hr_hash: str, scorers: dict[str, Scorer]) -> None:
    image = None
    for metric in plan.metrics:
        of = {**metric.fingerprint, "sr": record.pixels, "scale": str(plan.scale)}
        if metric.needs_hr:
            of["hr"] = hr_hash
        if record.values(metric.name, of) is not None:
            continue
        if metric.name not in scorers:
            scorers[metric.name] = _loaded(metric, plan.device)
        image = record.image() if image is None else image
        try:
            values = scorers[metric.name](image, hr, plan.scale)
        except ValueError as error:
            raise ValueError(f"{record.path}: {error}; choose --metrics without {metric.name}") from error
        record.scores[metric.name] = {"of": of, "values": values}
    if image is not None:
        record.write()


def _loaded(metric: Metric, device: torch.device) -> Scorer:
    try:
        return metric.load(device)
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{metric.title} cannot be loaded ({one_line(error, 200)}); choose --metrics without {metric.name}"
        ) from error


def _columns(metrics: Sequence[Metric], record: Record) -> dict[str, float]:
    return {
        column: value
        for metric in metrics
        for column, value in zip(metric.columns, record.scores[metric.name]["values"], strict=True)
    }


def degradation(preset: str, scale: int) -> Degradation:
    """A preset without the plain bicubic samples that it mixes in for training."""
    config = DEGRADATION_PRESETS[preset]
    return Degradation(config if config.bicubic_prob == 1 else replace(config, bicubic_prob=0.0), scale)


def _opaque(path: Path) -> torch.Tensor:
    image = read_image(path)
    if image.alpha is not None:
        raise ValueError(f"{path}: is transparent, but metrics need opaque images; flatten or remove it")
    return image.rgb


def _cut(image: torch.Tensor, unit: int, crop: int | str | None) -> torch.Tensor:
    """The centre of side ``crop``, which starts at a multiple of the unit; or the upper left of whole units."""
    height, width = image.shape[-2:]
    if not isinstance(crop, int):
        return image[..., : height - height % unit, : width - width % unit].contiguous()
    top, left = ((side // unit - crop // unit) // 2 * unit for side in (height, width))
    return image[..., top : top + crop, left : left + crop].contiguous()


def _bar(total: int, title: str) -> tqdm[Any]:
    """A bar with the time left on a terminal; elsewhere one line a minute."""
    bar: tqdm[Any] = tqdm(total=total, desc=title, dynamic_ncols=True, smoothing=0.1)
    if not bar.fp.isatty():
        bar.mininterval, bar.miniters = 60, 1
    return bar
