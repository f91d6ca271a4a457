"""A contact sheet of a data set: images, and below them what their masks say."""

from __future__ import annotations

import numpy as np

from ..data.sample import Dataset
from .colours import class_colours
from .figures import ShownFigure
from .panels import key, large, painted, present, show


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
    if count < 1 or columns < 1:
        raise ValueError(f"count and columns: must be at least 1, not {count} and {columns}")
    if not 0 <= start < len(dataset):
        raise ValueError(f"start: must be within 0..{len(dataset) - 1}, not {start}")
    samples = [dataset[index] for index in range(start, min(start + count, len(dataset)))]
    colours = class_colours(len(dataset.classes) + 1)
    columns = min(columns, len(samples))
    rows = -(-len(samples) // columns)
    width, height = 1.75 * columns, 3.9 * rows + (0.4 if title else 0)
    figure = ShownFigure(width, height, dpi=150, layout="compressed")
    figure.suptitle(title or "")
    seen: set[str] = set()
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        above, below = grid[2 * row : 2 * row + 2, column]
        if place >= len(samples):
            above.remove()
            below.remove()
            continue
        sample = samples[place]
        names = present(sample.labels, dataset.classes)
        image, mask = large(sample.image), sample.mask
        show(above, image)
        blank = np.full_like(image, 245)
        show(below, blank if mask is None else painted(sample.image, mask, alpha))
        key(below, {name: colours[c] for c, name in names.items()}, size=7.5)
        seen.update(names.values())
    found = ", ".join(sorted(seen)) or "no class"
    figure.alt = f"{len(samples)} images with their masks, showing {found}"
    return figure
