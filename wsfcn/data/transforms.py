"""Training augmentation, keyed so that it depends on no worker and on no order."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from ..recipes import Augment

Pixels = NDArray[np.uint8]


def rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample in one epoch. All three must be 0 or more."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, index])))


def augment(
    image: Pixels, settings: Augment, generator: np.random.Generator, mask: Pixels | None = None
) -> tuple[Pixels, Pixels | None]:
    """A random crop, resized to settings.crop, perhaps mirrored, its colours changed.

    image (H, W, 3) uint8, mask (H, W) uint8 or None -> the same with H = W = settings.crop. A mask
    may be larger than the image, if that was decoded small. The crop covers a share `area` with a
    log-uniform `aspect` (width / height). Brightness, contrast and saturation are multiplied by
    [1 - x, 1 + x], the hue is turned by at most +-`hue`.
    """
    box = _crop(image.shape[1], image.shape[0], settings, generator)
    side = (settings.crop, settings.crop)
    pictures = [Image.fromarray(image).resize(side, Image.Resampling.BICUBIC, box)]
    if mask is not None:
        wide, high = mask.shape[1] / image.shape[1], mask.shape[0] / image.shape[0]
        same = (box[0] * wide, box[1] * high, box[2] * wide, box[3] * high)
        pictures.append(Image.fromarray(mask).resize(side, Image.Resampling.NEAREST, same))
    if generator.random() < settings.flip:
        pictures = [p.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for p in pictures]
    pictures[0] = _change_colours(pictures[0], settings, generator)
    changed, *labels = map(np.array, pictures)
    return changed, labels[0] if labels else None


def pixels_needed(settings: Augment) -> int:
    """Of the shorter side of a photo, so that every crop has twice the pixels it is resized to.

    Smaller, what is left to resize would show (by 1 to 2 of 255 levels); 0: no number is enough.
    """
    share = settings.area[0] * min(settings.aspect[0], 1 / settings.aspect[1])
    return math.ceil(2 * settings.crop / math.sqrt(share)) if share else 0


def _crop(
    width: int, height: int, settings: Augment, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """A box of whole pixels; the largest of an allowed aspect where ten draws do not fit."""
    low, high = (math.log(edge) for edge in settings.aspect)
    for _ in range(10):
        area = width * height * generator.uniform(*settings.area)
        aspect = math.exp(generator.uniform(low, high))
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            left = int(generator.integers(width - across + 1))
            top = int(generator.integers(height - down + 1))
            return left, top, left + across, top + down
    aspect = min(max(width / height, settings.aspect[0]), settings.aspect[1])
    across = min(width, max(1, round(height * aspect)))
    down = min(height, max(1, round(width / aspect)))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def _change_colours(
    picture: Image.Image, settings: Augment, generator: np.random.Generator
) -> Image.Image:
    for enhancer, strength in (
        (ImageEnhance.Brightness, settings.brightness),
        (ImageEnhance.Contrast, settings.contrast),
        (ImageEnhance.Color, settings.saturation),
    ):
        picture = enhancer(picture).enhance(generator.uniform(1 - strength, 1 + strength))
    turn = round(255 * generator.uniform(-settings.hue, settings.hue))
    if turn == 0:  # there and back through HSV would still lose some colour
        return picture
    hue, saturation, value = picture.convert("HSV").split()
    turned = Image.fromarray(np.asarray(hue) + np.uint8(turn % 256))
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def to_tensor(image: Pixels) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div_(255)
