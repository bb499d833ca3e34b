from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from trainer.data import CropDataset, ValidationDataset, list_images, pad_to, read_rgb
from trainer.pair_pool import PairPool


def save_gradient(path: Path, height: int, width: int, blue: int) -> None:
    """Red counts columns, green counts rows, blue names the file: a crop tells where it is from."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = np.arange(width), np.arange(height)[:, None], blue
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for i in range(4):
        save_gradient(tmp_path / ("sub" if i % 2 else ".") / f"{i}.png", 40 + i, 60 + i, 10 * i)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def levels(item: dict) -> np.ndarray:
    return torch.round(item["hr"] * 255).long().numpy()


def test_items_are_crops_of_the_photos(folder: Path) -> None:
    dataset = CropDataset(folder, 24, samples_per_epoch=200)
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
    dataset = CropDataset(folder, 24, samples_per_epoch=2000)
    reds, greens = zip(*((levels(dataset[i])[0], levels(dataset[i])[1]) for i in range(400)), strict=True)
    assert min(r.min() for r in reds) == min(g.min() for g in greens) == 0
    assert max(r.max() for r in reds) == 62
    assert max(g.max() for g in greens) == 42


def test_an_item_depends_on_seed_epoch_and_index_alone(folder: Path) -> None:
    dataset, same = CropDataset(folder, 24, repeats=5), CropDataset(folder, 24, repeats=5, cache=True)
    assert len(dataset) == len(same) == 20
    forwards = [dataset[i] for i in range(20)]
    for i in reversed(range(20)):
        assert torch.equal(same[i]["hr"], forwards[i]["hr"])
        assert same[i]["seed"] == forwards[i]["seed"]
    assert len({item["seed"] for item in forwards}) == 20
    dataset.set_epoch(1)
    assert all(dataset[i]["seed"] != forwards[i]["seed"] for i in range(20))
    dataset.set_epoch(0)
    assert dataset[3]["seed"] == forwards[3]["seed"]
    assert CropDataset(folder, 24, seed=1)[0]["seed"] != forwards[0]["seed"]


def test_epochs_shorter_than_the_folder_still_use_every_photo(folder: Path) -> None:
    dataset = CropDataset(folder, 24, samples_per_epoch=3)
    counts = dict.fromkeys((0, 10, 20, 30), 0)
    for epoch in range(8):
        dataset.set_epoch(epoch)
        for i in range(3):
            counts[int(levels(dataset[i])[2, 0, 0])] += 1
    assert set(counts.values()) == {6}


def test_workers_give_the_same_and_follow_set_epoch(folder: Path) -> None:
    dataset = CropDataset(folder, 24, repeats=2)
    loader = DataLoader(dataset, batch_size=4, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        batches = list(loader)
        seeds = torch.cat([batch["seed"] for batch in batches]).tolist()
        assert seeds == [dataset[i]["seed"] for i in range(8)]
        assert torch.equal(batches[1]["hr"][2], dataset[6]["hr"])


@pytest.mark.parametrize("cache", [False, True])
def test_unreadable_images_are_skipped_counted_and_named(folder: Path, cache: bool) -> None:
    whole = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.webp").write_text("no image")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = CropDataset(folder, 24, cache=cache, repeats=2)
        items = [levels(dataset[i]) for i in range(14)]
    assert {int(item[2, 0, 0]) for item in items} == {0, 10, 20, 30}
    assert dataset.num_skipped == 3
    text = [str(w.message) for w in caught]
    assert len(text) == 3
    for name in ("cut.png", "empty.jpg", "text.webp"):
        assert sum(name in line for line in text) == 1


def test_folders_without_photos_are_refused(tmp_path: Path) -> None:
    for make in (lambda root: CropDataset(root, 24), lambda root: ValidationDataset(root, 4)):
        with pytest.raises(ValueError, match="no such folder"):
            make(tmp_path / "missing")
        with pytest.raises(ValueError, match="no images"):
            make(tmp_path)
    (tmp_path / "bad.png").write_text("no image")
    with (
        pytest.warns(UserWarning, match=r"bad\.png"),
        pytest.raises(ValueError, match="none of the 1 images"),
    ):
        CropDataset(tmp_path, 24)[0]
    with (
        pytest.warns(UserWarning, match=r"bad\.png"),
        pytest.raises(ValueError, match="none of the 1 images"),
    ):
        CropDataset(tmp_path, 24, cache=True)
    with (
        pytest.warns(UserWarning, match=r"bad\.png"),
        pytest.raises(ValueError, match="none of the 1 images"),
    ):
        ValidationDataset(tmp_path, 4)


def test_bad_arguments_are_refused(folder: Path) -> None:
    for arguments in ({"hr_size": 0}, {"hr_size": 8, "repeats": 0}, {"hr_size": 8, "samples_per_epoch": 0}):
        with pytest.raises(ValueError, match="positive"):
            CropDataset(folder, **arguments)
    with pytest.raises(ValueError, match="multiple of the scale"):
        ValidationDataset(folder, 4, crop_size=30)
    with pytest.raises(IndexError):
        CropDataset(folder, 24)[4]


def test_small_photos_are_reflected(tmp_path: Path) -> None:
    save_gradient(tmp_path / "a.png", 5, 9, 7)
    padded = pad_to(read_rgb(tmp_path / "a.png"), 16)
    assert padded.shape == (16, 16, 3)
    assert padded[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1]
    assert padded[:, 0, 1].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]
    assert CropDataset(tmp_path, 16)[0]["hr"].shape == (3, 16, 16)
    save_gradient(tmp_path / "dot.png", 1, 1, 7)
    assert pad_to(read_rgb(tmp_path / "dot.png"), 16).shape == (16, 16, 3)


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


def test_links_are_followed_once(tmp_path: Path, folder: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "photos").symlink_to(folder / "sub")
    (linked / "loop").symlink_to(linked)
    assert [Path(path).name for path in list_images(linked)] == ["1.png", "3.png"]


def test_validation_photos_are_whole_and_fixed(folder: Path) -> None:
    dataset = ValidationDataset(folder, 4)
    assert [dataset[i]["name"] for i in range(4)] == ["0.png", "2.png", "1.png", "3.png"]
    assert dataset[3]["hr"].shape == (3, 40, 60)
    red, green, blue = levels(dataset[3])
    assert (red[0, 0], red[0, -1], green[-1, 0], blue[0, 0]) == (0, 59, 39, 30)
    again = ValidationDataset(folder, 4)
    assert [item["seed"] for item in (again[i] for i in range(4))] == [dataset[i]["seed"] for i in range(4)]


def test_validation_crops_are_central(folder: Path) -> None:
    dataset = ValidationDataset(folder, 4, crop_size=32, limit=2)
    assert len(dataset) == 2
    red, green, _ = levels(dataset[0])
    assert (red[0, 0], red[0, -1], green[0, 0], green[-1, 0]) == (14, 45, 4, 35)
    assert ValidationDataset(folder, 4, crop_size=64)[0]["hr"].shape == (3, 64, 64)


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
    assert len(pool) == 38
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


def test_pool_refuses_what_does_not_fit() -> None:
    pool = PairPool(4)
    pool.exchange(*numbered(0, 4))
    with pytest.raises(ValueError, match="larger than the pool"):
        pool.exchange(*numbered(0, 5))
    with pytest.raises(ValueError, match="the pool holds pairs"):
        pool.exchange(torch.zeros(4, 3, 16, 16), torch.zeros(4, 3, 4, 4))
    with pytest.raises(ValueError, match="pair up"):
        pool.exchange(torch.zeros(4, 3, 8, 8), torch.zeros(3, 3, 2, 2))
    with pytest.raises(ValueError, match="set to 6"):
        PairPool(6).load_state_dict(pool.state_dict())
