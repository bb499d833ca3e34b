"""Loading and running the methods, and the identity of each."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ..choices import DEFAULT_TILE_OVERLAP
from ..images.files import read_image
from ..images.whole_files import file_sha256
from ..loading import BUNDLED_MODEL, load_pipeline
from ..messages import one_line
from ..pipeline_upsr import UPSRPipeline
from ..tiling import plan_tiles
from ..upscaling import upscale
from .datasets import find_image
from .methods import Method

# LR (1,3,h,w) in [0,1], its name, the kind of input, the seed -> (1,3,s*h,s*w), perhaps beyond [0,1], on the CPU.
Upscale = Callable[[torch.Tensor, str, str, int], torch.Tensor]


@dataclass(frozen=True)
class Identity:
    """Everything that a method's results depend on, beside the LR image.

    Attributes:
        files: SHA-256 of its files by name.
        versions: of the packages that run it.
    """

    files: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def identify(method: Method) -> Identity:
    """Hashes and versions of a method, without loading it."""
    if method.kind == "bicubic":
        return Identity(versions={"torch": torch.__version__, "a": "-0.5"})
    if method.kind in ("g", "upsr"):
        folder = _pipeline_folder(method)
        parts = ("sr_net",) if method.kind == "g" else ("sr_net", "unet", "scheduler")
        files = [path for part in parts for path in sorted((folder / part).glob("*")) if path.is_file()]
        return Identity(_hashes(files, folder), {"torch": torch.__version__, "upsr": _code()})
    if method.kind == "ncnn":
        param = Path(method.source)
        return Identity(_hashes([param, param.with_suffix(".bin")], param.parent), _versions("ncnn"))
    if method.kind == "spandrel":
        path = Path(method.source)
        return Identity(_hashes([path], path.parent), _versions("spandrel", "torch"))
    if method.kind == "ldm":
        folder = Path(method.source)
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
        hashes = _hashes(files, folder) if files else {}
        return Identity(hashes, {**_versions("diffusers", "torch"), "source": method.source})
    return Identity()


@cache
def _code() -> str:
    """SHA-256 of this package's code, but for the command line and evaluation: a checkout has no version of its own."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] not in ("cli", "evaluation"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def load_upscaler(method: Method, scale: int, device: torch.device) -> Upscale:
    """Load a method.

    Raises:
        ValueError: its files are damaged, of another kind or for another scale.
    """
    loaders = {
        **{"bicubic": _bicubic, "g": _pipeline, "upsr": _pipeline, "folder": _folder},
        **{"ncnn": _ncnn, "spandrel": _spandrel, "ldm": _ldm},
    }
    return loaders[method.kind](method, scale, device)


def finished_image(method: Method, name: str, kind: str, seed: int) -> Path:
    """Place of a result in a folder of finished images.

    Folders ``KIND/seed-SEED``, as the results of ``upsr evaluate`` have them, come before the folder itself.

    Raises:
        ValueError: nowhere.
    """
    folders = [Path(method.source, kind, f"seed-{seed}"), Path(method.source)]
    for folder in folders:
        path = find_image(folder, name)
        if path is not None:
            return path
    raise ValueError(f"{method.source}: holds no result {name}, neither there nor in {kind}/seed-{seed}; add it")


def _pipeline_folder(method: Method) -> Path:
    if not method.source:
        return BUNDLED_MODEL
    folder = Path(method.source)
    if (folder / "model_index.json").is_file():
        return folder
    if folder.exists() or method.source.count("/") != 1:
        raise ValueError(f"{method.source}: no such model folder (model_index.json is missing)")
    try:
        return Path(UPSRPipeline.download(method.source))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{method.source}: no such folder here, nor a model on the Hugging Face Hub ({one_line(error, 200)})"
        ) from error


def _hashes(files: list[Path], root: Path) -> dict[str, str]:
    if not files:
        raise ValueError(f"{root}: holds no weights")
    hashes = {}
    for path in files:
        hashes[path.relative_to(root).as_posix()] = file_sha256(path)
    return hashes


def _versions(*packages: str) -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in packages}


def _check_scale(method: Method, own: int, scale: int) -> None:
    if own != scale:
        raise ValueError(f"{method.source or method.label}: enlarges {own} times, not {scale}; give --scale {own}")


def _bicubic(method: Method, scale: int, device: torch.device) -> Upscale:
    """As papers have it: Keys' cubic with a = -0.5, which PyTorch has with antialiasing alone. Y has -0.75."""
    del method, device

    def run(lr: torch.Tensor, name: str, kind: str, seed: int) -> torch.Tensor:
        return F.interpolate(lr, scale_factor=scale, mode="bicubic", antialias=True, align_corners=False)

    return run


def _pipeline(method: Method, scale: int, device: torch.device) -> Upscale:
    pipe = load_pipeline(_pipeline_folder(method), device=device)
    pipe.set_progress_bar_config(disable=True)
    _check_scale(method, pipe.scale, scale)
    if method.kind == "g":
        return lambda lr, name, kind, seed: pipe.estimate_uncertainty(lr)[1].cpu()
    renamed = {"steps": "num_inference_steps", "tile": "tile_size"}
    sampling: dict[str, Any] = {renamed.get(key, key): value for key, value in method.options.items()}
    pipe.scheduler.set_timesteps(sampling.get("num_inference_steps"))  # refuses a number of steps before any work

    def run(lr: torch.Tensor, name: str, kind: str, seed: int) -> torch.Tensor:
        return upscale(pipe, lr, seed=seed, **sampling)[0]

    return run


def _ncnn(method: Method, scale: int, device: torch.device) -> Upscale:
    del device
    import ncnn

    param = Path(method.source)
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = torch.get_num_threads()
    if net.load_param(str(param)) != 0 or net.load_model(str(param.with_suffix(".bin"))) != 0:
        raise ValueError(f"{param}: ncnn cannot load it; get the pair .param and .bin again")
    inputs, outputs = net.input_names(), net.output_names()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(f"{param}: has inputs {inputs} and outputs {outputs}, but one image in and one out is needed")

    def run(lr: torch.Tensor) -> torch.Tensor:
        # ncnn.Mat only points to the array: it must live until the result is there.
        pixels = lr[0].contiguous().numpy()
        extractor = net.create_extractor()
        extractor.input(inputs[0], ncnn.Mat(pixels))
        code, result = extractor.extract(outputs[0])
        if code != 0:
            raise ValueError(f"{param}: ncnn stopped with code {code}")
        return torch.from_numpy(result.numpy().copy())[None]

    return _in_tiles(run, method, scale)


def _spandrel(method: Method, scale: int, device: torch.device) -> Upscale:
    import spandrel

    path = Path(method.source)
    try:
        model = spandrel.ModelLoader(device=device).load_from_file(path)
    except spandrel.UnsupportedModelError as error:
        raise ValueError(f"{path}: spandrel knows no architecture for it; give a checkpoint it supports") from error
    except Exception as error:  # whatever unpickling a file of another kind raises
        raise ValueError(f"{path}: cannot be loaded ({one_line(error, 200)})") from error
    if not isinstance(model, spandrel.ImageModelDescriptor) or model.input_channels != 3:
        raise ValueError(f"{path}: takes no RGB image to an RGB image; choose a super-resolution model")
    _check_scale(method, model.scale, scale)
    model.eval()

    @torch.no_grad()
    def run(lr: torch.Tensor) -> torch.Tensor:
        return model(lr.to(device)).float().cpu()

    return _in_tiles(run, method, scale)


def _ldm(method: Method, scale: int, device: torch.device) -> Upscale:
    from diffusers import LDMSuperResolutionPipeline

    _check_scale(method, 4, scale)
    try:
        pipe = LDMSuperResolutionPipeline.from_pretrained(method.source).to(device)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{method.source}: cannot be loaded as diffusers' LDM super-resolution ({one_line(error, 200)}); get "
            "CompVis/ldm-super-resolution-4x-openimages"
        ) from error
    pipe.set_progress_bar_config(disable=True)

    def run(lr: torch.Tensor, name: str, kind: str, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        arguments = {"num_inference_steps": method.options.get("steps", 100), "generator": generator}
        images = pipe(2 * lr.to(device) - 1, output_type="np", **arguments).images
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    return run


def _folder(method: Method, scale: int, device: torch.device) -> Upscale:
    del device

    def run(lr: torch.Tensor, name: str, kind: str, seed: int) -> torch.Tensor:
        path = finished_image(method, name, kind, seed)
        image = read_image(path).rgb
        expected = (scale * lr.shape[-2], scale * lr.shape[-1])
        if image.shape[-2:] != expected:
            size = f"{image.shape[-1]}x{image.shape[-2]}"
            raise ValueError(f"{path}: is {size}, but {expected[1]}x{expected[0]} is needed")
        return image

    return run


def _in_tiles(run: Callable[[torch.Tensor], torch.Tensor], method: Method, scale: int) -> Upscale:
    """``run`` on the whole image, or on tiles where the method is told their side."""
    side = method.options.get("tile", 0)

    def upscale_tiles(lr: torch.Tensor, name: str, kind: str, seed: int) -> torch.Tensor:
        height, width = lr.shape[-2:]
        if not side or max(height, width) <= side:
            return run(lr)
        image = lr.new_zeros(1, 3, scale * height, scale * width)
        for tile in plan_tiles(height, width, side, min(DEFAULT_TILE_OVERLAP, side // 2)):
            tile.add(image, run(lr[(..., *tile.slices())]), scale)
        return image

    return upscale_tiles
