"""Figures of the ablation notebook: masks by row, effects with intervals, fair gains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns

from ..data.sample import Sample
from .colours import class_colours
from .figures import ShownFigure
from .panels import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SKY,
    Labels,
    large,
    painted,
    plain,
    present,
    show,
    swatches,
)

Pair = tuple[float, float]


def masks_by_row(
    samples: Sequence[Sample], found: Mapping[str, Sequence[Labels]], classes: Sequence[str]
) -> ShownFigure:
    """Images in rows; the image, what each network makes of it, the exact mask."""
    columns = len(found) + 2
    told = {k: n for s in samples for k, n in present(s.labels, classes).items()}
    alt = f"{len(samples)} images with {', '.join(told.values())}: masks of {', '.join(found)}"
    figure = ShownFigure(1.55 * columns, 1.68 * len(samples) + 0.6, alt)
    for index, (axes, sample) in enumerate(
        zip(figure.subplots(len(samples), columns, squeeze=False), samples, strict=True)
    ):
        masks = {**{name: labels[index] for name, labels in found.items()}, "exact": sample.mask}
        show(axes[0], large(sample.image), "" if index else "image")
        for place, (name, mask) in zip(axes[1:], masks.items(), strict=True):
            show(place, painted(sample.image, np.asarray(mask)), "" if index else fill(name, 14))
    colours = class_colours(len(classes) + 1)
    seen = np.concatenate([np.unique(mask) for masks in found.values() for mask in masks])
    names = {classes[c - 1]: colours[c] for c in sorted({*told, *seen.tolist()} - {0, 255})}
    options: dict[str, Any] = {"loc": "outside lower center", "ncols": 8, "handlelength": 1}
    figure.legend(handles=swatches(names), frameon=False, fontsize=9, **options)
    return figure


def effect_plot(
    gains: Mapping[str, pd.DataFrame],
    paper: Mapping[str, Mapping[str, float]],
    interval: Callable[[Any], tuple[float, float, float]],
    images: Mapping[str, Pair] | None = None,
) -> ShownFigure:
    """What each row gains over the baseline, a panel a metric: seeds, their 95 % interval, paper.

    gains: metric -> rows by seeds, points; images: the interval over images, first panel alone.
    """
    told = [
        f"{metric}: " + ", ".join(f"{n} {v:+.1f}" for n, v in table.mean(axis=1).items())
        for metric, table in gains.items()
    ]
    count = len(next(iter(gains.values())))
    alt = f"Gain over the baseline in points, mean of seeds. {'; '.join(told)}"
    figure = ShownFigure(1.2 + 3.3 * len(gains), 1.4 + 0.62 * count, alt)
    panels = figure.subplots(1, len(gains), sharey=True, squeeze=False)[0]
    handles: dict[str, Any] = {}
    for axes, (metric, table) in zip(panels, gains.items(), strict=True):
        axes.axvline(0, color=INK, lw=1)
        for place, row in enumerate(map(str, table.index)):
            mean, *ends = interval(table.loc[row].dropna())
            level = [place] * 2
            (handles["95 % over seeds"],) = axes.plot(
                ends, level, color=SKY, lw=9, alpha=0.5, solid_capstyle="butt"
            )
            (handles["their mean"],) = axes.plot(mean, place, "|", color=BLUE, ms=17, mew=2.5)
            if images and axes is panels[0]:
                (handles["95 % over images"],) = axes.plot(
                    images[row], [place + 0.28] * 2, color=INK, lw=2, solid_capstyle="butt"
                )
            if row in paper.get(metric, {}):
                (handles["the paper"],) = axes.plot(
                    paper[metric][row], place - 0.28, "D", color=ORANGE, ms=8, mec="white"
                )
        long = table.rename_axis("row").reset_index().melt("row", value_name="gain")
        dots: dict[str, Any] = {"size": 6.5, "edgecolor": "white", "linewidth": 0.8, "zorder": 4}
        sns.stripplot(
            long, x="gain", y="row", ax=axes, color=BLUE, jitter=False, legend=False, **dots
        )
        axes.set(xlabel="points above the baseline", ylabel="", title=metric)
        axes.set_ylim(count - 0.5, -0.6)
        plain(axes)
    dot = {"a training": panels[0].plot([], [], "o", color=BLUE, mec="white", ms=7)[0]}
    options: dict[str, Any] = {"loc": "outside lower center", "ncols": 5, "frameon": False}
    figure.legend([*dot.values(), *handles.values()], [*dot, *handles], fontsize=9, **options)
    return figure


def grid_plot(
    table: pd.DataFrame,
    axis: str,
    measures: Sequence[str],
    interval: Callable[[Any], tuple[float, float, float]],
) -> ShownFigure:
    """Measures against a setting: a panel a measure and score, a line a row of the ablation.

    table: tidy, with the columns row, score, seed, `axis` and the measures (percent). Lines are
    means over seeds, bars their 95 % intervals, dots the trainings.
    """
    scores, rows = table["score"].unique(), table["row"].unique()
    points = sorted(table[axis].unique())
    figure = ShownFigure(1 + 2.9 * len(measures), 0.9 + 2.5 * len(scores))
    panels = figure.subplots(len(scores), len(measures), sharex=True, sharey="col", squeeze=False)
    told, name = [], axis.split(".")[-1].replace("_", "-")
    for (score, measure), axes in zip(
        [(s, m) for s in scores for m in measures], panels.flat, strict=True
    ):
        for number, (row, colour) in enumerate(zip(rows, (INK, ORANGE, SKY, BLUE), strict=False)):
            here = table[(table["row"] == row) & (table["score"] == score)]
            values = [here.loc[here[axis] == point, measure].dropna() for point in points]
            found = [(p, v) for p, v in zip(range(len(points)), values, strict=True) if len(v)]
            place = np.array([p for p, _ in found]) + 0.07 * (number - (len(rows) - 1) / 2)
            mean, low, high = np.transpose([interval(v) for _, v in found])
            axes.errorbar(
                place,
                mean,
                np.nan_to_num([mean - low, high - mean]),
                fmt="o-",
                color=colour,
                capsize=3,
                ms=5,
                label=row,
            )
            for x, (_, seeds) in zip(place, found, strict=True):
                axes.plot([x] * len(seeds), seeds, ".", color=colour, alpha=0.5, ms=5)
            at = (f"{points[p]:g} {m:.1f}" for (p, _), m in zip(found, mean, strict=True))
            told.append(f"{score}, {measure}, {row}: {', '.join(at)}")
        axes.set_xticks(range(len(points)), [f"{point:g}" for point in points])
        axes.set_xlim(-0.4, len(points) - 0.6)
        axes.set_title(f"{measure}, {score}" if len(scores) > 1 else measure, fontsize=10)
        plain(axes)
    for axes in panels[-1]:
        axes.set_xlabel(name)
    panels[0, 0].set_ylabel("%")
    options: dict[str, Any] = {"loc": "outside lower center", "ncols": 4, "frameon": False}
    figure.legend(*panels[0, 0].get_legend_handles_labels(), fontsize=9, **options)
    figure.alt = f"Measures against {name}, means over seeds. {'; '.join(told)}"
    return figure


def like_for_like(tables: Mapping[str, Mapping[str, Pair]]) -> ShownFigure:
    """mIoU without and with image labels given, a panel a table, a line a network (two of them);
    the arrow compares what must not be compared."""
    figure, told = ShownFigure(4.1 * len(tables), 4.2), []
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        low, high = table.values()
        for (name, pair), colour in zip(table.items(), (GREY, BLUE), strict=True):
            axes.plot([0, 1], pair, "o-", color=colour, lw=2.4, ms=8, label=name)
        fair, mixed = [b - a for a, b in zip(low, high, strict=True)], high[1] - low[0]
        arrow: dict[str, Any] = {"arrowstyle": "->", "color": ORANGE, "ls": "--", "lw": 1.8}
        axes.annotate("", (1, high[1]), (0, low[0]), arrowprops=arrow)
        axes.text(0.62, low[0], f"mixed {mixed:+.2f}", color=ORANGE, ha="center")
        for x, gain, side in zip((-0.06, 1.06), fair, ("right", "left"), strict=True):
            place = (low[x > 0] + high[x > 0]) / 2
            axes.text(x, place, f"fair\n{gain:+.2f}", ha=side, va="center", color=INK)
        axes.set(xlim=(-0.35, 1.35), title=title)
        axes.margins(y=0.15)
        axes.set_xticks([0, 1], ["classes found\nby the network", "image labels\ngiven"])
        plain(axes)
        told.append(f"{title}: {fair[1]:+.2f} like for like, {mixed:+.2f} mixed")
    panels[0].set_ylabel("mIoU, %")
    panels[0].legend(frameon=False, fontsize=9, loc="upper left")
    figure.alt = f"mIoU with and without image labels given. {'; '.join(told)}"
    return figure
