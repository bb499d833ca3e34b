from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.trainer.photo_files import levels, save_gradient
from trainer.data.batches import Batches
from trainer.data.config import DataConfig
from trainer.data.crops import CropDataset
from trainer.data.sources.image_folders import FolderSource
from trainer.data.sources.mixture import MixedSource
from trainer.data.sources.opening import open_images


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Five images, all 0 in blue, and two images, all 200."""
    for name in ("many", "few"):
        (tmp_path / name).mkdir()
    for i in range(5):
        save_gradient(tmp_path / "many" / f"{i}.png", 40, 50, 0)
    for i in range(2):
        save_gradient(tmp_path / "few" / f"{i}.png", 40, 50, 200)
    return tmp_path / "many", tmp_path / "few"


@pytest.mark.parametrize(("weights", "counts"), [((1, 1), (5, 5)), ((3, 1), (6, 2)), ((1, 3), (5, 15))])
def test_a_pass_has_the_shares_and_every_image(
    folders: tuple[Path, Path], weights: tuple[float, float], counts: tuple[int, int]
) -> None:
    many, few = (FolderSource(folder) for folder in folders)
    mixed = MixedSource(dict(zip((many, few), weights, strict=True)))
    names = Counter(mixed.name(i) for i in range(len(mixed)))
    assert tuple(sum(names[source.name(i)] for i in range(len(source))) for source in (many, few)) == counts
    for source in (many, few):
        repetitions = [names[source.name(i)] for i in range(len(source))]
        assert min(repetitions) >= 1
        assert max(repetitions) - min(repetitions) <= 1


def test_batches_draw_from_the_folders_by_their_weights(folders: tuple[Path, Path]) -> None:
    data = DataConfig({folders[0]: 1.0, folders[1]: 3.0}, hr_size=24, preset="bicubic")
    images = open_images(data, 4)
    stream = Batches(data, images.train, 4, 4, 5, torch.device("cpu"), 0, 1).from_micro_step(0)
    blue = Counter(int(levels({"hr": hr})[2, 0, 0]) for _ in range(5) for hr in next(stream)[1])
    # One pass of 20 crops.
    assert blue == {0: 5, 200: 15}


def test_a_repeated_image_is_cached_once(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    many, few = (FolderSource(folder) for folder in folders)
    mixed, read = MixedSource({many: 1.0, few: 3.0}), []
    for source in (many, few):
        monkeypatch.setattr(source, "read", lambda index, of=source.read: read.append(index) or of(index))
    cached, plain = (CropDataset(mixed, 24, 4, cache=cache) for cache in (True, False))
    assert len(mixed) == 20
    assert sorted(read) == [0, 0, 1, 1, 2, 3, 4]
    assert all(torch.equal(cached[i]["hr"], plain[i]["hr"]) for i in range(20))


def test_a_missing_folder_is_named(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"^data\.train_dir: .*nowhere: no such folder"):
        open_images(DataConfig({folders[0]: 1.0, folders[0].with_name("nowhere"): 1.0}), 4)
