"""Which models a user can choose from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BUNDLED = "upsr-tiny-x4 (bundled)"
FOREIGN, LONELY = " (not a checkpoint of UPSR)", " (its other half is missing)"
DENOISER, SR_NETWORK = b"..input_blocks.0.0.weight..", b"..conv_first.weight.."


@pytest.fixture(scope="module")
def folders(node_module: Callable[[str], ModuleType]) -> ModuleType:
    return node_module("model_folders")


def write(*paths: Path, content: bytes = b"x") -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_the_bundled_model_is_always_there(folders: ModuleType, tmp_path: Path) -> None:
    models = folders.find_models([tmp_path / "missing"])
    assert list(models) == [BUNDLED]
    assert (models[BUNDLED].folder / "model_index.json").is_file()


def test_folders_of_ours_at_any_depth(folders: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "photos" / "model_index.json", tmp_path / "photos" / "unet" / "weights.safetensors")
    write(tmp_path / "mine" / "v2" / "model_index.json")
    models = folders.find_models([tmp_path])
    assert list(models) == [BUNDLED, "mine/v2", "photos"]
    assert models["photos"].folder == tmp_path / "photos"
    assert models["photos"].checkpoints == ()


def test_a_model_put_right_into_the_folder(folders: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "upsr"
    write(root / "model_index.json")
    assert list(folders.find_models([root])) == [BUNDLED, "upsr"]


def test_pairs_of_published_checkpoints(folders: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "a.pth", content=DENOISER)
    write(tmp_path / "B.SAFETENSORS", content=SR_NETWORK)
    write(tmp_path / "real" / "one.pth", tmp_path / "real" / "two.pth", tmp_path / "real" / "config.json")
    models = folders.find_models([tmp_path])
    assert list(models) == [BUNDLED, "B.SAFETENSORS + a.pth", "real"]
    assert models["real"].checkpoints == (tmp_path / "real" / "one.pth", tmp_path / "real" / "two.pth")
    assert models["real"].config == tmp_path / "real" / "config.json"
    assert models["B.SAFETENSORS + a.pth"].config is None


def test_loose_files_are_paired_by_what_they_hold(folders: ModuleType, tmp_path: Path) -> None:
    write(*(tmp_path / f"{name}.pth" for name in "bcdefgh"), content=DENOISER)
    write(tmp_path / "a.pth", content=SR_NETWORK)
    assert list(folders.find_models([tmp_path]))[1:] == [f"a.pth + {name}.pth" for name in "bcdefgh"]
    write(tmp_path / "i.safetensors")
    assert list(folders.find_models([tmp_path]))[-1] == f"i.safetensors{FOREIGN}"


def test_half_a_model_is_listed_as_such(folders: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "a.pth", tmp_path / "b.pth", content=DENOISER)
    assert list(folders.find_models([tmp_path]))[1:] == [f"a.pth{LONELY}", f"b.pth{LONELY}"]


def test_a_file_that_changes_is_looked_at_again(folders: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "a.pth")
    assert list(folders.find_models([tmp_path]))[1:] == [f"a.pth{FOREIGN}"]
    write(tmp_path / "a.pth", content=DENOISER)
    assert list(folders.find_models([tmp_path]))[1:] == [f"a.pth{LONELY}"]


def test_a_link_to_nothing_is_no_model(folders: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.pth").symlink_to(tmp_path / "gone.pth")
    assert list(folders.find_models([tmp_path]))[1:] == [f"a.pth{FOREIGN}"]


def test_the_first_folder_wins(folders: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "user" / "photos" / "model_index.json", tmp_path / "other" / "photos" / "model_index.json")
    models = folders.find_models([tmp_path / "user", tmp_path / "other"])
    assert models["photos"].folder == tmp_path / "user" / "photos"


def test_links_are_followed_and_hidden_folders_are_not(folders: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "disk" / "photos" / "model_index.json", tmp_path / "root" / ".cache" / "x" / "model_index.json")
    os.symlink(tmp_path / "disk", tmp_path / "root" / "linked")
    assert list(folders.find_models([tmp_path / "root"]))[1:] == ["linked/photos"]


def test_the_fingerprint_changes_with_the_files(folders: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "photos" / "model_index.json", tmp_path / "photos" / "unet" / "weights.safetensors")
    files = folders.find_models([tmp_path])["photos"]
    before = files.fingerprint()
    assert folders.find_models([tmp_path])["photos"].fingerprint() == before
    (tmp_path / "photos" / "unet" / "weights.safetensors").write_bytes(b"other")
    assert files.fingerprint() != before


def test_a_link_back_to_its_own_folder_ends(folders: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "mine" / "v2" / "model_index.json")
    (tmp_path / "mine" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert list(folders.find_models([tmp_path])) == [BUNDLED, "mine/v2"]
