"""Figures of the notebook 07_failure_cases: cases, causes, sizes, pairs of scenes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgb

from .figures import ShownFigure
from .panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    Image8,
    large,
    painted,
    plain,
    show,
    swatches,
)

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


def case_rows(cases: Sequence[Case], width: float = 10.5) -> ShownFigure:
    """A row for each case: image, prediction, exact mask, errors by cause, and why."""
    shapes = [case.truth.shape for case in cases]
    tall = [max(1.35, width / 5.7 * height / wide) for height, wide in shapes]  # inches
    figure = ShownFigure(width, 0.7 + sum(tall), layout="compressed")
    titles = ("image", "prediction", "exact mask", "errors by cause", "why")
    widths = (1, 1, 1, 1, 1.5)
    grid = figure.subplots(len(cases), 5, squeeze=False, width_ratios=widths, height_ratios=tall)
    for case, row in zip(cases, grid, strict=True):
        image = case.sample.image
        pictures = (large(image), *(painted(image, m) for m in (case.prediction, case.truth)))
        for axes, picture in zip(row, (*pictures, error_map(case)), strict=False):
            show(axes, picture)
        for axes, labels in ((row[1], case.prediction), (row[2], case.truth)):
            axes.set_xlabel(_names(case, labels), fontsize=9)
        row[3].set_xlabel(f"mIoU {100 * case.iou:.0f} %", fontsize=9)
        row[4].set_axis_off()
        why = "\n".join(textwrap.fill(line, 37) for line in case.why[:3]) or "nothing notable"
        row[4].text(0, 1, why, va="top", fontsize=9.5, transform=row[4].transAxes)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=11)
    named = {c: 255 * np.array(to_rgb(v)) for c, v in cause_colours(cases).items()}
    figure.legend(
        handles=swatches(named), loc="outside lower center", ncols=6, frameon=False, fontsize=9
    )
    figure.alt = "Failures: " + "; ".join(f"{c.sample.id}, {c.main or 'none'}" for c in cases)
    return figure


def strip(columns: Mapping[str, Sequence[Case | Image8]]) -> ShownFigure:
    """A column for each title: images as they are, cases as predictions with mIoU."""
    count = len(next(iter(columns.values())))
    figure = ShownFigure(10, 0.3 + (10 / len(columns) + 0.25) * count, layout="compressed")
    grid = figure.subplots(count, len(columns), squeeze=False)
    told = []
    for axes, (title, cells) in zip(grid.T, columns.items(), strict=True):
        for row, one in zip(axes, cells, strict=True):
            if isinstance(one, np.ndarray):
                show(row, large(one))
            else:
                show(row, painted(one.sample.image, one.prediction))
                row.set_xlabel(f"{_names(one, one.prediction)}: {100 * one.iou:.0f} %", fontsize=9)
                told.append(f"{' '.join(title.split())} {100 * one.iou:.0f} %")
        axes[0].set_title(title, fontsize=11)
    figure.alt = f"Scenes and predictions in {len(columns)} columns. mIoU: {', '.join(told)}"
    return figure


def cause_bars(counts: pd.DataFrame, images: int) -> ShownFigure:
    """What `count_causes` found in so many images: by images, wrong pixels, and mIoU."""
    titles = {
        "main cause": f"main cause in how many of {images} images",
        "% of wrong pixels": "share of all wrong pixels, %",
        "gain": "mIoU gained if repaired, points",
    }
    figure = ShownFigure(10, 2.9)
    for axes, (column, title) in zip(
        figure.subplots(1, 3, sharey=True), titles.items(), strict=True
    ):
        sns.barplot(counts, x=column, y=counts.index, hue=counts.index, palette=_COLOURS, ax=axes)
        for bars in axes.containers:
            axes.bar_label(bars, fmt="%.0f" if column == "main cause" else "%.1f", padding=3)
        axes.set(title=title, xlabel="", ylabel="")
        axes.title.set_fontsize(10)
        axes.margins(x=0.18)
        plain(axes)
    told = [
        f"{c}: {row['main cause']:.0f}, {row['gain']:.1f} points" for c, row in counts.iterrows()
    ]
    figure.alt = "Images by main cause, and mIoU gained if it is repaired. " + "; ".join(told)
    return figure


def by_size(objects: pd.DataFrame, small: float) -> ShownFigure:
    """IoU of each object by its area, with means of bins; `small`: where the cause begins, %."""
    figure = ShownFigure(7.2, 3.7)
    axes = figure.subplots()
    bins = pd.cut(objects["area"], [0.1, 0.4, 1, 3, 6, 12, 25, 100])
    means = objects.groupby(bins, observed=True)[["area", "IoU"]].mean()
    axes.plot(objects["area"], objects["IoU"], "o", color=SKY, ms=4, alpha=0.6, label="an object")
    axes.plot(means["area"], means["IoU"], "s-", color=BLUE, label="mean of similar sizes")
    axes.axvline(small, color=GREY, ls="--", label=f"{small:.0f} %: small")
    axes.set(xscale="log", xlabel="area of the object, % of the image", ylabel="IoU, %")
    axes.set_xticks([0.1, 0.4, 1, 3, 10, 30], ["0.1", "0.4", "1", "3", "10", "30"])
    axes.legend(frameon=False, loc="upper left")
    plain(axes)
    told = [f"{row.area:.1f} %: {row.IoU:.0f}" for row in means.itertuples()]
    figure.alt = f"IoU of objects by area; means, area: IoU: {', '.join(told)}"
    return figure


def conditions(table: pd.DataFrame, x: str, hue: str | None = None) -> ShownFigure:
    """IoU of the same objects under several conditions: each object, and means with 95 % intervals.

    table: a row for each object and condition, columns IoU, x and hue.
    """
    figure = ShownFigure(9, 3.6)
    axes = figure.subplots()
    options = {"data": table, "x": x, "y": "IoU", "hue": hue or x, "ax": axes, "legend": False}
    colours = (BLUE, ORANGE, GREEN, PURPLE)[: table[hue].nunique()] if hue else None
    options |= {"palette": colours} if hue else {"hue": None, "color": BLUE}
    sns.stripplot(**options, dodge=bool(hue), size=3.5, alpha=0.4, jitter=0.15)
    options |= {"legend": "auto" if hue else False}
    marks = {"linestyle": "none", "capsize": 0.08, "markers": "D", "ms": 7, "err_kws": {"lw": 1.8}}
    sns.pointplot(**options, dodge=0.6 if hue else False, seed=0, n_boot=500, **marks)
    axes.set(xlabel="", ylabel="IoU of the objects, %", ylim=(-3, 103))
    plain(axes)
    if hue:
        axes.legend(frameon=False, title=hue, loc="center left", bbox_to_anchor=(1, 0.5))
    means = table.groupby([x, *([hue] if hue else [])], sort=False, observed=True)["IoU"].mean()
    names = [k if isinstance(k, str) else ", ".join(k) for k in means.index]
    told = [f"{' '.join(n.split())}: {v:.0f}" for n, v in zip(names, means, strict=True)]
    figure.alt = f"IoU of the same objects in percent, means: {'; '.join(told)}"
    return figure


def _names(case: Case, labels: Image8) -> str:
    counts = np.bincount(labels.ravel(), minlength=256)[1 : len(case.classes) + 1]
    named = [case.classes[i] for i in np.argsort(-counts) if counts[i] > 0.003 * labels.size]
    return ", ".join(named) or "nothing"
