"""Configurations, checkpoints and disks that the trainer must refuse by one line, or get over."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.hostile.image_files import encoded, holding
from tests.hostile.refusals import Row, contents, files_of_at_most, little_memory, nothing
from tests.hostile.test_model_folders import RunsCode
from tests.trainer.runs import write_denoiser_config
from trainer.output.atomic_folders import FILE_LIST
from trainer.output.checkpointing import list_checkpoints, read_progress
from trainer.train import main

Change = Callable[[Path], Any]
LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


def text(content: str | bytes) -> Change:
    """In the place of the configuration."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / "denoiser.yaml").write_bytes(data)


def added(content: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / "denoiser.yaml"
        path.write_text(path.read_text() + content)

    return change


def with_images(*makers: Change) -> Change:
    def make(folder: Path) -> None:
        (folder / "images").mkdir()
        for maker in makers:
            maker(folder / "images")

    return make


NUMBERS = {
    "unet_training.max_steps": (".nan", ".inf", "-1", "0", "0.5", "x", "null", "[1]"),
    "unet_training.batch_size": (".nan", ".inf", "-1", "0", "0.5", "x"),
    "unet_training.lr": (".nan", ".inf", "-1", "0", "x", "1e400"),
    "unet_training.max_grad_norm": (".nan", ".inf", "-1", "0", "x"),
    "unet_training.ema_decay": (".nan", ".inf", "-1", "1", "x"),
    "unet_training.weight_edits": (".nan", "2", "-1"),
    "unet_training.own_states": (".nan", "2", "-1"),
    "unet_training.perceptual_weight": (".nan", ".inf", "-1", "x"),
    "unet_training.adversarial_weight": (".nan", ".inf", "-1", "x"),
    "unet_training.missing_detail_weight": (".nan", ".inf", "-1", "x"),
    "unet_training.excess_detail_weight": (".nan", ".inf", "-1", "x"),
    "unet_training.grid_weight": (".nan", ".inf", "-1", "x"),
    "data.hr_size": (".nan", ".inf", "-32", "0", "33", "x", "1e30"),
    "data.pool_size": (".nan", "-1", "0.5", "1"),
    "data.num_workers": (".inf", "-1", "x"),
    "data.shrink": (".nan", "0", "2"),
    "data.lettering": (".nan", "2", "-1"),
    "scale": (".nan", "3", "-4", "x", "1e30"),
    "seed": (".nan", "-1", "0.5", "x"),
    "log_every": (".nan", "0", "-1"),
    "checkpoints_total_limit": ("0", "-1", "x"),
}
CONFIGURATIONS = [
    Row("missing", lambda f: (f / "denoiser.yaml").unlink(), [], "denoiser.yaml: cannot be read"),
    Row("empty", text(""), [], "denoiser.yaml: must hold keys and values"),
    Row("a list", text("[1, 2]"), [], "denoiser.yaml: must hold keys and values"),
    Row("no YAML", text("a: [1"), [], "denoiser.yaml: not YAML"),
    Row("bytes", text(b"\xff\xfe\0\1"), [], "denoiser.yaml: "),
    Row("runs code", text("a: !!python/object/apply:os.mkdir [ran]"), [], "denoiser.yaml: not YAML"),
    Row("nested deeply", text("[" * 50_000), [], "denoiser.yaml: not YAML"),
    Row("billion laughs", text(LAUGHS + "output_dir: *a11\n"), [], "not YAML: aliases such as *name repeat"),
    Row(
        "billion laughs as a value",
        added("\nseed: 1\n" + f"output_dir: [{LAUGHS[4:60]}"),
        [],
        "denoiser.yaml: not YAML",
    ),
    Row("refers to itself", text("&a [*a]"), [], "denoiser.yaml: not YAML: aliases such as *name repeat"),
    Row("is its own base", added("\nbase: denoiser.yaml\n"), [], "denoiser.yaml: is its own base"),
    Row("base is missing", added("\nbase: none.yaml\n"), [], "none.yaml: cannot be read"),
    Row("unknown key", nothing, ["surprise=1"], "surprise: no such key"),
    Row("unknown key inside", nothing, ["unet.surprise=1"], "unet.surprise: no such key"),
    Row("section is a number", nothing, ["data=7"], "data: must be a section"),
    Row("no override", nothing, ["--resume", "latest", "surprise"], "an override must read key=value"),
    Row("a key is a number", added("\n7: 8\n"), [], "7: no such key"),
    *(
        Row(f"{key}={value}", nothing, [f"{key}={value}"], key.split(".")[-1])
        for key, values in NUMBERS.items()
        for value in values
    ),
    Row("absurd batch", nothing, ["unet_training.batch_size=1000000000000"], "batch_size"),
    Row("absurd width", nothing, ["unet.model_channels=1000000000"], "unet: model_channels must hold whole numbers"),
    Row("absurd ratio", nothing, ["unet.mlp_ratio=1e9"], "unet: mlp_ratio must be a number"),
    Row("odd width", nothing, ["unet.model_channels=33"], "unet: model_channels"),
    Row("kappa below 0", nothing, ["scheduler.kappa=-1"], "scheduler: kappa must be above 0"),
    Row("g is missing", nothing, ["sr_net_from=none"], "none: holds no sr_net"),
    Row("no photos", nothing, ["data.train_dir=none"], "data.train_dir: none: no such folder"),
    Row(
        "photos are a file", nothing, ["data.train_dir=denoiser.yaml"], "data.train_dir: denoiser.yaml: no such folder"
    ),
    Row("empty folder", with_images(), ["data.train_dir=images"], "data.train_dir: images: no images in it"),
    Row("no shards", nothing, ["data.train_dir=null", "data.train_shards=none.tar"], "data.train_shards: "),
    Row("no held-out photos", nothing, ["data.val_dir=none"], "data.val_dir: none: no such folder"),
    Row("weights are missing", nothing, ["init_from=none"], "init_from: none: no such model folder"),
    Row("weights of code", lambda f: torch.save(RunsCode(), f / "a.pth"), ["init_from=a.pth,a.pth"], "a.pth: refused"),
    Row("results in a file", nothing, ["output_dir=denoiser.yaml"], "output_dir denoiser.yaml: cannot be created"),
    Row("results below a file", nothing, ["output_dir=denoiser.yaml/run"], "output_dir denoiser.yaml/run: cannot be"),
    Row("results in /dev/full", nothing, ["output_dir=/dev/full"], "output_dir /dev/full: cannot be created"),
    Row("nothing to resume", nothing, ["--resume", "latest"], "holds no checkpoint; leave out --resume"),
    Row("resume from nothing", nothing, ["--resume", "none"], "none: is no checkpoint of this trainer"),
    Row("resume from photos", nothing, ["--resume", "photos"], "photos: is no checkpoint of this trainer"),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with its photos and g."""
    folder = tmp_path_factory.mktemp("sound")
    path = write_denoiser_config(folder)
    relative = {"output_dir": "run", "sr_net_from": "g"}
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, **relative, "data": {**content["data"], "train_dir": "photos"}}))
    return folder


@pytest.fixture
def here(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith(("train.py: ", "Traceback"))]


@pytest.mark.parametrize("row", CONFIGURATIONS, ids=str)
def test_refused_by_one_line(row: Row, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row.make(here)
    before = contents(here)
    with little_memory():
        assert main(["--config", "denoiser.yaml", *row.arguments]) == 2
    (line,) = errors(capsys)
    assert line.startswith("train.py: error: ")
    assert len(line) < 700
    assert row.expected in line
    assert contents(here) == before, "nothing written, no code run"


@pytest.mark.parametrize("name", ["empty", "half", "random", "other"])
def test_a_damaged_photo_is_named(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = encoded("PNG")
    content = {"empty": b"", "half": data[: len(data) // 2], "random": bytes(range(256)) * 20, "other": b"%PDF-1.7"}
    with_images(holding("bad.png", content[name]))(here)
    assert main(["--config", "denoiser.yaml", "data.train_dir=images"]) == 2
    (line,) = errors(capsys)
    assert "none of the 1 images that were tried can be read" in line
    assert "images/bad.png: " in line


# Checkpoints


@pytest.fixture(scope="module")
def two_checkpoints(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("two") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(sound)
        limits = ["checkpoint_every=1", "unet_training.max_steps=2", "log_every=100"]
        assert main(["--config", "denoiser.yaml", f"output_dir={folder}", *limits]) == 0
    return folder


def checkpoint_of(run: Path, step: int) -> Path:
    return run / "checkpoints" / "unet" / f"step-{step:08d}"


def with_file(name: str, change: Callable[[bytes], bytes | None]) -> Change:
    def damage(checkpoint: Path) -> None:
        data = change((checkpoint / name).read_bytes())
        (checkpoint / name).unlink() if data is None else (checkpoint / name).write_bytes(data)

    return damage


DAMAGES = [
    Row(
        "half the weights", with_file("model.safetensors", lambda d: d[: len(d) // 2]), None, "model.safetensors is not"
    ),
    Row(
        "a byte of the weights",
        with_file("model.safetensors", lambda d: d[:-1] + b"?"),
        None,
        "model.safetensors is not",
    ),
    Row("no weights", with_file("model.safetensors", lambda d: None), None, "model.safetensors: No such file"),
    Row("empty optimiser", with_file("optimizer.bin", lambda d: b""), None, "optimizer.bin is not as it was written"),
    Row(
        "zeros for the averages",
        with_file("custom_checkpoint_0.pkl", lambda d: bytes(len(d))),
        None,
        "custom_checkpoint",
    ),
    Row(
        "no random states", with_file("random_states_0.pkl", lambda d: None), None, "random_states_0.pkl: No such file"
    ),
    Row("empty progress", with_file("trainer_state.json", lambda d: b""), None, "trainer_state.json is not"),
    Row("list of bytes", with_file(FILE_LIST, lambda d: b"\xff\xfe"), None, f"{FILE_LIST} cannot be read"),
    Row("list cut", with_file(FILE_LIST, lambda d: d.split(b"\n", 2)[0] + b"\n"), None, "model.safetensors is not in"),
]


@pytest.mark.parametrize("row", DAMAGES, ids=str)
def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_taken(
    row: Row, here: Path, two_checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = shutil.copytree(two_checkpoints, here / "run")
    newest = checkpoint_of(run, 2)
    row.make(newest)
    limits = ["checkpoint_every=1", "checkpoints_total_limit=1", "unet_training.max_steps=3"]
    with caplog.at_level(logging.INFO, "trainer"):
        assert main(["--config", "denoiser.yaml", "--resume", "latest", *limits]) == 0
    messages = [record.getMessage() for record in caplog.records]
    relative = newest.relative_to(here)
    assert any(line.startswith(f"{relative}: is damaged ({row.expected}") for line in messages), messages
    assert f"unet 1: resumed from {checkpoint_of(run, 1).relative_to(here)}" in messages
    assert [read_progress(path).step for path in list_checkpoints(newest.parent)] == [3]
    assert newest.with_name(newest.name + ".damaged").is_dir()


@pytest.mark.parametrize("row", DAMAGES[::3], ids=str)
def test_a_damaged_checkpoint_that_is_named_is_refused(
    row: Row, here: Path, two_checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = checkpoint_of(shutil.copytree(two_checkpoints, here / "run"), 2)
    row.make(newest)
    before = contents(here)
    assert main(["--config", "denoiser.yaml", "--resume", str(newest)]) == 2
    (line,) = errors(capsys)
    assert f"{newest}: is damaged ({row.expected}" in line
    assert contents(here) == before


def test_where_all_are_damaged_nothing_is_started_anew(
    here: Path, two_checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(two_checkpoints, here / "run")
    for step in (1, 2):
        DAMAGES[0].make(checkpoint_of(run, step))
    assert main(["--config", "denoiser.yaml", "--resume", "latest"]) == 2
    (line,) = errors(capsys)
    assert "step-00000001: is damaged, and there is none before; delete it to start the stage anew" in line


@pytest.mark.parametrize("name", ["custom_checkpoint_0.pkl", "optimizer.bin", "scheduler.bin", "random_states_0.pkl"])
def test_a_checkpoint_never_runs_code(
    name: str, here: Path, two_checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One from elsewhere, whose list of files is right or missing."""
    newest = checkpoint_of(shutil.copytree(two_checkpoints, here / "run"), 2)
    (newest / FILE_LIST).unlink()
    torch.save({"weights": RunsCode()}, newest / name)
    main(["--config", "denoiser.yaml", "--resume", "latest", "unet_training.max_steps=3"])
    assert not (here / "ran").exists()
    assert "Traceback" not in capsys.readouterr().err


# Full disks


@pytest.mark.parametrize("share", [0.5, 0.9, 1.5])
def test_a_full_disk_leaves_the_older_checkpoint_and_model(
    share: float, here: Path, two_checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the weights, and at the optimiser's state, which is twice as large."""
    run = shutil.copytree(two_checkpoints, here / "run")
    before = contents(run / "checkpoints"), contents(run / "model")
    size = (checkpoint_of(run, 2) / "model.safetensors").stat().st_size
    with files_of_at_most(int(share * size)):
        assert (
            main(["--config", "denoiser.yaml", "--resume", "latest", "unet_training.max_steps=3", "trackers=[]"]) == 1
        )
    (line,) = errors(capsys)
    assert "cannot be written (" in line
    assert line.endswith("free some space, then resume")
    assert contents(run / "checkpoints") == before[0]
    # Without held-out photos the model is exported before the checkpoint, and whole where it fits.
    assert contents(run / "model") == before[1] or share > 1
    assert not list(run.rglob("*.partial"))
    assert main(["--config", "denoiser.yaml", "--resume", "latest", "unet_training.max_steps=3", "trackers=[]"]) == 0
