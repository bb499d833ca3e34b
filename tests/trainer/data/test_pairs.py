"""Folders of LR-HR pairs: aligned in every crop, checked before the first step, never degraded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.photo_files import levels
from tests.trainer.runs import write_config
from trainer.data.batches import Batches
from trainer.data.config import DataConfig
from trainer.data.crops import CropDataset, held_out_crops, pad_to
from trainer.data.held_out import HeldOutPhotos
from trainer.data.sources.base import Photo
from trainer.data.sources.opening import open_images
from trainer.data.sources.pairs import PairSource
from trainer.train import main
from trainer.typed_yaml import ConfigError

SCALE = 4


def save_pair(root: Path, name: str, height: int, width: int, blue: int, lr_name: str | None = None) -> None:
    """LR's red and green count its columns and rows; HR is its nearest enlargement: a crop tells whether they agree."""
    lr = np.zeros((height, width, 3), np.uint8)
    lr[..., 0], lr[..., 1], lr[..., 2] = np.arange(width), np.arange(height)[:, None], blue
    for folder, file, pixels in (("lr", lr_name or name, lr), ("hr", name, enlarged(lr))):
        (root / folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / folder / file)


def enlarged(lr: np.ndarray) -> np.ndarray:
    return lr.repeat(SCALE, 0).repeat(SCALE, 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_pair(tmp_path, "a.png", 20, 30, 0)
    save_pair(tmp_path, "sub/a.png", 25, 20, 50, lr_name="sub/a.bmp")
    # Smaller than a crop.
    save_pair(tmp_path, "small.png", 5, 30, 100)
    return tmp_path


def source(root: Path) -> PairSource:
    return PairSource(root / "hr", root / "lr", SCALE)


def config(root: Path, **others: object) -> DataConfig:
    return DataConfig(root / "hr", root / "lr", hr_size=32, **others)  # type: ignore[arg-type]


def assert_aligned(lr: torch.Tensor, hr: torch.Tensor) -> None:
    assert torch.equal(hr, lr.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2))


@pytest.mark.parametrize("cache", [False, True])
def test_crops_of_both_are_the_same_square(root: Path, cache: bool) -> None:
    dataset = CropDataset(source(root), 32, SCALE, cache=cache)
    orientations, corners = set(), set()
    for i in range(1000):
        item = dataset[i]
        assert (item["lr"].shape, item["hr"].shape) == ((3, 8, 8), (3, 32, 32))
        assert_aligned(item["lr"], item["hr"])
        red, green, blue = levels(item, "lr")
        if blue[0, 0] == 0:
            corners.add((red.min(), green.min()))
            slopes = [np.sign(channel[end] - channel[0, 0]) for channel in (red, green) for end in ((1, 0), (0, 1))]
            orientations.add(tuple(int(slope) for slope in slopes))
    assert len(orientations) == 8
    columns, rows = (set(values) for values in zip(*corners, strict=True))
    assert (columns, rows) == (set(range(23)), set(range(13)))


def test_small_pairs_are_mirrored_where_their_pixels_meet(root: Path) -> None:
    lr = np.arange(5, dtype=np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)
    padded = pad_to(Photo(enlarged(lr), lr), 32, SCALE)
    assert padded.lr is not None
    assert padded.lr[0, :, 0].tolist() == [0, 1, 2, 3, 4, 4, 3, 2]
    assert np.array_equal(padded.hr, enlarged(padded.lr))


def test_validation_crops_are_aligned_and_not_degraded(root: Path) -> None:
    items = held_out_crops(source(root), SCALE, 32, limit=3, seed=0)
    assert len(items) == 3
    for item in items:
        assert_aligned(item["lr"], item["hr"])
    assert levels(items[2], "lr")[:2, 0, 0].tolist() == [6, 8]

    photos = HeldOutPhotos(source(root), config(root, val_size=32), SCALE, 0, torch.device("cpu"))
    assert list(photos.lr) == ["paired"]
    assert_aligned(photos.lr["paired"], photos.hr)


def test_a_stream_of_pairs_goes_on_exactly_where_it_was_left(root: Path) -> None:
    (root / "lr" / "a.png").write_bytes(b"broken")

    def batches(num_workers: int) -> Batches:
        data = config(root, pool_size=3, num_workers=num_workers)
        return Batches(data, open_images(data, SCALE).train, SCALE, 2, 3, torch.device("cpu"), 0, 1)

    stream = batches(0).from_micro_step(0)
    expected = [next(stream) for _ in range(20)]
    first, second = batches(0), batches(1)
    stream = first.from_micro_step(0)
    for _ in range(10):
        next(stream)
    assert first.pool is not None
    assert second.pool is not None
    second.pool.load_state_dict(first.pool.state_dict())
    stream = second.from_micro_step(10)
    for pair in expected[10:]:
        assert all(torch.equal(a, b) for a, b in zip(pair, next(stream), strict=True))
        assert_aligned(*pair)
        assert (pair[1][:, 2] > 0).all()
    # The half of a pair that can be read is not used either.
    assert (first.dataset.num_skipped, second.dataset.num_skipped) == (1, 1)


def test_sizes_that_differ_are_named(root: Path) -> None:
    assert isinstance(open_images(config(root), SCALE).train, PairSource)
    Image.new("RGB", (80, 101)).save(root / "hr" / "sub" / "a.png")
    with pytest.raises(ConfigError) as error:
        open_images(config(root), SCALE)
    hr, lr = root / "hr" / "sub" / "a.png", root / "lr" / "sub" / "a.bmp"
    assert str(error.value) == (
        f"data.train_lr_dir: {hr} is 80x101 and {lr} 20x25: HR must be exactly scale = 4 times LR; "
        "crop the photos or set scale"
    )
    with pytest.raises(ValueError, match="HR must be exactly scale = 2 times LR"):
        PairSource(root / "hr", root / "lr", 2).check()


def test_turned_photos_are_compared_as_they_are_seen(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (100, 80)).save(root / "hr" / "sub" / "a.png", exif=exif)
    source(root).check()
    assert source(root).read(2).hr.shape == (100, 80, 3)


def test_photos_without_a_partner_are_named(root: Path) -> None:
    (root / "lr" / "b.png").write_bytes((root / "lr" / "a.png").read_bytes())
    with pytest.raises(ValueError, match=rf"^{root}/lr/b\.png: has no partner of that name in {root}/hr \(1 photos"):
        source(root)
    (root / "lr" / "b.png").rename(root / "hr" / "b.png")
    with pytest.raises(ValueError, match=rf"^{root}/hr/b\.png: has no partner of that name in {root}/lr \(1 photos"):
        source(root)
    (root / "hr" / "b.png").rename(root / "hr" / "a.bmp")
    with pytest.raises(ValueError, match=r"a\.png and .*a\.bmp: pairs go by names without extension"):
        source(root)


def test_pairs_that_can_not_be_read_at_all_are_refused(root: Path) -> None:
    for path in (root / "lr").rglob("*.*"):
        path.write_bytes(b"broken")
    with pytest.raises(ConfigError, match=r"^data\.train_lr_dir: .*none of the 3 images that were tried can be read"):
        open_images(config(root), SCALE)


def test_pairs_train_a_network_and_validate_it(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="trainer")
    lr = str(root / "lr")
    data = {"train_lr_dir": lr, "val_dir": str(root / "hr"), "val_lr_dir": lr}
    config = str(write_config(root / "pairs.yaml", root / "hr", stage="sr_net", data=data))
    assert main(["--config", config]) == 0
    assert "validation, paired input, g: psnr" in caplog.text
    assert (root / "run" / "samples" / "sr_net" / "paired_step-00000002.png").is_file()
    Image.new("RGB", (80, 101)).save(root / "hr" / "sub" / "a.png")
    assert main(["--config", config, f"output_dir={root / 'other'}"]) == 2
    assert not (root / "other").exists()
