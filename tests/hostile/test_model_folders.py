"""Model folders that were cut, altered, or made to do harm."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.hostile.refusals import Row, contents, little_memory
from upsr_core import load_pipeline
from upsr_core.cli.main import main

WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = "model_index.json"
Change = Callable[[Path], Any]


class RunsCode:
    """Touches a file named ``ran`` where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, ("ran",)


def text(file: str, content: str) -> Change:
    return lambda folder: (folder / file).write_text(content)


def altered(file: str, **changes: Any) -> Change:
    """Changes values of a JSON file; None as a value of ``...`` removes the key."""

    def change(folder: Path) -> None:
        content = {**json.loads((folder / file).read_text()), **changes}
        (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))

    return change


def shortened(file: str, share: float) -> Change:
    def change(folder: Path) -> None:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[: int(share * len(data))])

    return change


def tensors(part: str, edit: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    """Changes the weights of a network."""

    def change(folder: Path) -> None:
        state = load_file(folder / part / WEIGHTS)
        edit(state)
        save_file(state, folder / part / WEIGHTS)

    return change


def said(header: dict[str, Any] | bytes, length: int | None = None) -> Change:
    """Weights whose head says this."""

    def change(folder: Path) -> None:
        head = header if isinstance(header, bytes) else json.dumps(header).encode()
        size = len(head) if length is None else length
        (folder / "unet" / WEIGHTS).write_bytes(struct.pack("<Q", size) + head + bytes(100))

    return change


def pickled(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    (folder / "unet" / WEIGHTS).with_suffix(".bin").write_bytes(pickle.dumps({"conv_in.weight": RunsCode()}))


def with_code(folder: Path, **changes: Any) -> None:
    """Brings Python files along, as some repositories do."""
    code = "import os\nos.mkdir('ran')\nclass UPSRPipeline:\n    pass\nclass UPSRUNet:\n    pass\n"
    for name in ("pipeline.py", "evil.py", "unet/evil.py", "unet/modeling.py", "upsr_core.py"):
        (folder / name).write_text(code)
    altered(INDEX, **changes)(folder)


def gone(name: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


FEW = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
MANY = 10**12
CANNOT = "cannot be loaded as a UPSR model: "
UNET, ATD = "unet/config.json", "sr_net/config.json"
SCHEDULER = "scheduler/scheduler_config.json"

ROWS = [
    Row("no index", gone(INDEX), (), "no such model folder (model_index.json is missing)"),
    Row("empty index", text(INDEX, ""), (), CANNOT),
    Row("index is no JSON", text(INDEX, "{"), (), CANNOT),
    Row("index is a list", text(INDEX, "[]"), (), CANNOT),
    Row("index is a number", text(INDEX, "7"), (), CANNOT),
    Row("index nested deeply", text(INDEX, "[" * 100_000), (), CANNOT),
    Row("index of bytes", lambda f: (f / INDEX).write_bytes(b"\xff\xfe\0"), (), CANNOT),
    Row("index without the denoiser", altered(INDEX, unet=...), (), "unet"),
    Row("denoiser is null", altered(INDEX, unet=[None, None]), (), "unet"),
    Row("denoiser is text", altered(INDEX, unet="UPSRUNet"), (), CANNOT),
    Row("foreign class", altered(INDEX, unet=["os", "system"]), (), CANNOT),
    Row("foreign module", altered(INDEX, unet=["subprocess", "Popen"]), (), CANNOT),
    Row("diffusers' own class", altered(INDEX, unet=["diffusers", "UNet2DModel"]), (), CANNOT),
    Row("networks exchanged", altered(INDEX, unet=["upsr_core", "ATDModel"]), (), CANNOT),
    Row("class there is not", altered(INDEX, unet=["upsr_core", "Nothing"]), (), CANNOT),
    Row("pipeline of a .py file", lambda f: with_code(f, _class_name=["pipeline", "UPSRPipeline"]), (), CANNOT),
    Row("denoiser of a .py file", lambda f: with_code(f, unet=["evil", "UPSRUNet"]), (), CANNOT),
    Row("denoiser of its .py file", lambda f: with_code(f, unet=["modeling", "UPSRUNet"]), (), CANNOT),
    Row("no denoiser", gone("unet"), (), CANNOT),
    Row("no configuration", gone(UNET), (), CANNOT),
    Row("configuration is no JSON", text(UNET, "{,}"), (), CANNOT),
    Row("configuration is a list", text(UNET, "[1]"), (), CANNOT),
    Row("configuration nested deeply", text(UNET, '{"a":' * 100_000), (), CANNOT),
    Row("unknown key", altered(UNET, surprise=1), (), "surprise"),
    Row("unknown key of g", altered(ATD, surprise=1), (), "surprise"),
    Row("unknown key of the schedule", altered(SCHEDULER, surprise=1), (), "surprise"),
    Row("text for a number", altered(UNET, mlp_ratio="4"), (), "mlp_ratio"),
    Row("no number", altered(UNET, mlp_ratio=float("nan")), (), "mlp_ratio"),
    Row("absurd ratio", altered(UNET, mlp_ratio=1e9), (), "mlp_ratio"),
    Row("negative ratio", altered(UNET, mlp_ratio=-1), (), "mlp_ratio"),
    Row("absurd ratio of g", altered(ATD, mlp_ratio=1e9), (), "mlp_ratio"),
    Row("infinite ratio of g", altered(ATD, mlp_ratio=float("inf")), (), "mlp_ratio"),
    Row("range of g is 0", altered(ATD, img_range=0), (), "img_range"),
    Row("range of g is no number", altered(ATD, img_range=float("nan")), (), "img_range"),
    Row("dropout above 1", altered(UNET, dropout=7), (), "dropout"),
    Row("absurd width", altered(UNET, model_channels=10**9), (), "model_channels must hold whole numbers"),
    Row("absurd depth", altered(ATD, depths=[64] * 10_000, num_heads=[2] * 10_000), (), "depths has 10000 entries"),
    Row("absurd depth and window", altered(ATD, depths=[64, 64], window_size=64), (), "window_size must be at most 26"),
    Row("as deep as may be", altered(UNET, channel_mult=[16] * 16, num_res_blocks=[32] * 16), (), CANNOT),
    Row("absurd window", altered(UNET, window_size=256), (), "window_size"),
    Row("absurd window of g", altered(ATD, window_size=256), (), "window_size"),
    Row("kappa is text", altered(SCHEDULER, kappa="much"), (), "kappa"),
    Row("kappa is infinite", altered(SCHEDULER, kappa=float("inf")), (), "kappa"),
    Row("kappa is null", altered(SCHEDULER, kappa=None), (), "kappa"),
    Row("power is infinite", altered(SCHEDULER, power=float("inf")), (), "power"),
    Row("input_variance is infinite", altered(SCHEDULER, input_variance=float("inf")), (), "input_variance"),
    Row("steps without end", altered(SCHEDULER, num_train_timesteps=10**12), (), "num_train_timesteps"),
    Row("no schedule", gone("scheduler"), (), CANNOT),
    Row("networks of two scales", altered(ATD, scale=2), (), CANNOT),
    Row("no weights", gone(f"unet/{WEIGHTS}"), (), CANNOT),
    Row("empty weights", shortened(f"unet/{WEIGHTS}", 0), (), CANNOT),
    Row("half the weights", shortened(f"unet/{WEIGHTS}", 0.5), (), CANNOT),
    Row("head of the weights", shortened(f"sr_net/{WEIGHTS}", 0.01), (), CANNOT),
    Row("a weight is missing", tensors("unet", lambda s: s.pop("conv_in.bias")), (), "conv_in.bias"),
    Row("a weight too many", tensors("unet", lambda s: s.update(surprise=torch.ones(1))), (), "surprise"),
    Row("misshapen", tensors("unet", lambda s: s.update({"conv_in.bias": torch.ones(7)})), (), "conv_in.bias"),
    Row("of another rank", tensors("unet", lambda s: s.update({"conv_in.bias": torch.ones(32, 1)})), (), "conv_in"),
    Row("huge tensor said", said({"a": {**FEW, "shape": [MANY], "data_offsets": [0, 4 * MANY]}}), (), CANNOT),
    Row("tensors over each other", said({"a": FEW, "b": FEW}), (), CANNOT),
    Row("tensor before the file", said({"a": {**FEW, "data_offsets": [-4, 0]}}), (), CANNOT),
    Row("huge head said", said(b"{}", length=2**62), (), CANNOT),
    Row("head is no JSON", said(b"nonsense"), (), CANNOT),
    Row("head nested deeply", said(b"[" * 90_000), (), CANNOT),
    Row("pickle that runs code", pickled, (), CANNOT),
]


def damaged(row: Row, model: Path, folder: Path) -> Path:
    return_to = shutil.copytree(model, folder / "model")
    row.make(return_to)
    return return_to


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_python_gets_one_line(row: Row, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = damaged(row, tiny_folder, tmp_path)
    with little_memory(), pytest.raises(ValueError, match="model") as caught:
        load_pipeline(folder)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 900
    assert row.expected in line
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "no code was run"


@pytest.mark.parametrize("row", ROWS[::8], ids=str)
def test_the_command_line_gets_one_line(
    row: Row, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    damaged(row, tiny_folder, tmp_path)
    before = contents(tmp_path)
    for command in (["info", "model"], ["convert", "--to-published", "model", "out"]):
        assert main(command) == 2
        # diffusers may have warned before.
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("upsr: ")]
        assert len(lines) == 1
        assert row.expected in lines[0]
    assert contents(tmp_path) == before


def test_weights_of_nan_are_blamed(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    tensors("unet", lambda state: state["conv_in.bias"].fill_(float("nan")))(folder)
    pipe = load_pipeline(folder)
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match="UPSRUNet gives NaN or infinity in float32, too: its weights are damaged"):
        pipe(torch.full((1, 3, 9, 9), 0.5))
