"""Checkpoints and configurations that the converter is given, and where it is to write."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.hostile.image_files import deflated_zeros
from tests.hostile.refusals import Row, contents, files_of_at_most, little_memory, nothing
from tests.hostile.test_model_folders import RunsCode
from upsr_core.cli.main import main

DENOISER, SR_NET, CONFIG = "denoiser.safetensors", "sr_net.safetensors", "config.json"
USUAL = ["convert", DENOISER, SR_NET, "out", "--config", CONFIG]
Change = Callable[[Path], Any]


def checkpoint(content: Any, **options: Any) -> Change:
    return lambda folder: torch.save(content, folder / "a.pth", **options)


def data(content: bytes, name: str = "a.pth") -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def of(name: str = "a.pth") -> list[str]:
    """The arguments with this file as the denoiser."""
    return ["convert", name, *USUAL[2:]]


def zip_bomb(folder: Path) -> None:
    """A .pth whose pickle unpacks to gigabytes."""
    bomb, name = deflated_zeros(2048)[2:-4], b"archive/data.pkl"
    about = struct.pack("<HHHIIIIHH", 20, 0, 8, 0, 0, len(bomb), 2**31, len(name), 0)
    local = b"PK\3\4" + about + name + bomb
    entry = b"PK\1\2\24\0" + about + bytes(14) + name
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local), 0)
    (folder / "a.pth").write_bytes(local + entry + end)


def overlapping(folder: Path) -> None:
    """A .pth whose directory names the same megabyte a thousand times."""
    with zipfile.ZipFile(folder / "a.pth", "w") as archive:
        archive.writestr("archive/data/0", bytes(2**20))
        archive.filelist *= 1000


def huge_storage(folder: Path) -> None:
    """In the older format, whose head says how much is to be set aside."""
    torch.save({"a": torch.zeros(8)}, folder / "a.pth", _use_new_zipfile_serialization=False)
    content = (folder / "a.pth").read_bytes()
    (folder / "a.pth").write_bytes(content.replace(b"K\x08N", b"J\xff\xff\xff\x7fN"))


def changed_weights(edit: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    def change(folder: Path) -> None:
        state = load_file(folder / DENOISER)
        edit(state)
        save_file(state, folder / DENOISER)

    return change


def config(text: str | None = None, **sections: Any) -> Change:
    """The configuration with changes to its sections, or this text."""

    def change(folder: Path) -> None:
        content = json.loads((folder / CONFIG).read_text())
        for name, value in sections.items():
            content[name] = {**content[name], **value} if isinstance(value, dict) else value
        (folder / CONFIG).write_text(json.dumps(content) if text is None else text)

    return change


REFUSED, NO_STATE, DOES_NOT_FIT = "a.pth: refused, ", "a.pth: holds no state dict", "does not fit UPSRUNet"
INF, NAN = float("inf"), float("nan")
ROWS = [
    Row("missing", nothing, of(), "a.pth: no such checkpoint file"),
    Row("a folder", lambda f: (f / "a.pth").mkdir(), of(), "a.pth: no such checkpoint file"),
    Row("empty", data(b""), of(), "a.pth: not a readable checkpoint"),
    Row("empty safetensors", data(b"", "a.safetensors"), of("a.safetensors"), "a.safetensors: not a readable"),
    Row("random bytes", data(bytes(range(256)) * 9), of(), "a.pth: "),
    Row("text", data(b"version https://git-lfs.github.com/spec/v1\n"), of(), "a.pth: "),
    Row("web page", data(b"<!DOCTYPE html>" * 9), of(), "a.pth: "),
    Row("an archive of nothing", data(b"PK\5\6" + bytes(18)), of(), REFUSED),
    Row("runs code", checkpoint({"params": RunsCode()}), of(), REFUSED),
    Row("runs code, older format", checkpoint(RunsCode(), _use_new_zipfile_serialization=False), of(), REFUSED),
    Row("runs code, plain pickle", data(pickle.dumps(RunsCode())), of(), REFUSED),
    Row("runs code, called safetensors", data(pickle.dumps(RunsCode()), "a.safetensors"), of("a.safetensors"), "a.saf"),
    Row("whole model", checkpoint(torch.nn.Linear(2, 2)), of(), REFUSED),
    Row("zip bomb", zip_bomb, of(), "its parts are compressed"),
    Row("zip bomb of one part", overlapping, of(), "its parts are larger than itself"),
    Row("gigabytes said", huge_storage, of(), "a.pth: not a readable checkpoint"),
    Row("nested deeply", data(b"\x80\2" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."), of(), "a.pth: "),
    Row("a list", checkpoint([torch.ones(1)]), of(), NO_STATE),
    Row("a number", checkpoint(7), of(), NO_STATE),
    Row("no tensors", checkpoint({"params": {"a": 1}}), of(), NO_STATE),
    Row("other weights", checkpoint({"a": torch.ones(1)}), of(), DOES_NOT_FIT),
    Row("keys that are no text", checkpoint({1: torch.ones(1)}), of(), DOES_NOT_FIT),
    Row("a huge view", checkpoint({"a": torch.ones(1).expand(10**6, 10**6)}), of(), DOES_NOT_FIT),
    Row("exchanged", nothing, ["convert", SR_NET, DENOISER, *USUAL[3:]], DOES_NOT_FIT),
    Row("twice the same", nothing, ["convert", DENOISER, DENOISER, *USUAL[3:]], "does not fit ATDModel"),
    Row("one is missing", changed_weights(lambda s: s.popitem()), USUAL, "missing key"),
    Row("one too many", changed_weights(lambda s: s.update(a=torch.ones(1))), USUAL, "unknown key a"),
    Row("NaN", changed_weights(lambda s: s[min(s)].fill_(NAN)), USUAL, "NaN"),
    Row("complex", changed_weights(lambda s: s.update({min(s): s[min(s)] * 1j})), USUAL, "complex"),
    Row("without --config", nothing, USUAL[:4], DOES_NOT_FIT),
    Row("no config", nothing, [*USUAL[:5], "none.json"], "none.json: no such configuration file"),
    Row("config is a folder", lambda f: (f / "c").mkdir(), [*USUAL[:5], "c"], "c: "),
    Row("config is no JSON", config("{,}"), USUAL, "config.json: not a JSON file"),
    Row("config of bytes", data(b"\xff\xfe\0", CONFIG), USUAL, "config.json: not a JSON file"),
    Row("config is a list", config("[]"), USUAL, "config.json: must hold a JSON object"),
    Row("config nested deeply", config("[" * 10**5), USUAL, "config.json: not a JSON file"),
    Row("config with a huge number", config('{"a": ' + "9" * 10**5 + "}"), USUAL, "config.json: not a JSON file"),
    Row("config without a section", config('{"denoiser": {}}'), USUAL, "section"),
    Row("section is a number", config(denoiser=7), USUAL, "configuration denoiser"),
    Row("section is null", config(sr_net=None), USUAL, "configuration sr_net"),
    Row("section is a list", config(diffusion=[1]), USUAL, "configuration diffusion"),
    Row("parameters are text", config(diffusion={"params": "x"}), USUAL, "configuration diffusion.params"),
    Row("unknown key", config(denoiser={"surprise": 1}), USUAL, "unknown key 'surprise'"),
    Row("width is text", config(denoiser={"model_channels": "32"}), USUAL, "model_channels"),
    Row("width is absurd", config(denoiser={"model_channels": 10**9}), USUAL, "model_channels"),
    Row("channels are text", config(denoiser={"in_channels": "48"}), USUAL, "in_channels"),
    Row("channels are absurd", config(denoiser={"in_channels": 48 * 10**9}), USUAL, "in_channels"),
    Row("levels are a number", config(denoiser={"channel_mult": 2}), USUAL, "channel_mult"),
    Row("levels are null", config(denoiser={"channel_mult": None}), USUAL, "channel_mult"),
    Row("resolutions are a number", config(denoiser={"attention_resolutions": 8}), USUAL, "attention_resolutions"),
    Row("scale is text", config(sr_net={"upscale": "4"}), USUAL, "scale"),
    Row("ratio is infinite", config(sr_net={"mlp_ratio": INF}), USUAL, "mlp_ratio"),
    Row("kappa is NaN", config(diffusion={"params": {"kappa": NAN}}), USUAL, "kappa"),
    Row("steps are absurd", config(diffusion={"params": {"steps": 10**12}}), USUAL, "num_train_timesteps"),
    Row("out is a file", data(b"mine", "out"), USUAL, "out: exists already"),
    Row("out is in use", lambda f: (f / "out/mine").mkdir(parents=True), USUAL, "out: exists already"),
    Row("out is below a file", data(b"mine", "x"), [*USUAL[:3], "x/out", *USUAL[4:]], "x"),
    Row("out is an input", nothing, [*USUAL[:3], DENOISER, *USUAL[4:]], f"{DENOISER}: exists already"),
    Row("out is empty", nothing, [*USUAL[:3], "", *USUAL[4:]], "a PATH is empty"),
    Row("out is /dev/full", nothing, [*USUAL[:3], "/dev/full", *USUAL[4:]], "/dev/full: exists already"),
    Row("out has too long a name", nothing, [*USUAL[:3], "b" * 300, *USUAL[4:]], "File name too long"),
    Row("too few", nothing, ["convert", DENOISER], "convert takes DENOISER SR_NET OUT"),
    Row("too many", nothing, ["convert", *"abcd"], "convert takes DENOISER SR_NET OUT"),
    Row("back without a folder", nothing, ["convert", "--to-published", "none", "out"], "none: no such model folder"),
    Row("back from a file", nothing, ["convert", "--to-published", DENOISER, "out"], "no such model folder"),
    Row("back from too much", nothing, ["convert", "--to-published", *"abc"], "--to-published takes FOLDER OUT"),
]


@pytest.fixture
def here(golden_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sound pair of checkpoints and their configuration."""
    for name, path in golden_files.items():
        (tmp_path / {"denoiser": DENOISER, "sr_net": SR_NET, "config": CONFIG}[name]).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_refused_by_one_line(row: Row, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row.make(here)
    before = contents(here)
    with little_memory():
        status = main(row.arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2
    assert line.startswith("upsr: error: ")
    assert len(line) < 700
    assert row.expected in line
    assert contents(here) == before, "nothing written, no code run"


@pytest.mark.parametrize("direction", ["to ours", "to published"])
def test_a_full_disk_leaves_no_half_model(direction: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if direction == "to published":
        assert main(USUAL) == 0
        capsys.readouterr()
        (here / "out").rename(here / "model")
    command = USUAL if direction == "to ours" else ["convert", "--to-published", "model", "out"]
    before = contents(here)
    # Enough for all but the larger weights, which come second or first.
    with files_of_at_most(max(weights_sizes(here)) - 10_000):
        status = main(command)
    assert status == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    line = err.strip()
    assert line.startswith("upsr: error: out: cannot be written (")
    assert line.endswith("); free some space or write elsewhere")
    assert contents(here) == before


def weights_sizes(folder: Path) -> list[int]:
    return [(folder / name).stat().st_size for name in (DENOISER, SR_NET)]
