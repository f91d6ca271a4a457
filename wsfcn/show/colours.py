"""Colours of classes, and label maps painted over images."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..data.sample import IGNORE

Colours = NDArray[np.uint8]
"""(n, 3) uint8 RGB."""

# Okabe and Ito, "Color Universal Design" (2008), without black: told apart by readers with any
# common colour vision.
_OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_BACKGROUND = (222, 222, 222)

# What dichromats see, in linear RGB: Machado, Oliveira and Fernandes, "A Physiologically-based
# Model for Simulation of Color Vision Deficiency" (2009), severity 1.
_VISIONS = {
    "normal": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
_TO_XYZ = np.array(
    (
        (0.4124564, 0.3575761, 0.1804375),
        (0.2126729, 0.7151522, 0.0721750),
        (0.0193339, 0.1191920, 0.9503041),
    )
)
_WHITE = _TO_XYZ.sum(axis=1)


def voc_palette() -> Colours:
    """(256, 3): the colours of PASCAL VOC's masks, index 255 (ignore) included.

    The bits of an index, three at a time, become the highest bits of red, green and blue.
    """
    palette = np.zeros((256, 3), np.uint8)
    index = np.arange(256)
    for step in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * step + channel)) & 1) << (7 - step)).astype(
                np.uint8
            )
    return palette


@lru_cache(maxsize=16)
def _class_colours(n: int) -> tuple[tuple[int, int, int], ...]:
    candidates = _candidates()
    chosen = [_BACKGROUND, *_OKABE_ITO]
    seen = _as_seen(np.array([*chosen, (0, 0, 0), (255, 255, 255)]))
    views = _as_seen(candidates)
    distance = np.full(len(candidates), np.inf)
    for column in range(seen.shape[1]):
        distance = np.minimum(distance, _distance(views, seen[:, column : column + 1]))
    while len(chosen) < n:
        best = int(distance.argmax())
        red, green, blue = (int(value) for value in candidates[best])
        chosen.append((red, green, blue))
        distance = np.minimum(distance, _distance(views, views[:, best : best + 1]))
    return tuple(chosen[:n])


def class_colours(n: int) -> Colours:
    """(n, 3): index 0 is a light grey for the background, 1..n-1 are told apart by everybody.

    Classes 1 to 7 have the colours of Okabe and Ito; each further one is the colour of middle
    lightness that lies farthest from all others in the eyes of normal, red-, green- and
    blue-blind readers. A class keeps its colour for any n. Beyond some 20 classes neighbours grow
    alike, so write names beside colours.
    """
    return np.array(_class_colours(n), np.uint8).reshape(n, 3)


def _candidates() -> NDArray[np.float64]:
    levels = np.linspace(0, 255, 12).round()
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    light, green, blue = _as_seen(grid)[0].T
    return grid[(light > 25) & (light < 90) & (np.hypot(green, blue) > 15)]


def _as_seen(colours: NDArray) -> NDArray[np.float64]:
    """(n, 3) sRGB 0..255 -> (visions, n, 3) CIELAB."""
    scaled = np.asarray(colours, np.float64) / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    seen = np.stack([linear @ np.array(matrix).T for matrix in _VISIONS.values()]).clip(0, 1)
    ratio = seen @ _TO_XYZ.T / _WHITE
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), -1)


def _distance(first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """The least CIELAB distance over all visions."""
    return np.linalg.norm(first - second, axis=-1).min(axis=0)


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
    table = class_colours(256) if colours is None else np.asarray(colours)
    classes = (labels > 0) & (labels < IGNORE)
    highest = int(labels[classes].max(initial=0))
    if highest >= len(table):
        raise ValueError(f"labels: class {highest} has no colour among the {len(table)} given")
    strength = np.where(_border(labels) & classes, 1, alpha * classes)[..., None]
    painted = table[np.where(classes, labels, 0)]
    return np.rint(image + strength * (painted.astype(np.float32) - image)).astype(np.uint8)


def _border(labels: NDArray) -> NDArray[np.bool_]:
    """Where the neighbour above, below, left or right has another label."""
    border = np.zeros(labels.shape, bool)
    down = labels[1:] != labels[:-1]
    across = labels[:, 1:] != labels[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= across
    border[:, :-1] |= across
    return border
