"""``python trainer/preview_degradation.py --config FILE [key.sub=value ...] -o sheet.png [--count N]``"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

if __name__ == "__main__":
    # As in train.py: an uninstalled clone works, and the modules beside this one do not shadow libraries.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
import torch.nn.functional as F

from trainer.config import STAGES, TrainConfig, load_config
from trainer.data.batches import Batches, derived_seed
from trainer.data.sources.base import ImageSource
from trainer.preparation import prepare_images
from trainer.typed_yaml import ConfigError
from upsr_core.pixels import to_pil

COLUMNS = 3
GAP = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0: the sheet is written, 2: it could not be."""
    parser = argparse.ArgumentParser(
        prog="preview_degradation.py",
        description="Write a sheet of the first pairs of a training, LR beside HR, as the trainer will see them.",
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see trainer/configs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--count", type=int, default=12, help="number of pairs (default: 12)")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="values that replace the file's")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.count < 1:
        parser.error(f"--count must be at least 1, not {arguments.count}")
    if arguments.output.suffix.lower() != ".png":
        parser.error(f"-o must name a .png file, not {arguments.output}")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("trainer").setLevel(logging.INFO)
    try:
        config = load_config(arguments.config, arguments.overrides)
        # Held-out images are not looked at, so they need not be there.
        training = dataclasses.replace(config.data, val_dir=None, val_lr_dir=None, val_shards=None, val_dataset=None)
        config = dataclasses.replace(config, data=training)
        source = prepare_images(config).train
        to_pil(pair_sheet(first_pairs(config, source, arguments.count))).save(arguments.output)
    except (ConfigError, OSError) as error:
        print(f"preview_degradation.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.output}: {arguments.count} pairs, LR | HR")
    return 0


def first_pairs(config: TrainConfig, source: ImageSource, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The first ``count`` pairs that the first stage trains on, before a pool mixes them.

    Returns:
        lr (3,h,w) and hr (3,s*h,s*w), in [0,1].
    """
    # None of this changes a pair.
    data = dataclasses.replace(config.data, pool_size=0, cache=False, num_workers=0)
    # Where the training would degrade: other devices draw other noise.
    device = torch.device("cuda" if data.degrade_on == "device" and torch.cuda.is_available() else "cpu")
    seed = derived_seed(config.seed, STAGES.index(config.stages[0]))
    batches = Batches(data, source, config.scale, 1, seed, device, rank=0, world_size=1)
    return [(lr[0].cpu(), hr[0].cpu()) for lr, hr in islice(batches.from_micro_step(0), count)]


def pair_sheet(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Pairs in rows of `COLUMNS`, each LR (nearest pixels enlarged) beside HR, on white.

    Args:
        pairs: lr (3,h,w) and hr (3,s*h,s*w), in [0,1].

    Returns:
        (3,H,W) in [0,1].
    """
    tiles = [torch.cat([F.interpolate(lr[None], size=hr.shape[1:])[0], hr], dim=2) for lr, hr in pairs]
    height, width = tiles[0].shape[1:]
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    result = torch.ones(3, rows * (height + GAP) - GAP, columns * (width + GAP) - GAP)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + GAP), i % columns * (width + GAP)
        result[:, top : top + height, left : left + width] = tile
    return result


if __name__ == "__main__":
    sys.exit(main())
