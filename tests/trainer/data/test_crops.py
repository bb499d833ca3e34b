from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.trainer.photo_files import levels, save_gradient
from trainer.data.batches import Batches
from trainer.data.config import DataConfig
from trainer.data.crops import CropDataset, held_out_crops, pad_to
from trainer.data.pair_pool import PairPool
from trainer.data.sources.base import Photo, read_rgb
from trainer.data.sources.image_folders import FolderSource
from trainer.typed_yaml import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for i in range(4):
        save_gradient(tmp_path / ("sub" if i % 2 else ".") / f"{i}.png", 40 + i, 60 + i, 10 * i)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def crops(folder: Path, hr_size: int = 24, seed: int = 0, cache: bool = False) -> CropDataset:
    return CropDataset(FolderSource(folder), hr_size, 4, seed=seed, cache=cache)


def held_out(folder: Path, crop_size: int = 32, limit: int = 4) -> list[dict[str, Any]]:
    return held_out_crops(FolderSource(folder), 4, crop_size, limit, seed=0)


def test_items_are_crops_of_the_photos(folder: Path) -> None:
    dataset = crops(folder)
    orientations, blues = set(), set()
    for i in range(200):
        hr = dataset[i]["hr"]
        assert (hr.shape, hr.dtype) == ((3, 24, 24), torch.float32)
        red, green, blue = levels(dataset[i])
        assert np.ptp(blue) == 0
        blues.add(int(blue[0, 0]))
        assert np.ptp(red) == np.ptp(green) == 23
        # The slopes of red and green along both sides name one of the eight orientations.
        slopes = [np.sign(channel[end] - channel[0, 0]) for channel in (red, green) for end in ((1, 0), (0, 1))]
        orientations.add(tuple(int(slope) for slope in slopes))
    assert len(orientations) == 8
    assert blues == {0, 10, 20, 30}


def test_crops_reach_every_border(folder: Path) -> None:
    dataset = crops(folder)
    reds, greens = zip(*((levels(dataset[i])[0], levels(dataset[i])[1]) for i in range(400)), strict=True)
    assert min(r.min() for r in reds) == min(g.min() for g in greens) == 0
    assert max(r.max() for r in reds) == 62
    assert max(g.max() for g in greens) == 42


def test_an_item_depends_on_seed_and_index_alone(folder: Path) -> None:
    dataset, same = crops(folder), crops(folder, cache=True)
    forwards = [dataset[i] for i in range(20)]
    for i in reversed(range(20)):
        assert torch.equal(same[i]["hr"], forwards[i]["hr"])
        assert same[i]["seed"] == forwards[i]["seed"]
    assert len({item["seed"] for item in forwards}) == 20
    assert crops(folder, seed=1)[0]["seed"] != forwards[0]["seed"]


def test_workers_give_the_same(folder: Path) -> None:
    dataset = crops(folder)
    batches = list(DataLoader(dataset, batch_sampler=[[0, 1, 2, 3], [7, 6, 5, 4]], num_workers=1))
    assert torch.cat([batch["seed"] for batch in batches]).tolist() == [
        dataset[i]["seed"] for i in (0, 1, 2, 3, 7, 6, 5, 4)
    ]
    assert torch.equal(batches[1]["hr"][1], dataset[6]["hr"])


@pytest.mark.parametrize("cache", [False, True])
def test_unreadable_images_are_skipped_counted_and_named(
    folder: Path, cache: bool, caplog: pytest.LogCaptureFixture
) -> None:
    whole = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.webp").write_text("no image")
    dataset = crops(folder, cache=cache)
    items = [levels(dataset[i]) for i in range(14)]
    assert {int(item[2, 0, 0]) for item in items} == {0, 10, 20, 30}
    assert dataset.num_skipped == 3
    assert len(caplog.messages) == 3
    for name in ("cut.png", "empty.jpg", "text.webp"):
        assert sum(name in line for line in caplog.messages) == 1
    assert caplog.messages[-1].endswith("3 skipped so far")

    # The replacement is the same for a run that starts in the middle.
    resumed = crops(folder, cache=cache)
    for i in range(7, 14):
        assert np.array_equal(levels(resumed[i]), items[i])


def test_workers_count_what_they_skip_together(folder: Path) -> None:
    (folder / "cut.png").write_bytes(b"")
    dataset = crops(folder)
    for _ in DataLoader(dataset, batch_sampler=[[0, 1], [2, 3], [4, 5], [6, 7]], num_workers=2):
        pass
    assert dataset.num_skipped == 1


def test_folders_without_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        FolderSource(tmp_path / "missing")
    with pytest.raises(ValueError, match="no images"):
        FolderSource(tmp_path)
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(ValueError, match=r"none of the 1 images that were tried can be read \(.*bad\.png: "):
        FolderSource(tmp_path).check()
    for cache in (False, True):
        with pytest.raises(ConfigError, match="none of 1 images in a row can be read"):
            crops(tmp_path, cache=cache)[0]
    with pytest.raises(ConfigError, match="none of the 1 images can be read"):
        held_out(tmp_path)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_images_that_all_break_later_end_the_stream_with_one_line(folder: Path, num_workers: int) -> None:
    data = DataConfig(folder, hr_size=24, preset="bicubic", num_workers=num_workers)
    batches = Batches(data, FolderSource(folder), 4, 2, 0, torch.device("cpu"), 0, 1)
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"^[^\n]*: none of 4 images in a row can be read[^\n]*$"):
        next(batches.from_micro_step(0))


def test_small_photos_are_reflected(tmp_path: Path) -> None:
    save_gradient(tmp_path / "a.png", 5, 9, 7)
    padded = pad_to(Photo(read_rgb(tmp_path / "a.png")), 16, 4).hr
    assert padded.shape == (16, 16, 3)
    assert padded[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1]
    assert padded[:, 0, 1].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]
    assert crops(tmp_path, 16)[0]["hr"].shape == (3, 16, 16)
    save_gradient(tmp_path / "dot.png", 1, 1, 7)
    assert pad_to(Photo(read_rgb(tmp_path / "dot.png")), 16, 4).hr.shape == (16, 16, 3)


def test_every_kind_of_image_becomes_rgb(tmp_path: Path) -> None:
    gray16 = np.array([[0, 257, 65535]], np.uint16)
    Image.fromarray(gray16).save(tmp_path / "gray16.png")
    assert read_rgb(tmp_path / "gray16.png").tolist() == [[[0] * 3, [1] * 3, [255] * 3]]
    rgba = Image.new("RGBA", (4, 4), (9, 8, 7, 0))
    rgba.save(tmp_path / "rgba.png")
    rgba.convert("P").save(tmp_path / "palette.png")
    Image.new("L", (4, 4), 3).save(tmp_path / "gray.webp", lossless=True)
    turned = Image.fromarray(np.array([[[10] * 3, [200] * 3]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    assert read_rgb(tmp_path / "rgba.png")[0, 0].tolist() == [9, 8, 7]
    assert read_rgb(tmp_path / "palette.png").shape == (4, 4, 3)
    assert read_rgb(tmp_path / "gray.webp")[0, 0].tolist() == [3, 3, 3]
    assert read_rgb(tmp_path / "turned.png")[..., 0].tolist() == [[10], [200]]


def test_validation_crops_are_central_and_fixed(folder: Path) -> None:
    items = held_out(folder)
    assert [levels(item)[2, 0, 0] for item in items] == [0, 20, 10, 30]
    red, green, _ = levels(items[0])
    assert (red[0, 0], red[0, -1], green[0, 0], green[-1, 0]) == (14, 45, 4, 35)
    again = held_out(folder)
    assert [item["seed"] for item in again] == [item["seed"] for item in items]
    assert len({item["seed"] for item in items}) == 4
    assert held_out(folder, crop_size=64)[0]["hr"].shape == (3, 64, 64)


def test_validation_photos_are_spread_over_the_source(folder: Path) -> None:
    assert [levels(item)[2, 0, 0] for item in held_out(folder, limit=2)] == [0, 10]


def test_validation_leaves_unreadable_photos_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "2.png").write_bytes(b"")
    assert [levels(item)[2, 0, 0] for item in held_out(folder)] == [0, 10, 30]
    assert "2.png: left out" in caplog.text


# Batches


def batches_of(folder: Path, pool_size: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Batches:
    data = DataConfig(folder, hr_size=24, preset="bicubic", pool_size=pool_size)
    return Batches(data, FolderSource(folder), 4, batch_size, 5, torch.device("cpu"), rank, world_size)


def test_a_stream_goes_on_exactly_where_it_was_left(folder: Path) -> None:
    (folder / "cut.png").write_bytes(b"")
    whole, first, second = (batches_of(folder, 3, 2) for _ in range(3))
    stream = whole.from_micro_step(0)
    expected = [next(stream) for _ in range(20)]
    stream = first.from_micro_step(0)
    for _ in range(10):
        next(stream)
    assert first.pool is not None
    assert second.pool is not None
    second.pool.load_state_dict(first.pool.state_dict())
    stream = second.from_micro_step(10)
    for lr, hr in expected[10:]:
        lr_again, hr_again = next(stream)
        assert torch.equal(lr, lr_again)
        assert torch.equal(hr, hr_again)


def test_processes_share_out_what_one_would_see(folder: Path) -> None:
    alone, shared = batches_of(folder, 0, 4), [batches_of(folder, 0, 2, rank, 2) for rank in range(2)]
    streams = [batches.from_micro_step(0) for batches in (alone, *shared)]
    for _ in range(5):
        lr, hr = next(streams[0])
        parts = [next(stream) for stream in streams[1:]]
        assert torch.equal(lr, torch.cat([part[0] for part in parts]))
        assert torch.equal(hr, torch.cat([part[1] for part in parts]))
        # A pass of four images, each once.
        assert Counter(levels({"hr": image})[2, 0, 0] for image in hr) == dict.fromkeys((0, 10, 20, 30), 1)


# The pool


def numbered(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.arange(first, first + count, dtype=torch.float32)[:, None, None, None]
    return values.expand(-1, 3, 8, 8).clone(), values.expand(-1, 3, 2, 2).clone()


def run_pool(pool: PairPool, steps: range) -> list[list[int]]:
    batches = []
    for step in steps:
        hr, lr = pool.exchange(*numbered(4 * step, 4))
        assert (hr.shape, lr.shape) == ((4, 3, 8, 8), (4, 3, 2, 2))
        assert torch.equal(hr[:, 0, 0, 0], lr[:, 0, 0, 0])
        batches.append(hr[:, 0, 0, 0].int().tolist())
    return batches


def test_pool_mixes_batches_and_loses_nothing() -> None:
    pool = PairPool(38)
    early = run_pool(pool, range(10))
    assert early == [[4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(10)]
    assert pool.state_dict()["filled"] == 38
    later = run_pool(pool, range(10, 200))
    out = [value for batch in later for value in batch]
    assert len(set(out)) == len(out)
    held = {int(value) for value in pool.state_dict()["hr"][:, 0, 0, 0]}
    assert set(out) | held == set(range(38)) | set(range(40, 800))
    with_neighbours = sum(len({value // 4 for value in batch}) < 4 for batch in later)
    assert with_neighbours < 0.4 * len(later)


def test_pool_resumes_exactly() -> None:
    pool, resumed = PairPool(10, seed=1), PairPool(10, seed=2)
    run_pool(pool, range(7))
    resumed.load_state_dict(pool.state_dict())
    assert run_pool(resumed, range(7, 20)) == run_pool(pool, range(7, 20))


def test_pool_refuses_the_state_of_another_size() -> None:
    with pytest.raises(ValueError, match="set to 6"):
        PairPool(6).load_state_dict(PairPool(4).state_dict())


def test_shrunk_crops_show_more_of_the_photo(folder: Path) -> None:
    dataset = CropDataset(FolderSource(folder), 24, 4, shrink=0.6)
    spans = []
    for i in range(100):
        hr = dataset[i]["hr"]
        assert hr.shape == (3, 24, 24)
        spans.append(np.ptp(levels(dataset[i])[0]))
    # The gradient rises by a level a pixel: 24 / 0.6 = 40 pixels of the photo at the most.
    assert min(spans) < 25
    assert 36 <= max(spans) <= 39


def test_a_photo_too_small_to_shrink_is_cropped_as_it_is(tmp_path: Path) -> None:
    save_gradient(tmp_path / "small.png", 24, 24, 0)
    dataset = CropDataset(FolderSource(tmp_path), 24, 4, shrink=0.5)
    assert all(np.ptp(levels(dataset[i])[0]) == 23 for i in range(20))
