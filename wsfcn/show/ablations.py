"""Figures of the ablation notebook: masks by row, effects with intervals, costs, protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    """Scenes in rows; the scene, what each network makes of it, the exact mask."""
    columns, told = len(found) + 2, {}
    for sample in samples:
        told |= present(sample.labels, classes)
    alt = (
        f"{len(samples)} scenes with {', '.join(told.values())}: masks of {', '.join(found)}, exact"
    )
    figure = ShownFigure(1.55 * columns, 1.68 * len(samples) + 0.6, alt)
    for index, (axes, sample) in enumerate(
        zip(figure.subplots(len(samples), columns, squeeze=False), samples, strict=True)
    ):
        masks = {**{name: labels[index] for name, labels in found.items()}, "exact": sample.mask}
        show(axes[0], large(sample.image), "" if index else "scene")
        for place, (name, mask) in zip(axes[1:], masks.items(), strict=True):
            show(place, painted(sample.image, np.asarray(mask)), "" if index else name)
    colours = class_colours(len(classes) + 1)
    seen = np.unique([np.asarray(m) for masks in found.values() for m in masks])
    names = {classes[c - 1]: colours[c] for c in sorted({*told, *seen.tolist()} - {0, 255})}
    handles, more = swatches(names), {"loc": "outside lower center", "handlelength": 1}
    figure.legend(handles=handles, ncols=8, frameon=False, fontsize=9, **more)
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
    figure = ShownFigure(1.2 + 3.6 * len(gains), 1.5 + 0.52 * len(next(iter(gains.values()))))
    figure.alt = f"Gain over the baseline in points, mean of seeds. {'; '.join(told)}"
    panels = figure.subplots(1, len(gains), sharey=True, squeeze=False)[0]
    for number, (axes, (metric, table)) in enumerate(zip(panels, gains.items(), strict=True)):
        rows = [*table.index]
        axes.axvline(0, color=INK, lw=1)
        for place, row in enumerate(rows):
            mean, low, high = interval(table.loc[row].dropna())
            axes.plot(
                [low, high], [place, place], color=BLUE, lw=7, alpha=0.35, label="95 %, seeds"
            )
            axes.plot(mean, place, "|", color=BLUE, ms=16, mew=2.5, label="mean of seeds")
            if images and not number and row in images:
                pair = images[row]
                axes.plot(pair, [place + 0.27] * 2, color=INK, lw=1.5, label="95 %, images")
            if row in paper.get(metric, {}):
                diamond = {"color": ORANGE, "ms": 9, "mec": "white", "label": "paper, one run"}
                axes.plot(paper[metric][row], place - 0.27, "D", **diamond)
        long = table.rename_axis("row").reset_index().melt("row", value_name="gain")
        points = {"color": BLUE, "size": 6, "jitter": False, "edgecolor": "white", "linewidth": 0.8}
        sns.stripplot(long, x="gain", y="row", order=rows, ax=axes, zorder=4, **points)
        axes.set(xlabel="points above the baseline", ylabel="", title=metric)
        plain(axes)
    handles = {
        t: h for axes in panels for h, t in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    dot = panels[0].plot([], [], "o", color=BLUE, mec="white", label="a seed")[0]
    handles = {"a seed": dot} | handles
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": 5, "frameon": False}
    figure.legend(handles.values(), handles.keys(), fontsize=9, **place)
    return figure


def protocol_plot(scores: pd.DataFrame) -> ShownFigure:
    """Two networks (columns) under several protocols (rows): each a dot, their gap a line."""
    first, second = scores.columns
    told = ", ".join(f"{n} {a:.1f} and {b:.1f}" for n, (a, b) in scores.iterrows())
    figure = ShownFigure(8, 1.1 + 0.45 * len(scores), f"mIoU of {first} and {second}: {told}")
    axes, places = figure.subplots(), np.arange(len(scores))
    axes.hlines(places, scores[first], scores[second], color=GREY, lw=2, zorder=1)
    for name, colour in ((first, GREY), (second, BLUE)):
        axes.scatter(scores[name], places, s=70, color=colour, label=name, zorder=2)
    for place, (a, b) in enumerate(scores.to_numpy()):
        offset: dict[str, Any] = {"xytext": (10, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{b - a:+.1f}", (max(a, b), place), color=INK, fontsize=9, **offset)
    axes.set_yticks(places, [*scores.index])
    axes.set(xlabel="mIoU, %", ylim=(len(scores) - 0.5, -0.5))
    axes.margins(x=0.12)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    plain(axes)
    return figure


def like_for_like(tables: Mapping[str, Mapping[str, Pair]]) -> ShownFigure:
    """mIoU without and with image labels given, a panel a table, a line a network (two of them);
    the diagonal compares what must not be compared."""
    figure, told = ShownFigure(4.3 * len(tables), 3.9), []
    for axes, (title, table) in zip(
        figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True
    ):
        (low_name, low), (high_name, high) = table.items()
        for name, pair, colour in ((low_name, low, GREY), (high_name, high, BLUE)):
            axes.plot([0, 1], pair, "o-", color=colour, lw=2.4, ms=8, label=name)
        fair, mixed = high[1] - low[1], high[1] - low[0]
        axes.annotate(
            "",
            (1, high[1]),
            (0, low[0]),
            arrowprops={"arrowstyle": "->", "color": ORANGE, "ls": "--", "lw": 1.6},
        )
        axes.text(0.42, (low[0] + high[1]) / 2, f"mixed {mixed:+.2f}", color=ORANGE, va="top")
        axes.text(1.04, (low[1] + high[1]) / 2, f"fair\n{fair:+.2f}", va="center", color=INK)
        axes.text(
            -0.04,
            (low[0] + high[0]) / 2,
            f"fair\n{high[0] - low[0]:+.2f}",
            va="center",
            ha="right",
            color=INK,
        )
        axes.set(xticks=[0, 1], xlim=(-0.3, 1.3), ylabel="mIoU, %", title=title)
        axes.set_xticklabels(["classes found\nby the network", "image labels\ngiven"])
        axes.legend(frameon=False, fontsize=9, loc="upper left")
        plain(axes)
        told.append(f"{title}: {fair:+.2f} like for like, {mixed:+.2f} mixed")
    figure.alt = f"mIoU with and without image labels given. {'; '.join(told)}"
    return figure
