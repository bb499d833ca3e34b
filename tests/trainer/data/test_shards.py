"""WebDataset shards: the same images, order and resume as from a folder."""

from __future__ import annotations

import logging
import os
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.photo_files import levels, make_old, png, write_tar
from tests.trainer.runs import write_config
from trainer.data.batches import Batches
from trainer.data.config import DataConfig
from trainer.data.crops import CropDataset
from trainer.data.sources.file_index import WORTH_KEEPING, index_folder
from trainer.data.sources.image_folders import FolderSource
from trainer.data.sources.shards import ShardSource, find_shards
from trainer.train import main


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return index_folder()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of three samples each, with labels; one image of the second is broken."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(2):
        members = {}
        for i in range(3):
            members[f"{shard}/{i}.jpg.cls"] = b"7"
            members[f"{shard}/{i}.png"] = b"broken" if (shard, i) == (1, 1) else png(40, 50, 10 * (3 * shard + i))
        write_tar(folder / f"photos-{shard:03d}.tar", members)
    return folder


def stream(shards: str, start: int, num_workers: int = 0, rank: int = 0, world_size: int = 1):  # type: ignore[no-untyped-def]
    data = DataConfig(train_shards=shards, hr_size=24, preset="bicubic", num_workers=num_workers)
    return Batches(
        data, ShardSource(str(data.train_shards)), 4, 2, 3, torch.device("cpu"), rank, world_size
    ).from_micro_step(start)


def test_shards_give_what_a_folder_of_their_photos_gives(shards: Path, tmp_path: Path) -> None:
    for tar in shards.iterdir():
        with tarfile.open(tar) as opened:
            opened.extractall(tmp_path / "unpacked", filter="data")
    unpacked, source = FolderSource(tmp_path / "unpacked"), ShardSource(str(shards))
    assert len(source) == len(unpacked) == 6
    assert source.name(4) == str(shards / "photos-001.tar" / "1" / "1.png")
    first, second = CropDataset(source, 24, 4), CropDataset(unpacked, 24, 4)
    for i in range(12):
        assert torch.equal(first[i]["hr"], second[i]["hr"])
    assert first.num_skipped == second.num_skipped == 1
    assert {int(levels(first[i])[2, 0, 0]) for i in range(6)} == {0, 10, 20, 30, 50}


def test_a_stream_of_shards_goes_on_exactly_where_it_was_left(shards: Path) -> None:
    pattern = str(shards / "photos-{000..001}.tar")
    whole, resumed = stream(pattern, 0), stream(pattern, 10, num_workers=2)
    expected = [next(whole) for _ in range(20)][10:]
    for pair in expected:
        assert all(torch.equal(a, b) for a, b in zip(pair, next(resumed), strict=True))


def test_twenty_steps_are_ten_and_a_resume_and_ten(shards: Path, tmp_path: Path) -> None:
    data = {"train_shards": str(shards), "preset": "mild", "pool_size": 3}
    common = ["--config", str(write_config(tmp_path / "shards.yaml", None, stage="sr_net", data=data))]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert main([*common, f"output_dir={whole}", "sr_net_training.max_steps=20"]) == 0
    assert main([*common, f"output_dir={halves}", "sr_net_training.max_steps=10"]) == 0
    resumed = [*common, f"output_dir={halves}", "data.num_workers=2", "--resume", "latest"]
    assert main([*resumed, "sr_net_training.max_steps=20"]) == 0
    for name in ("model_last/sr_net/diffusion_pytorch_model", "checkpoints/sr_net/step-00000020/model"):
        first, second = (load_file(run / f"{name}.safetensors") for run in (whole, halves))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_processes_share_out_the_photos_of_shards(shards: Path) -> None:
    seen = []
    for rank in range(2):
        part = stream(str(shards), 0, rank=rank, world_size=2)
        seen += [levels({"hr": image})[2, 0, 0] for _ in range(3) for image in next(part)[1]]
    # Two passes of six, in which the broken image's successor takes its place.
    assert sorted(seen) == sorted([0, 10, 20, 30, 50, 50] * 2)


def test_patterns_name_shards(tmp_path: Path) -> None:
    for name in ("a-08.tar", "a-09.tar", "a-10.tar", "b-08.tar", "other.txt"):
        (tmp_path / name).touch()

    def found(pattern: str) -> list[str]:
        return [os.path.basename(path) for path in find_shards(str(tmp_path / pattern))]

    assert found("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert found("{b,a}-{08..08}.tar") == ["b-08.tar", "a-08.tar"]
    assert found("*-08.tar") == ["a-08.tar", "b-08.tar"]
    assert found("") == ["a-08.tar", "a-09.tar", "a-10.tar", "b-08.tar"]
    assert found("b-08.tar") == ["b-08.tar"]


def test_a_folder_of_the_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_shards("~/shards") == [str(tmp_path / "shards" / "a.tar")]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("photos-{000..002}.tar", r"photos-002\.tar: no such shard$"),
        ("x-*.tar", r"x-\*\.tar: no such shards$"),
        ("photos-{001..000}.tar", "counts down"),
        ("packed.tar", r"packed\.tar: cannot be used as a plain tar file .*unpack it"),
        ("cut.tar", r"cut\.tar: cannot be used as a plain tar file .*fetch it again"),
        ("twice.tar", r"sample 1 holds two images, 1\.lr\.png and 1\.hr\.png"),
        ("labels.tar", "no images in these shards"),
    ],
)
def test_shards_that_can_not_be_used_are_named(shards: Path, pattern: str, message: str) -> None:
    whole = shards / "photos-000.tar"
    with tarfile.open(shards / "packed.tar", "w:gz") as tar:
        tar.add(whole, "0.png")
    # In the midst of the last photo.
    (shards / "cut.tar").write_bytes(whole.read_bytes()[: ShardSource(str(whole)).index.spans[-1, 0] + 50])
    write_tar(shards / "twice.tar", {"1.lr.png": png(8, 8, 0), "1.hr.png": png(8, 8, 0)})
    write_tar(shards / "labels.tar", {"1.cls": b"1"})
    with pytest.raises(ValueError, match=message) as error:
        ShardSource(str(shards / pattern))
    assert "\n" not in str(error.value)


def test_addresses_are_refused() -> None:
    with pytest.raises(ValueError, match="copy or mount them"):
        ShardSource("https://example.org/photos-{000..146}.tar")


def test_an_index_of_many_members_is_kept_until_a_shard_changes(
    tmp_path: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="trainer")
    first, second = tmp_path / "a.tar", tmp_path / "b.tar"
    write_tar(first, {f"{i}.png": b"" for i in range(WORTH_KEEPING)})
    write_tar(second, {"x.png": png(8, 8, 90)})
    make_old(first, second)
    assert len(ShardSource(str(tmp_path / "*.tar"))) == WORTH_KEEPING + 1
    (file,) = cache_folder.iterdir()
    again = ShardSource(str(tmp_path / "*.tar"))
    assert caplog.messages[-1].endswith(f"listed in {file} (delete that file to list them anew)")
    assert again.read(WORTH_KEEPING).hr[0, 0, 2] == 90

    write_tar(second, {"y.png": png(8, 8, 91), "z.png": png(8, 8, 92)})
    changed = ShardSource(str(tmp_path / "*.tar"))
    assert changed.read(WORTH_KEEPING + 1).hr[0, 0, 2] == 92
    make_old(second)
    ShardSource(str(tmp_path / "*.tar"))
    write_tar(tmp_path / "c.tar", {"w.png": png(8, 8, 93)})
    assert len(ShardSource(str(tmp_path / "*.tar"))) == WORTH_KEEPING + 3
