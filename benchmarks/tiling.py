"""Effect of tiling: the difference to the untiled result, and the visibility of the tiles' borders.

    python -m benchmarks.tiling PHOTO... --tile 64 --overlap 16

Every photo is taken as it is for the LR image. A seam would be a step: a mean gradient across the borders of tiles
that differs from the mean gradient elsewhere, in the tiled image but not in the untiled one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import add_model_argument, add_threads_argument, load_model, markdown_table, model_name
from upsr_core import UPSRPipeline
from upsr_core.images.files import read_image
from upsr_core.tiling import plan_tiles


def border_gradient(image: torch.Tensor, tile_size: int, overlap: int, scale: int) -> float:
    """Mean absolute difference between pixels on both sides of tiles' borders, in units of that elsewhere.

    Args:
        image: (1,3,scale*h,scale*w).
        tile_size, overlap, scale: the tiling of the LR image (h,w).
    """
    height, width = (side // scale for side in image.shape[-2:])
    tiles = plan_tiles(height, width, tile_size, overlap)
    at_border, elsewhere = [], []
    for dim, length, edges in (
        (2, height, {edge for tile in tiles for edge in (tile.y0, tile.y1)}),
        (3, width, {edge for tile in tiles for edge in (tile.x0, tile.x1)}),
    ):
        steps = image.diff(dim=dim).abs().mean(dim=[d for d in range(4) if d != dim])
        border = torch.zeros(len(steps), dtype=torch.bool)
        border[[scale * edge - 1 for edge in edges if 0 < edge < length]] = True
        at_border.append(steps[border])
        elsewhere.append(steps[~border])
    return (torch.cat(at_border).mean() / torch.cat(elsewhere).mean()).item()


def compare(pipe: UPSRPipeline, lr: torch.Tensor, tile: int, overlap: int) -> tuple[float, float, float, float]:
    """Mean and largest absolute difference in 8-bit levels, `border_gradient` tiled and untiled."""

    def upscaled(tile_size: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        options: dict[str, Any] = {"tile_size": tile_size, "tile_overlap": overlap, "output_type": "pt"}
        return pipe(lr, generator=generator, **options, return_dict=False)[0]

    images = upscaled(tile), upscaled(0)
    difference = 255 * (images[0] - images[1]).abs()
    borders = [border_gradient(image, tile, overlap, pipe.scale) for image in images]
    return difference.mean().item(), difference.max().item(), borders[0], borders[1]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", help="image files, larger than a tile")
    add_model_argument(parser)
    add_threads_argument(parser)
    parser.add_argument("--tile", type=int, default=64, help="tile size in LR pixels (default: 64)")
    parser.add_argument("--overlap", type=int, default=16, help="in LR pixels (default: 16)")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = load_model(args.model)
    rows = []
    for path in args.photos:
        lr = read_image(path).rgb
        if max(lr.shape[-2:]) <= args.tile:
            parser.error(f"{path}: not larger than a tile of {args.tile}; give a larger photo or a smaller --tile")
        mean, largest, tiled, untiled = compare(pipe, lr, args.tile, args.overlap)
        size = f"{lr.shape[3]}x{lr.shape[2]}"
        rows.append(
            [
                path.name,
                size,
                f"{mean:.3f}",
                f"{largest:.0f}",
                f"{tiled:.3f}",
                f"{untiled:.3f}",
                f"{tiled / untiled:.3f}",
            ]
        )
    print(f"{model_name(args.model)}, tiles of {args.tile} with an overlap of {args.overlap}\n")
    differences = ["mean difference, levels of 255", "largest"]
    gradients = ["gradient at borders / elsewhere", "the same untiled", "tiled / untiled"]
    print(markdown_table(["photo", "LR size", *differences, *gradients], rows))


if __name__ == "__main__":
    main()
