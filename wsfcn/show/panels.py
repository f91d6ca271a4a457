"""What the figures of the notebooks have in common: colours, painted masks, plain axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from ..data.sample import IGNORE
from .colours import overlay

# Okabe and Ito, told apart by everyone.
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
INK, GREY = "0.2", "0.55"
FINE = 256  # px; smaller images are enlarged to this, so that outlines stay thin
UNSURE = (255, 255, 255)


def large(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image (H, W, 3), enlarged smoothly by a whole factor to at least FINE px."""
    factor = -(-FINE // max(image.shape[:2]))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def painted(image: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image pale and grey, classes in colour over it; white where nothing is known."""
    fine_image = large(image)
    factor = fine_image.shape[0] // labels.shape[0]
    fine = labels.repeat(factor, 0).repeat(factor, 1)
    grey = np.asarray(Image.fromarray(fine_image).convert("L"), np.float32)
    pale = (140 + 0.42 * grey).astype(np.uint8)
    painted = overlay(np.repeat(pale[..., None], 3, axis=2), fine, 0.75)
    painted[fine == IGNORE] = UNSURE
    return painted


def key(axes: Axes, entries: Mapping[str, Any]) -> None:
    """A row of swatches below the axes: name -> colour (red, green, blue), 0..255."""
    handles = [Patch(fc=np.asarray(c) / 255, ec=INK, lw=0.5, label=n) for n, c in entries.items()]
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=len(entries) if len(entries) < 4 else 2,
        frameon=False,
        fontsize=9,
        handlelength=0.9,
        handletextpad=0.4,
        columnspacing=0.8,
    )


def frame(axes: Axes) -> None:
    """Axes for a picture: no ticks, no lines around it."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def plain(axes: Axes) -> None:
    """Axes for a plot: a faint grid, two sides open."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
