"""The models that can be loaded: the bundled ones, and those under ComfyUI's ``models/upsr``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path

from .library import PACK

FOLDER_NAME = "upsr"
LISTED_SUFFIXES = (".pth", ".safetensors")
INDEX = "model_index.json"
BUNDLED_MARK = " (bundled)"
LONELY_MARK = " (its other half is missing)"
FOREIGN_MARK = " (not a checkpoint of UPSR)"


@dataclass(frozen=True)
class ModelFiles:
    """Files of a model.

    Attributes:
        folder: of a model written by `save_pretrained`; for published checkpoints, the folder they are in.
        checkpoints: published checkpoints, in no certain order; empty for a folder of ours.
        config: JSON file with the configuration of published checkpoints; None for the published one.
    """

    folder: Path
    checkpoints: tuple[Path, ...] = ()
    config: Path | None = None

    def fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """Changes with the files: path, size and time of change of each."""
        own = (*self.checkpoints, *([self.config] if self.config else []))
        files = own or sorted(path for path in self.folder.rglob("*") if path.is_file())
        states = [(path, path.stat()) for path in files]
        return tuple((str(path), state.st_size, state.st_mtime_ns) for path, state in states)


def register_folder() -> None:
    """Make the models' folder known to ComfyUI, after those that the user's extra_model_paths.yaml names."""
    import folder_paths

    folder = Path(folder_paths.models_dir) / FOLDER_NAME
    folder_paths.add_model_folder_path(FOLDER_NAME, str(folder))
    # The entry may be the user's own, so it is changed in place; a new one has no suffixes.
    folder_paths.folder_names_and_paths[FOLDER_NAME][1].update(LISTED_SUFFIXES)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logging.info("UPSR: %s was not made (%s); models are looked for in the other folders only", folder, error)


def list_models() -> dict[str, ModelFiles]:
    """The models by the names that the user chooses from, the bundled ones first."""
    import folder_paths

    return find_models(folder_paths.get_folder_paths(FOLDER_NAME))


def find_models(roots: Iterable[str | Path]) -> dict[str, ModelFiles]:
    """As `list_models`, for these folders; of two models of one name the first folder's counts."""
    bundled = PACK / "upsr_core" / "checkpoints"
    models = {path.parent.name + BUNDLED_MARK: ModelFiles(path.parent) for path in sorted(bundled.glob(f"*/{INDEX}"))}
    for root in roots:
        for name, files in sorted(_models_under(Path(root))):
            models.setdefault(name, files)
    return models


def _models_under(root: Path) -> Iterator[tuple[str, ModelFiles]]:
    visited: set[str] = set()
    for parent, folders, names in os.walk(root, followlinks=True):
        # A link may lead back to where it is.
        if (real := os.path.realpath(parent)) in visited:
            folders.clear()
            continue
        visited.add(real)
        folder = Path(parent)
        relative = folder.relative_to(root).as_posix()
        if INDEX in names:
            folders.clear()
            yield (root.name if folder == root else relative), ModelFiles(folder)
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        checkpoints = sorted(folder / name for name in names if name.lower().endswith(LISTED_SUFFIXES))
        configs = [folder / name for name in names if name.lower().endswith(".json")]
        config = configs[0] if len(configs) == 1 else None
        prefix = "" if folder == root else f"{relative}/"
        if len(checkpoints) == 2 and prefix:
            yield relative, ModelFiles(folder, tuple(checkpoints), config)
            continue
        for name, files in _pairs(checkpoints):
            yield prefix + name, ModelFiles(folder, files, config)


def _pairs(checkpoints: Sequence[Path]) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Each denoiser with each SR network; files without a partner carry the reason in their name."""
    roles = {path: _role(path, *_state(path)) for path in checkpoints}
    for first, second in combinations(checkpoints, 2):
        if None not in (roles[first], roles[second]) and roles[first] != roles[second]:
            yield f"{first.name} + {second.name}", (first, second)
    for path, role in roles.items():
        if role is None:
            yield path.name + FOREIGN_MARK, (path,)
        elif set(roles.values()) <= {role, None}:
            yield path.name + LONELY_MARK, (path,)


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change; zeros for a link to nothing."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


@lru_cache(maxsize=256)
def _role(path: Path, _size: int, _changed: int) -> str | None:
    """Which network a file holds; ComfyUI asks for the list often, so looked up once a state of the file."""
    from upsr_core.published.roles import role_in_head

    return role_in_head(path)
