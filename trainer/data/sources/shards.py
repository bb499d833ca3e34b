"""WebDataset shards: photos in plain tar files, for what does not fit one disk or is too many files for it.

The webdataset library reads shards from front to end and shuffles what passes by, so where it stands cannot be
saved; here the tar headers are read once, and then every photo has a number and is read from its place. Order,
shuffling and exact resume are those of folders.
"""

from __future__ import annotations

import glob
import io
import logging
import os
import re
import tarfile
from collections.abc import Iterator

import numpy as np

from trainer.data.sources.base import IMAGE_EXTENSIONS, ImageSource, Photo, is_image, read_rgb
from trainer.data.sources.file_index import FileIndex, PackedStrings, kept_index, stamp
from upsr_core.messages import one_line

logger = logging.getLogger("trainer")


class ShardSource(ImageSource):
    """The photos in tar files: one in each sample (WebDataset calls a sample the members that share a name up to
    its first dot); other members, such as labels, are left alone.

    Args:
        pattern: a tar file, a folder of them, or several by ``{000..146}``, ``{a,b}``, ``*``, ``?`` and ``[ab]``.

    Raises:
        ValueError: no such shard, one that cannot be read at random, or no photos in them.
    """

    def __init__(self, pattern: str):
        shards = find_shards(pattern)
        self.title = pattern
        self.index = kept_index(
            "shards",
            os.path.abspath(pattern),
            lambda: _list_shards(shards),
            lambda kept: list(kept.containers) == shards and kept.is_current(),
        )
        if not len(self):
            known = ", ".join(sorted(IMAGE_EXTENSIONS))
            raise ValueError(f"{pattern}: no images in these shards (looked for {known})")

    def __len__(self) -> int:
        return len(self.index.names)

    def name(self, index: int) -> str:
        """The shard's path and the member's name."""
        return self.index.path(index)

    def read(self, index: int) -> Photo:
        """The photo alone; see `ImageSource.read`."""
        offset, size = (int(value) for value in self.index.spans[index])
        with open(self.index.containers[self.index.container[index]], "rb") as shard:
            shard.seek(offset)
            return Photo(read_rgb(io.BytesIO(shard.read(size))))


def find_shards(pattern: str) -> list[str]:
    """Absolute paths of the tar files that a pattern means; see `ShardSource`.

    Raises:
        ValueError: there is none, or one of them is missing.
    """
    if "://" in pattern or pattern.startswith("pipe:"):
        raise ValueError(f"{pattern}: shards must be files that can be read at random; copy or mount them")
    pattern = os.path.expanduser(pattern)
    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "*.tar")
    shards: list[str] = []
    for path in _expand_braces(pattern):
        found = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
        if not found:
            raise ValueError(f"{path}: no such shards")
        shards.extend(os.path.abspath(shard) for shard in found)
    for shard in shards:
        if not os.path.isfile(shard):
            raise ValueError(f"{shard}: no such shard")
    return shards


def _expand_braces(pattern: str) -> Iterator[str]:
    """``x-{08..10}-{a,b}`` -> x-08-a, x-08-b, x-09-a, and so on."""
    group = re.search(r"\{([^{}]*)\}", pattern)
    if group is None:
        yield pattern
        return
    inner = group[1]
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", inner):
        first, last = numbers[1], numbers[2]
        choices = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        if not choices:
            raise ValueError(f"{pattern}: {{{inner}}} counts down; write the smaller number first")
    else:
        choices = inner.split(",")
    for choice in choices:
        yield from _expand_braces(pattern[: group.start()] + choice + pattern[group.end() :])


def _list_shards(shards: list[str]) -> FileIndex:
    logger.info("reading the headers of %d shards", len(shards))
    names: list[str] = []
    spans: list[tuple[int, int]] = []
    counts: list[int] = []
    stamps = [stamp(shard) for shard in shards]
    for shard in shards:
        before = len(names)
        for name, offset, size in _members(shard):
            names.append(name)
            spans.append((offset, size))
        counts.append(len(names) - before)
    container = np.repeat(np.arange(len(shards), dtype=np.int32), counts)
    return FileIndex(
        PackedStrings.pack(shards), np.array(stamps, np.int64), container,
        PackedStrings.pack(names), np.array(spans, np.int64).reshape(-1, 2),
    )  # fmt: skip


def _members(shard: str) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each image in a tar file."""
    sample, image = "", ""
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if not member.isreg() or member.issparse() or not is_image(member.name):
                    continue
                folder, file = os.path.split(member.name)
                previous, sample = sample, os.path.join(folder, file.partition(".")[0])
                if sample == previous:
                    raise ValueError(
                        f"{shard}: sample {sample} holds two images, {image} and {member.name}, and which one is "
                        "meant is not known; write shards with one image in each sample"
                    )
                image = member.name
                yield member.name, member.offset_data, member.size
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"{shard}: cannot be used as a plain tar file ({one_line(error)}); fetch it again, unpack it if it "
            "is compressed, or leave it out"
        ) from error
