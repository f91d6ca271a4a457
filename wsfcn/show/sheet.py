"""A contact sheet of a data set: images, and below them what their masks say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from ..data.sample import IGNORE, Dataset, Sample
from .colours import class_colours, overlay
from .figures import ShownFigure

_CELL = 1.75  # inches, side of an image
_NAMES = 0.42  # inches below an overlay, room for two lines of names
_FINE = 384  # px; smaller images are enlarged to at least this, so that outlines stay thin


def contact_sheet(
    dataset: Dataset,
    count: int = 12,
    *,
    columns: int = 6,
    start: int = 0,
    title: str | None = None,
    alpha: float = 0.7,
) -> ShownFigure:
    """Samples start, start + 1, ... in rows: the image, below it the mask with class names.

    Classes have the colours of `class_colours`, and every name stands beside its colour. What a
    mask ignores is white. Samples without a mask show the names alone.
    """
    samples = _samples(dataset, start, count, columns)
    rows = -(-len(samples) // columns)
    columns = min(columns, len(samples))
    head = 0.4 if title else 0.06
    height = head + rows * (2 * _CELL + _NAMES)
    figure = ShownFigure(
        figsize=(columns * _CELL, height),
        dpi=150,
        facecolor="white",
        alt=_describe(samples, dataset.classes),
    )
    gap = 0.05  # inches around an image
    for place, sample in enumerate(samples):
        row, column = divmod(place, columns)
        top = height - head - row * (2 * _CELL + _NAMES)
        for level, picture in enumerate((_enlarged(sample.image), _mask_picture(sample, alpha))):
            left, bottom = column * _CELL + gap / 2, top - (level + 1) * _CELL + gap / 2
            width = columns * _CELL
            side = _CELL - gap
            axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
            axes.imshow(picture, interpolation="antialiased")
            axes.set_axis_off()
        _write_names(axes, _names(sample, dataset.classes))
    if title:
        figure.text(0.5, 1 - 0.5 * head / height, title, ha="center", va="center", fontsize=12)
    return figure


def _samples(dataset: Dataset, start: int, count: int, columns: int) -> list[Sample]:
    if count < 1 or columns < 1:
        raise ValueError(f"count and columns: must be at least 1, not {count} and {columns}")
    if not 0 <= start < len(dataset):
        raise ValueError(f"start: must be within 0..{len(dataset) - 1}, not {start}")
    return [dataset[index] for index in range(start, min(start + count, len(dataset)))]


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Smoothly, so that a small image does not look like a mosaic beside fine outlines."""
    factor = -(-_FINE // max(image.shape[:2]))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _mask_picture(sample: Sample, alpha: float) -> NDArray[np.uint8]:
    """The image in grey with tinted classes; white where the mask ignores."""
    image = _enlarged(sample.image)
    if sample.mask is None:
        return np.full_like(image, 245)
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)
    pale = (140 + 0.42 * grey).astype(np.uint8)
    factor = image.shape[0] // sample.mask.shape[0]
    mask = sample.mask.repeat(factor, 0).repeat(factor, 1)
    painted = overlay(np.repeat(pale[..., None], 3, axis=2), mask, alpha)
    painted[mask == IGNORE] = 255
    return painted


def _names(sample: Sample, classes: Sequence[str]) -> list[tuple[str, str]]:
    """(name, colour as #rrggbb) of the classes in the image labels."""
    colours = class_colours(len(classes) + 1)
    present = np.flatnonzero(sample.labels).tolist()
    return [(classes[k], "#" + colours[k + 1].tobytes().hex()) for k in present]


def _write_names(axes: Axes, names: list[tuple[str, str]]) -> None:
    handles = [Patch(facecolor=colour, edgecolor="0.2", lw=0.5) for _, colour in names]
    axes.legend(
        handles,
        [name for name, _ in names],
        loc="upper center",
        bbox_to_anchor=(0.5, 0.01),
        ncols=2 if len(names) != 1 else 1,
        frameon=False,
        fontsize=7.5,
        handlelength=0.9,
        handleheight=0.9,
        handletextpad=0.4,
        columnspacing=0.8,
        labelspacing=0.25,
        borderpad=0.2,
    )


def _describe(samples: list[Sample], classes: Sequence[str]) -> str:
    shown = sorted(
        {classes[k] for sample in samples for k in np.flatnonzero(sample.labels).tolist()}
    )
    return f"{len(samples)} images with their masks, showing {', '.join(shown) or 'no class'}"
