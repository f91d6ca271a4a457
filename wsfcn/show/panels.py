"""What the figures of the notebooks have in common: colours, painted masks, plain axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from ..data.sample import IGNORE
from .colours import overlay

Image8 = NDArray[np.uint8]  # (H, W, 3) RGB
Labels = NDArray[np.uint8]  # (H, W), 0 background, 255 ignore

# Okabe and Ito, told apart by everyone.
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
INK, GREY = "0.2", "0.55"
FINE = 384  # px; smaller images are enlarged to this, so that outlines stay thin
UNSURE = (255, 255, 255)


def large(image: Image8) -> Image8:
    """The image (H, W, 3), enlarged smoothly by a whole factor to at least FINE px."""
    factor = -(-FINE // max(image.shape[:2]))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def painted(
    image: Image8, labels: Labels, alpha: float = 0.75, colours: Image8 | None = None
) -> Image8:
    """The image large, pale and grey, classes in colour over it; white where nothing is known."""
    fine_image = large(image)
    factor = fine_image.shape[0] // labels.shape[0]
    fine = labels.repeat(factor, 0).repeat(factor, 1)
    grey = np.asarray(Image.fromarray(fine_image).convert("L"), np.float32)
    pale = (140 + 0.42 * grey).astype(np.uint8)
    result = overlay(np.repeat(pale[..., None], 3, axis=2), fine, alpha, colours)
    result[fine == IGNORE] = UNSURE
    return result


def show(axes: Axes, image: NDArray[Any], title: str = "", **options: Any) -> Any:
    """A picture without ticks or lines around it."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11)
    return axes.imshow(image, **options)


def swatches(entries: Mapping[str, Any]) -> list[Patch]:
    """Handles of a legend: name -> colour (red, green, blue), 0..255."""
    return [Patch(fc=np.asarray(c) / 255, ec=INK, lw=0.5, label=n) for n, c in entries.items()]


def key(axes: Axes, entries: Mapping[str, Any], columns: int = 2, size: float = 9) -> None:
    """Swatches below the axes: name -> colour as in `swatches`."""
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.01)}
    place["ncols"] = min(columns, len(entries) or 1)
    narrow: dict[str, Any] = {"handlelength": 0.9, "handletextpad": 0.4, "columnspacing": 0.8}
    narrow |= {"labelspacing": 0.25, "borderpad": 0.2, "fontsize": size}
    axes.legend(handles=swatches(entries), frameon=False, **place, **narrow)


def plain(axes: Axes) -> None:
    """Axes for a plot: a faint grid, two sides open."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def present(labels: NDArray[Any], classes: Sequence[str]) -> dict[int, str]:
    """Index in label maps -> name, of the classes in the image labels (K,)."""
    return {k + 1: classes[k] for k in np.flatnonzero(labels).tolist()}
