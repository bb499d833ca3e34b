"""Letters and signs on training crops."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from trainer.data.crops import CropDataset
from trainer.data.lettering import Lettering
from trainer.data.sources.base import Photo
from trainer.typed_yaml import ConfigError


class Gray:
    """A source of one gray photo."""

    title = "gray"
    paired = False

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return f"gray {index}"

    def read(self, index: int) -> Photo:
        return Photo(np.full((160, 160, 3), 128, np.uint8))


def crops(share: float, count: int = 40, fonts: Path | None = None) -> np.ndarray:
    dataset = CropDataset(Gray(), 128, 4, lettering=Lettering(share, fonts))
    return np.stack([dataset[i]["hr"].numpy() for i in range(count)])


def drawn_on(images: np.ndarray) -> np.ndarray:
    return np.abs(images - 128 / 255).max((1, 2, 3)) > 0.01


def test_the_share_of_crops_is_drawn_on() -> None:
    assert not drawn_on(crops(0)).any()
    assert 0.2 < drawn_on(crops(0.4, 100)).mean() < 0.6
    assert drawn_on(crops(1)).mean() > 0.9  # a word may have the photo's own gray


def test_edges_are_sharp_but_antialiased() -> None:
    images = crops(1)
    steps = np.abs(np.diff(images, axis=3))
    assert steps.max() > 0.5
    # The levels of letter and ground are common, those between lie along the edges.
    between = np.mean([len(np.unique(image[0])) for image in images])
    assert between > 10


def test_an_item_is_the_same_every_time() -> None:
    assert np.array_equal(crops(0.5), crops(0.5))


def test_fonts_of_a_folder(tmp_path: Path) -> None:
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.TTF").write_bytes(font.font_bytes)
    # The same words at the same places; letters may be spaced in another way.
    assert np.abs(crops(1, 8) - crops(1, 8, tmp_path)).mean() < 0.02 < np.abs(crops(1, 8) - 0.5).mean()


def test_a_folder_without_fonts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no font")
    with pytest.raises(ConfigError, match=r"^data\.fonts: no font \(\.ttf, \.otf, \.ttc\) in .*; name another folder"):
        Lettering(1, tmp_path)


def test_a_damaged_font_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.ttf").write_bytes(b"no font")
    with pytest.raises(ConfigError, match=r"^data\.fonts: .*a\.ttf cannot be read \(.*\); take it out$"):
        Lettering(1, tmp_path)
