"""A contact sheet of a data set: images, and below them what their masks say."""

from __future__ import annotations

import numpy as np

from ..data.sample import Dataset
from .colours import class_colours
from .figures import ShownFigure
from .panels import key, large, painted, present, show


def contact_sheet(
    dataset: Dataset, count: int = 12, *, columns: int = 6, title: str = "", alpha: float = 0.7
) -> ShownFigure:
    """The first samples in rows: the image, below it the mask with class names.

    What a mask ignores is white. Samples without a mask show the names alone.
    """
    samples = [dataset[index] for index in range(min(count, len(dataset)))]
    colours = class_colours(len(dataset.classes) + 1)
    columns = min(columns, len(samples))
    rows = -(-len(samples) // columns)
    height = 4.05 * rows + (0.4 if title else 0)
    figure = ShownFigure(1.75 * columns, height, dpi=150, layout="compressed")
    figure.suptitle(title)
    seen: set[str] = set()
    for place, sample in enumerate(samples):
        row, column = divmod(place, columns)
        first = 2 * row * columns + column + 1
        names = present(sample.labels, dataset.classes)
        image = large(sample.image)
        show(figure.add_subplot(2 * rows, columns, first), image)
        below = figure.add_subplot(2 * rows, columns, first + columns)
        blank = np.full_like(image, 245)
        show(below, blank if sample.mask is None else painted(sample.image, sample.mask, alpha))
        key(below, {name: colours[c] for c, name in names.items()}, columns=1)
        seen.update(names.values())
    found = ", ".join(sorted(seen)) or "no class"
    figure.alt = f"{len(samples)} images with their masks, showing {found}"
    return figure
