from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from upsr_core.evaluation.datasets import check_sizes, find_samples, image_size


def _image(path: Path, width: int = 16, height: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)
    return path


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("hr/a.png", "lr_x4/a.png"),  # ours of Set5
        ("HR/a.png", "LR_bicubic/X4/ax4.png"),  # DIV2K's and the benchmarks'
        ("gt/a.png", "lq/a.png"),  # ImageNet-Test's
        ("Canon/Test/4/a_HR.png", "Canon/Test/4/a_LR4.png"),  # RealSR's
    ],
)
def test_usual_layouts_are_known(tmp_path: Path, hr: str, lr: str) -> None:
    _image(tmp_path / hr, 64, 48)
    _image(tmp_path / lr)
    (sample,) = find_samples(tmp_path, None, 4, degraded=False)
    assert (sample.hr, sample.lr) == (tmp_path / hr, tmp_path / lr)
    assert sample.name == ("Canon_Test_4_a" if "Canon" in hr else "a")
    check_sizes([sample], 4, None)
    (sample,) = find_samples(tmp_path, None, 4, degraded=True)
    assert sample.hr == tmp_path / hr


def test_a_plain_folder_holds_lr_images_or_what_they_are_made_of(tmp_path: Path) -> None:
    path = _image(tmp_path / "b.JPEG")
    (tmp_path / "notes.txt").touch()
    assert [(s.hr, s.lr) for s in find_samples(tmp_path, None, 4, degraded=False)] == [(None, path)]
    assert [(s.hr, s.lr) for s in find_samples(tmp_path, None, 4, degraded=True)] == [(path, None)]


def test_pairs_in_two_folders(tmp_path: Path) -> None:
    hr, lr = _image(tmp_path / "real" / "a.png", 64, 48), _image(tmp_path / "small" / "a_LR4.png")
    (sample,) = find_samples(lr.parent, hr.parent, 4, degraded=False)
    assert (sample.hr, sample.lr) == (hr, lr)
    _image(lr.with_name("b.png"))
    with pytest.raises(ValueError, match=r"b\.png: .*real holds no HR image for it"):
        find_samples(lr.parent, hr.parent, 4, degraded=False)
    _image(hr.with_name("b.png"))
    _image(hr.with_name("c.png"))
    with pytest.raises(ValueError, match=r"c\.png: .*small holds no LR image for it"):
        find_samples(lr.parent, hr.parent, 4, degraded=False)


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    _image(tmp_path / "hr" / "a.png", 64, 44)
    _image(tmp_path / "lr" / "a.png")
    with pytest.raises(
        ValueError, match=r"lr/a\.png: is 16x12, and .*hr/a\.png 64x44 is not 4 times that; give --scale"
    ):
        check_sizes(find_samples(tmp_path, None, 4, degraded=False), 4, None)
    odd = _image(tmp_path / "odd" / "a.png", 65, 44)
    samples = find_samples(odd.parent, None, 4, degraded=True)
    with pytest.raises(ValueError, match=r"a\.png: 65x44 is no multiple of 4; --crop fit"):
        check_sizes(samples, 4, None)
    check_sizes(samples, 4, "fit")
    check_sizes(samples, 4, 44)
    with pytest.raises(ValueError, match=r"a\.png: 65x44 is smaller than --crop 48"):
        check_sizes(samples, 4, 48)


def test_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 12)).save(tmp_path / "turned.jpg", exif=exif)
    assert image_size(tmp_path / "turned.jpg") == (16, 12)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png: cannot be read as an image"):
        image_size(tmp_path / "broken.png")


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: no such folder; get the data set"):
        find_samples(tmp_path / "nowhere", None, 4, degraded=False)
    with pytest.raises(ValueError, match="no images in this folder"):
        find_samples(tmp_path, None, 4, degraded=False)


def test_seed_of_an_image_is_its_own(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        _image(tmp_path / name)
    a, b = find_samples(tmp_path, None, 4, degraded=True)
    assert len({a.seed(0), a.seed(1), b.seed(0), b.seed(1)}) == 4
    (tmp_path / "a.png").unlink()
    assert find_samples(tmp_path, None, 4, degraded=True)[0].seed(0) == b.seed(0)
