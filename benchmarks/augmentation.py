"""Views of pictures: batched tensor code beside a chain of Pillow operations, picture by picture.

    python benchmarks/augmentation.py [--rounds 9]

The chain is what users of torchvision's and lightly's transforms get for pictures of Pillow, written out with Pillow, since
torchvision is no dependency: crop and resize, mirror, colour jitter in random order (hue through HSV), greyscale, blur, to a tensor,
normalise. Both sides make two of SimCLR's views of each picture, at the same size and probabilities. Ours begins with uint8 squares in
memory, theirs with Pillow images. One process and thread: with workers, theirs runs as often as there are cores, and so does the rest.
"""

from __future__ import annotations

import argparse
import math
import random

import numpy as np
import torch
from contest import Contender, race
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from multiway.batch import ViewSpec
from multiway.data import view_presets
from multiway.data.views import CropSpec, draw_views

VIEW = ViewSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SIZES = {32: (36, 128), 224: (256, 16)}  # side of a view: side of the pictures, how many


def one_view(picture: Image.Image, spec: CropSpec, chance: random.Random) -> Tensor:
    """(3, size, size) normalised, as torchvision's chain on Pillow images has it."""
    side = picture.width
    area, ratio = side * side * chance.uniform(*spec.scale), math.exp(chance.uniform(*_logs(spec.aspect)))
    width, height = min(side, round(math.sqrt(area * ratio))), min(side, round(math.sqrt(area / ratio)))
    left, top = chance.randint(0, side - width), chance.randint(0, side - height)
    box = (left, top, left + width, top + height)
    picture = picture.crop(box).resize((spec.size, spec.size), Image.Resampling.BILINEAR)
    if chance.random() < spec.flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if chance.random() < spec.jitter:
        for number in chance.sample(range(4), 4):
            picture = _coloured(picture, number, spec, chance)
    if chance.random() < spec.grey:
        picture = picture.convert("L").convert("RGB")
    if chance.random() < spec.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(chance.uniform(*spec.sigma)))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div_(255)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (VIEW.mean, VIEW.std))
    return pixels.sub_(mean).div_(std)


def _logs(aspect: float) -> tuple[float, float]:
    return -math.log(aspect), math.log(aspect)


def _coloured(picture: Image.Image, number: int, spec: CropSpec, chance: random.Random) -> Image.Image:
    """One of the four operations of a colour jitter."""
    if number == 3:
        hue, saturation, value = picture.convert("HSV").split()
        turned = np.array(hue, dtype=np.uint8) + np.uint8(int(chance.uniform(-spec.hue, spec.hue) * 255) % 256)
        return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
    kind = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[number]
    by = (spec.brightness, spec.contrast, spec.saturation)[number]
    return kind(picture).enhance(chance.uniform(max(0.0, 1 - by), 1 + by))


def contenders(size: int) -> list[Contender]:
    """`pillow` and `ours` at one side of a view."""
    side, rows = SIZES[size]
    views = view_presets.simclr_cifar(size) if size == 32 else view_presets.simclr(size)
    generator = torch.Generator().manual_seed(0)
    # Smooth pictures: noise, enlarged.
    coarse = torch.rand(rows, 3, 8, 8, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)
    squares = (fine * 255).byte()
    pictures = [Image.fromarray(each.permute(1, 2, 0).contiguous().numpy()) for each in squares]
    chance = random.Random(0)

    def pillow() -> float:
        drawn = [torch.stack([one_view(each, spec, chance) for each in pictures]) for spec in views.views]
        return float(drawn[0][0, 0, 0, 0])

    def ours() -> float:
        numbers = torch.rand(rows, views.draws, dtype=torch.float64, generator=generator)
        return float(draw_views(squares, numbers, views, VIEW)[0][0, 0, 0, 0])

    return [Contender("pillow", "fp32", pillow), Contender("ours", "fp32", ours)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    for size, (_, rows) in SIZES.items():
        times = race(contenders(size), asked.rounds, 1)
        each = {name: 2 * rows / times.median(name) for name in ("pillow", "ours")}
        print(
            f"{size} pixels: Pillow {each['pillow']:.0f} views/s, ours {each['ours']:.0f}, {times.ratio('pillow', 'ours'):.2f}x"
        )


if __name__ == "__main__":
    main()
