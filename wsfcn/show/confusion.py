"""Which classes are taken for which: the confusion matrix as a heat map."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..evaluate import Score
from .figures import ShownFigure


def confusion_map(score: Score) -> ShownFigure:
    """Share of each true class (row) by predicted class (column), in percent.

    Classes that occur nowhere are left out; a row without any true pixel is grey.
    """
    counts = np.array(score.confusion, float)
    shown = np.flatnonzero(counts.sum(0) + counts.sum(1))
    counts, names = counts[np.ix_(shown, shown)], np.array([*score.per_class])[shown].tolist()
    totals = counts.sum(1, keepdims=True)
    shares = 100 * np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    wrong = np.nan_to_num(shares * (1 - np.eye(len(shares))))
    worst = zip(*np.unravel_index(np.argsort(-wrong, axis=None)[:3], wrong.shape), strict=True)
    told = [f"{names[a]} for {names[b]} {wrong[a, b]:.0f} %" for a, b in worst if wrong[a, b] > 0.5]
    alt = f"Confusion of {len(names)} classes. Most often taken: {', '.join(told) or 'none'}"
    side = 2.2 + 0.3 * len(names)
    figure = ShownFigure(side + 0.8, side, alt)
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    picture = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(labelsize=8)
    if len(names) <= 25:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 1:
                ink: Any = {"c": "black" if share > 50 else "white", "fontsize": 7}
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", **ink)
    figure.colorbar(picture, ax=axes, shrink=0.7, label="% of the true pixels")
    return figure
