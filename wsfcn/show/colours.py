"""Colours of classes, and label maps painted over images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ..data.sample import IGNORE

Colours = NDArray[np.uint8]
"""(n, 3) uint8 RGB."""

# Background, then the seven colours of Okabe and Ito, "Color Universal Design" (2008), without
# black; each further one is the colour of middle lightness that lies farthest, in CIELAB, from
# all before it in the eyes of normal, red-, green- and blue-blind readers.
_CLASSES = np.frombuffer(
    bytes.fromhex("""
    dedede e69f00 56b4e9 009e73 f0e442 0072b2 d55e00 cc79a7 8b00ff 742e17 5d2e5d 00ff8b 4617a2
    8b74ff ff005d a2d1a2 a24617 b9a246 8b2e8b 5d7446 8be8ff 8b17d1 d117b9 745d74 8be85d d1b9d1
    46d174 b98bff 00462e 5d178b ff5d8b e874d1 8b46ff 0017d1 74b9a2 8b46d1 ffb900 b9005d 8b74d1
    8b002e 74742e d12e8b 740074 2e5d46 e8002e d1a2d1 8bd1ff b9d1b9 a2745d 1700ff 742eb9 e82eff
    d17446 8b74a2 b9e8b9 5d00b9 a20046 a2a274 742ee8 e88b2e d1b946 5d4674 742ea2 5de88b 5da28b
    ff17d1 ff00b9 8b2e00 a274e8 8b46a2 741746 8bb95d e88bb9 2e8b74 b9b98b 5dd1e8 74ff5d 74d15d
    74e874 a28be8 748b2e"""),
    np.uint8,
).reshape(-1, 3)


def voc_palette() -> Colours:
    """(256, 3): the colours of PASCAL VOC's masks, index 255 (ignore) included: the bits of an
    index, three at a time, become the highest bits of red, green and blue."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    by_channel = np.pad(bits, ((0, 0), (0, 1))).reshape(256, 3, 3)
    return np.packbits(by_channel, axis=1)[:, 0]


def class_colours(n: int) -> Colours:
    """(n, 3): index 0 is a light grey for the background, 1..n-1 are told apart by everybody.

    A class keeps its colour for any n. Beyond some 20 classes neighbours grow alike, so write
    names beside colours; from the 81st class on they repeat.
    """
    index = np.arange(n)
    return _CLASSES[np.where(index > 0, (index - 1) % (len(_CLASSES) - 1) + 1, 0)]


def overlay(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    alpha: float = 0.55,
    colours: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """The image with every class tinted, and a solid line one pixel wide along its border.

    image (H, W, 3), labels (H, W) uint8 with 0 background and 255 ignore, both left as they are.
    alpha: strength of the tint, 0..1. colours: one per label, class_colours where not given.
    """
    if labels.shape != image.shape[:2]:
        raise ValueError(f"labels: shape {labels.shape} does not fit an image {image.shape}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: must be between 0 and 1, not {alpha}")
    table = class_colours(256) if colours is None else np.asarray(colours, np.uint8)
    classes = (labels > 0) & (labels < IGNORE)
    highest = int(labels[classes].max(initial=0))
    if highest >= len(table):
        raise ValueError(f"labels: class {highest} has no colour among the {len(table)} given")
    cross = ndimage.generate_binary_structure(2, 1)
    border = ndimage.morphological_gradient(labels, footprint=cross, mode="nearest") > 0
    strength = np.where(border, 255, round(255 * alpha)).astype(np.uint8) * classes
    painted = Image.fromarray(table[np.where(classes, labels, 0)])
    whole = Image.composite(painted, Image.fromarray(image), Image.fromarray(strength))
    return np.array(whole)
