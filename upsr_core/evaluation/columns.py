"""The columns of the table: each metric with its settings, requirements and computation."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .methods import EXTRA

NIQE_VARIABLE = "UPSR_NIQE"
NIQE_PARAMETERS = "https://github.com/XPixelGroup/BasicSR/raw/master/basicsr/metrics/niqe_pris_params.npz"
_PYIQA_WEIGHTS = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
_PYTORCH_WEIGHTS = "https://download.pytorch.org/models/"
_CLIP_WEIGHTS = "https://openaipublic.azureedge.net/clip/models/"

# (sr, hr, scale) -> a number for each of the metric's columns; images (1,3,H,W) in [0,1], hr None without one.
Scorer = Callable[[Any, Any, int], list[float]]


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: on the command line.
        title: of its column in the table.
        needs_hr: whether it compares with a real image.
        better: +1 where more is better, -1 where less is, 0 where neither.
        form: of a number in the table.
        settings: the exact computation, in words.
        load: gives the scorer for a device.
        missing: gives the missing package or file with its source; "" if nothing is missing.
        package: whose version decides the values, beside this one's.
        keys: of its numbers; by default its name.
    """

    name: str
    title: str
    needs_hr: bool
    better: int
    form: str
    settings: str
    load: Callable[[Any], Scorer]
    missing: Callable[[], str] = lambda: ""
    package: str = ""
    keys: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Keys of its numbers."""
        return self.keys or (self.name,)

    @property
    def fingerprint(self) -> dict[str, str]:
        """Everything that its values depend on, beside the images."""
        version = importlib.metadata.version(self.package) if self.package else ""
        return {"settings": self.settings, "version": f"{self.package} {version}".strip()}


def _own(function: str, *extra: str) -> Callable[[Any], Scorer]:
    """A function of `metrics`, on its images and the scale where it takes them."""

    def load(device: Any) -> Scorer:
        del device
        from . import metrics

        compute = getattr(metrics, function)

        def score(sr: Any, hr: Any, scale: int) -> list[float]:
            known = {"hr": hr, "scale": scale}
            return compute(sr, *(known[name] for name in extra))[0].reshape(-1).tolist()

        return score

    return load


def _missing_package(package: str) -> str:
    return "" if importlib.util.find_spec(package) else f"the package {package} is not installed; {EXTRA}"


def _missing_files(package: str, files: Callable[[], Sequence[tuple[Path, str]]]) -> str:
    absent = _missing_package(package)
    if absent:
        return absent
    lost = [(path, address) for path, address in files() if not path.is_file()]
    return "; ".join(f"{_shown(path)} is missing, get it from {address}" for path, address in lost)


def _shown(path: Path) -> str:
    """The path without the user's name, as others may read the table."""
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def _missing_clip() -> str:
    # openai-clip needs it without saying so, and new versions of setuptools lack it.
    lost = "" if importlib.util.find_spec("pkg_resources") else 'pkg_resources is missing; pip install "setuptools<81"'
    return lost or _missing_files("pyiqa", _clip_files)


def _hub_folder() -> Path:
    """Folder in which torch keeps weights, as `torch.hub.get_dir` has it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub"


def _pyiqa_file(name: str) -> tuple[Path, str]:
    return _hub_folder() / "pyiqa" / name, _PYIQA_WEIGHTS + name


def _lpips_files() -> list[tuple[Path, str]]:
    backbone = "alexnet-owt-7be5be79.pth"
    return [
        (_hub_folder() / "checkpoints" / backbone, _PYTORCH_WEIGHTS + backbone),
        _pyiqa_file("LPIPS_v0.1_alex-df73285e.pth"),
    ]


def _clip_files() -> list[tuple[Path, str]]:
    path = Path("~/.cache/clip/RN50.pt").expanduser()
    return [(path, f"{_CLIP_WEIGHTS}afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt")]


def _pyiqa(metric: str, needs_hr: bool = True) -> Callable[[Any], Scorer]:
    def load(device: Any) -> Scorer:
        import pyiqa

        network = pyiqa.create_metric(metric, device=device)

        def score(sr: Any, hr: Any, scale: int) -> list[float]:
            del scale
            images = [sr.to(device), hr.to(device)] if needs_hr else [sr.to(device)]
            return [network(*images).item()]

        return score

    return load


def _niqe(path: str | None, device: Any) -> Scorer:
    del device
    from .niqe import NIQE

    assert path is not None
    niqe = NIQE.load(Path(path))
    return lambda sr, hr, scale: niqe(sr).tolist()


def _missing_niqe(path: str | None) -> str:
    if path is None:
        return f"its parameters are not named; get {NIQE_PARAMETERS} and give --niqe-parameters FILE or {NIQE_VARIABLE}"
    return "" if Path(path).is_file() else f"{path} is missing, get it from {NIQE_PARAMETERS}"


def _st_lpips(device: Any) -> Scorer:
    import torch

    from .st_lpips import STLPIPS

    network = STLPIPS("alex").to(device)

    @torch.no_grad()
    def score(sr: Any, hr: Any, scale: int) -> list[float]:
        del scale
        return [network(2 * sr.to(device) - 1, 2 * hr.to(device) - 1).item()]

    return score


def all_metrics(niqe_parameters: str | None = None) -> dict[str, Metric]:
    """Every metric by name, in the order of the columns.

    Args:
        niqe_parameters: file of NIQE's parameters; by default the one that the environment variable names.
    """
    niqe_file = niqe_parameters or os.environ.get(NIQE_VARIABLE)
    luma = "on Y of YCbCr (BT.601, 16..235), a border of as many pixels as the scale left out"
    metrics = [
        Metric("psnr", "PSNR-Y, dB", True, 1, ".2f", luma, _own("psnr", "hr", "scale")),
        Metric(
            "ssim", "SSIM-Y", True, 1, ".4f", f"{luma}, Gaussian window of 11, sigma 1.5", _own("ssim", "hr", "scale")
        ),
        Metric(
            "lpips", "LPIPS", True, -1, ".4f", "pyiqa lpips: AlexNet, version 0.1",
            _pyiqa("lpips"), partial(_missing_files, "pyiqa", _lpips_files), "pyiqa",
        ),
        Metric(
            "st_lpips", "ST-LPIPS", True, -1, ".4f", "shift-tolerant LPIPS: AlexNet, version 0.0",
            _st_lpips, partial(_missing_package, "stlpips_pytorch"), "stlpips_pytorch",
        ),
        Metric(
            "clipiqa", "CLIPIQA", False, 1, ".4f", "pyiqa clipiqa: CLIP RN50",
            _pyiqa("clipiqa", needs_hr=False), _missing_clip, "pyiqa",
        ),
        Metric(
            "musiq", "MUSIQ", False, 1, ".2f", "pyiqa musiq: KonIQ-10k", _pyiqa("musiq", needs_hr=False),
            partial(_missing_files, "pyiqa", lambda: [_pyiqa_file("musiq_koniq_ckpt-e95806b9.pth")]), "pyiqa",
        ),
        Metric(
            "maniqa", "MANIQA", False, 1, ".4f", "pyiqa maniqa: KonIQ-10k", _pyiqa("maniqa", needs_hr=False),
            partial(_missing_files, "pyiqa", lambda: [_pyiqa_file("ckpt_koniq10k.pt")]), "pyiqa",
        ),
        Metric(
            "niqe", "NIQE", False, -1, ".2f", "on Y in whole levels, blocks of 96, no border left out",
            partial(_niqe, niqe_file), partial(_missing_niqe, niqe_file),
        ),
        Metric(
            "fine_detail", "fine detail", True, 0, ".2f",
            "spectral power of Y above half the Nyquist frequency, in units of the real image's",
            _own("fine_detail_ratio", "hr"),
        ),
        Metric(
            "grid", "grid", False, -1, ".1%",
            "how much stronger gradients are at one place of a grid, as wide as the scale, than on average",
            _own("grid_excess", "scale"),
        ),
        Metric(
            "colour_shift", "colour shift R G B, levels", True, 0, "+.2f", "mean difference to the real image, of 255",
            _own("colour_shift", "hr"), keys=("shift_red", "shift_green", "shift_blue"),
        ),
    ]  # fmt: skip
    return {metric.name: metric for metric in metrics}
