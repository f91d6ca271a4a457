"""Figures of the notebook 07_failure_cases: cases, causes, sizes, pairs of scenes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb

from .figures import ShownFigure
from .panels import Image8, large, painted, show, swatches

if TYPE_CHECKING:
    from ..study.failures import Case

# Okabe and Ito, in the order of wsfcn.study.failures.CAUSES.
_COLOURS = ("#E69F00", "#CC79A7", "#D55E00", "#56B4E9", "#0072B2", "#009E73")
_TABLE = np.rint(255 * np.array([to_rgb(c) for c in ("w", *_COLOURS)])).astype(np.uint8)


def cause_colours(cases: Sequence[Case]) -> dict[str, str]:
    """Cause -> colour."""
    return dict(zip(cases[0].causes, _COLOURS, strict=True))


def error_map(case: Case) -> Image8:
    """The pale image, each wrong pixel in the colour of its cause."""
    return painted(case.sample.image, case.errors, 0.9, _TABLE)


def case_rows(cases: Sequence[Case], width: float = 9.5) -> ShownFigure:
    """A row for each case: image, prediction, exact mask, errors by cause, and why."""
    figure = ShownFigure(width, 0.55 + width / 5.2 * len(cases), layout="compressed")
    titles = ("image", "prediction", "exact mask", "errors by cause", "why")
    grid = figure.subplots(len(cases), 5, squeeze=False)
    for case, row in zip(cases, grid, strict=True):
        image = case.sample.image
        pictures = (large(image), *(painted(image, m) for m in (case.prediction, case.truth)))
        for axes, picture in zip(row, (*pictures, error_map(case)), strict=False):
            show(axes, picture)
        for axes, labels in ((row[1], case.prediction), (row[2], case.truth)):
            axes.set_xlabel(_names(case, labels), fontsize=9)
        row[3].set_xlabel(f"mIoU {case.iou:.0%}", fontsize=9)
        row[4].set_axis_off()
        why = "\n".join(textwrap.fill(line, 34) for line in case.why[:3]) or "nothing notable"
        row[4].text(0, 1, why, va="top", fontsize=8.5, transform=row[4].transAxes)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=11)
    named = {c: 255 * np.array(to_rgb(v)) for c, v in cause_colours(cases).items()}
    figure.legend(
        handles=swatches(named), loc="outside lower center", ncols=6, frameon=False, fontsize=9
    )
    figure.alt = "Failures: " + "; ".join(f"{c.sample.id}, {c.main or 'none'}" for c in cases)
    return figure


def _names(case: Case, labels: Image8) -> str:
    counts = np.bincount(labels.ravel(), minlength=256)[1 : len(case.classes) + 1]
    named = [case.classes[i] for i in np.argsort(-counts) if counts[i] > 0.003 * labels.size]
    return ", ".join(named) or "nothing"
