"""The picture of the README: LR | bicubic | g | UPSR | uncertainty, from one photo.

python -m benchmarks.picture PHOTO strip.png --crop 400 300 256 256
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from benchmarks.common import add_model_argument, add_threads_argument, load_model, upscale_each_way
from upsr_core import UPSRPipeline
from upsr_core.degradation.config import DEGRADATION_PRESETS
from upsr_core.evaluation.run import degradation
from upsr_core.images.files import DecodedImage, ImageFileError, read_image, write_image
from upsr_core.pixels import to_pil
from upsr_core.uncertainty import heat_map

FONT_SIZE, MARGIN, GAP = 18, 6, 6
INK, PAPER = (0, 0, 0), (255, 255, 255)


def panels(pipe: UPSRPipeline, lr: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """What the strip shows of the LR image (1,3,h,w): (1,3,s*h,s*w) in [0,1] by label."""
    images, psi = upscale_each_way(pipe, lr, seed)
    enlarged = F.interpolate(lr, scale_factor=pipe.scale, mode="nearest")
    heat = heat_map(psi, pipe.scheduler.config.psi_max)
    return {"LR": enlarged, **images, f"uncertainty (0 to {pipe.scheduler.config.psi_max:g})": heat}


def strip(images: dict[str, torch.Tensor]) -> torch.Tensor:
    """The images beside each other with their labels below: (1,3,H,W) in [0,1]."""
    height, width = next(iter(images.values())).shape[-2:]
    font = ImageFont.load_default(size=FONT_SIZE)
    canvas = Image.new("RGB", (len(images) * (width + GAP) - GAP, height + FONT_SIZE + 2 * MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, (label, image) in enumerate(images.items()):
        x = column * (width + GAP)
        canvas.paste(to_pil(image[0]), (x, 0))
        draw.text((x + width // 2, height + MARGIN), label, INK, font, anchor="ma")
    return torch.from_numpy(np.array(canvas, dtype=np.float32) / 255).permute(2, 0, 1)[None]


def crop_to(image: torch.Tensor, crop: Sequence[int] | None, scale: int, path: Path) -> torch.Tensor:
    """The part x, y, width, height of the image (1,3,H,W), its size cut down to multiples of the scale."""
    x, y, width, height = crop or (0, 0, image.shape[3], image.shape[2])
    if min(x, y) < 0 or min(width, height) < scale or x + width > image.shape[3] or y + height > image.shape[2]:
        raise ImageFileError(
            f"{path}: --crop {x} {y} {width} {height} is not inside of {image.shape[3]}x{image.shape[2]}; give X Y W H"
        )
    return image[..., y : y + height - height % scale, x : x + width - width % scale].contiguous()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("out", type=Path, help="image file to write")
    add_model_argument(parser)
    add_threads_argument(parser)
    parser.add_argument("--preset", default="mild", choices=sorted(DEGRADATION_PRESETS), help="how to reduce the photo")
    parser.add_argument("--is-lr", action="store_true", help="the photo is the LR image, and not to be reduced")
    parser.add_argument(
        "--crop", type=int, nargs=4, metavar=("X", "Y", "W", "H"), help="part of the photo, in its pixels"
    )
    parser.add_argument("--lr-out", type=Path, help="write the LR image, too")
    parser.add_argument("--original", action="store_true", help="show the photo itself, too")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.is_lr and args.original:
        parser.error("--original needs a photo that is reduced; leave out --is-lr")
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = load_model(args.model)
    photo = crop_to(read_image(args.photo).rgb, args.crop, 1 if args.is_lr else pipe.scale, args.photo)
    lr = photo if args.is_lr else degradation(args.preset, pipe.scale)(photo, [args.seed])
    if args.lr_out:
        write_image(args.lr_out, DecodedImage(lr))
    images = panels(pipe, lr, args.seed)
    if args.original:
        images["photo"] = photo
    write_image(args.out, DecodedImage(strip(images)))


if __name__ == "__main__":
    main()
