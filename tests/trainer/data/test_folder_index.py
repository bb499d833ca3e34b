"""Folder trees such as ImageNet's: what is listed, and the index on disk that saves listing it again."""

from __future__ import annotations

import logging
import os
import pickle
import time
from pathlib import Path

import pytest

from tests.trainer.photo_files import make_old, save_gradient
from trainer.data.sources.file_index import WORTH_KEEPING, PackedStrings, index_folder
from trainer.data.sources.image_folders import FolderSource


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    caplog.set_level(logging.INFO, logger="trainer")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return index_folder()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten class folders of empty files, as many as are worth an index."""
    root = tmp_path_factory.mktemp("many")
    for i in range(10):
        folder = root / f"n{i:08d}"
        folder.mkdir()
        for j in range(WORTH_KEEPING // 10):
            os.close(os.open(folder / f"{j}.JPEG", os.O_CREAT | os.O_WRONLY))
    return root


def names(source: FolderSource) -> list[str]:
    return [os.path.relpath(source.name(i), source.root) for i in range(len(source))]


def test_the_order_is_fixed_and_other_files_are_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name in ("n02/b.JPEG", "n02/a.JPEG", "n01/deep/x.png", "n01/y.webp", "z.jpg", "n01/notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert names(FolderSource(root)) == ["z.jpg", "n01/y.webp", "n01/deep/x.png", "n02/a.JPEG", "n02/b.JPEG"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").touch()
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "photos").symlink_to(tmp_path / "photos")
    (linked / "loop").symlink_to(linked)
    assert names(FolderSource(linked)) == ["photos/1.png"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_can_not_be_listed_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "closed").mkdir(mode=0)
    assert len(FolderSource(tmp_path)) == 1
    assert "closed: left out, it cannot be listed" in caplog.text


def test_names_that_are_no_text_are_kept() -> None:
    strings = ["", "a.png", "ünï.png", os.fsdecode(b"\xff.png"), ""]
    packed = pickle.loads(pickle.dumps(PackedStrings.pack(strings)))
    assert list(packed) == strings
    assert len(PackedStrings.pack([])) == 0


def test_small_folders_leave_nothing_behind(tmp_path: Path, cache_folder: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    save_gradient(root / "a.png", 8, 8, 0)
    make_old(root)
    assert len(FolderSource(root)) == 1
    assert not cache_folder.exists()


def test_an_index_is_kept_used_and_renewed(many: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders = [many, *many.iterdir()]
    make_old(*folders)
    listed = FolderSource(many)
    (file,) = cache_folder.iterdir()
    assert f"{many}: {WORTH_KEEPING} images, listed in" in caplog.messages[-1]
    assert caplog.messages[-1].endswith(f"kept in {file}")

    # Another list with the same time stamps can only come from the index.
    victim = many / "n00000003" / "7.JPEG"
    before = victim.parent.stat()
    victim.rename(victim.with_name("other.JPEG"))
    os.utime(victim.parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert names(FolderSource(many)) == names(listed)
    assert caplog.messages[-1].endswith(f"listed in {file} (delete that file to list them anew)")

    os.utime(victim.parent, (time.time() - 1800,) * 2)
    assert "n00000003/other.JPEG" in names(FolderSource(many))
    assert "has changed since it was listed" in caplog.messages[-2]
    assert "n00000003/7.JPEG" not in names(FolderSource(many))
    assert "delete that file" in caplog.messages[-1]

    (many / "n00000010").mkdir()
    (many / "n00000010" / "new.png").touch()
    make_old(*folders, many / "n00000010")
    os.utime(many, (time.time() - 1800,) * 2)
    assert names(FolderSource(many))[-1] == "n00000010/new.png"


def test_an_index_is_not_trusted_where_it_could_miss_a_change(
    many: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_old(many, *many.iterdir())
    os.utime(many / "n00000004")
    assert len(FolderSource(many)) >= WORTH_KEEPING
    assert caplog.messages[-1].endswith("not kept, since it has just been changed")
    assert not cache_folder.exists()


def test_a_broken_index_is_named_and_replaced(many: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_old(many, *many.iterdir())
    listed = names(FolderSource(many))
    (file,) = cache_folder.iterdir()
    file.write_bytes(file.read_bytes()[:5000])
    assert names(FolderSource(many)) == listed
    assert caplog.messages[-2].startswith(f"{file}: cannot be used, listing the images anew")
    assert "delete that file" not in caplog.text
    assert names(FolderSource(many)) == listed
    assert "delete that file" in caplog.messages[-1]


def test_a_cache_folder_that_can_not_be_written_is_no_reason_to_stop(
    many: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_old(many, *many.iterdir())
    (tmp_path / "cache").write_text("a file where the folder would be")
    assert len(FolderSource(many)) >= WORTH_KEEPING
    assert "not kept: " in caplog.messages[-1]
    assert "set XDG_CACHE_HOME" in caplog.messages[-1]
