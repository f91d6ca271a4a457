"""Figures of the notebook 02_fca_context: reach of the strips, attention, cost, claimed ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from .cams import HEAT
from .figures import ShownFigure
from .panels import BLUE, GREY, INK, ORANGE, SKY, Image8, large, plain, show


def reach(image: Image8, cells: int, strips: Sequence[tuple[int, int]]) -> ShownFigure:
    """For each strip (k, dilation) the k x k cells that its middle output reads.

    image: square, seen as a map of cells x cells. Crosses lie outside, in the padding.
    """
    figure, told = ShownFigure(10.5, 3.2), []
    for axes, (k, d) in zip(figure.subplots(1, len(strips), squeeze=False)[0], strips, strict=True):
        taps = cells // 2 + d * (np.arange(k) - k // 2)
        x, y = np.meshgrid(taps, taps)
        dead = (np.minimum(x, y) < 0) | (np.maximum(x, y) >= cells)
        show(axes, image, f"k = {k}, dilation {d}", extent=(0, cells, cells, 0), alpha=0.8)
        edge = 0.03 * np.ptp(taps) if dead.any() else 0  # room for the outermost crosses
        low, high = min(0, taps[0] - edge), max(cells, taps[-1] + 1 + edge)
        axes.set(xlim=(low, high), ylim=(high, low), facecolor="0.92")
        axes.add_patch(Rectangle((0, 0), cells, cells, fc="none", ec=INK, lw=1.2))
        axes.plot(x[~dead] + 0.5, y[~dead] + 0.5, "s", color=BLUE, ms=5)
        for left, top in zip(x[~dead], y[~dead], strict=True):
            axes.add_patch(Rectangle((left, top), 1, 1, fc=BLUE, ec="white", lw=0.8))
        axes.plot(x[dead] + 0.5, y[dead] + 0.5, "x", color=ORANGE, ms=6, mew=1.8)
        told.append(f"{(~dead).sum()} of {k * k} cells")
        axes.set_xlabel(f"reads {told[-1]}", fontsize=10)
    figure.alt = (
        f"Cells of a {cells} by {cells} map that the middle output of each strip branch reads, a "
        f"k by k lattice; the others lie in the padding. From k = {strips[0][0]} on: "
        + ", ".join(told)
    )
    return figure


def map_grid(
    images: Sequence[Image8],
    names: Sequence[str],
    maps: Mapping[str, Sequence[NDArray[Any]]],
    bar: str,
    alt: str,
) -> ShownFigure:
    """A named row for each image, a column for each title of `maps`; every map from 0 to its
    maximum, or to 1 where the title ends in "(0 to 1)"."""
    columns = 1 + len(maps)
    tall = sum(image.shape[0] / image.shape[1] for image in images)
    figure = ShownFigure(11, 10.4 / columns * tall + 0.5, alt, layout="compressed")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, (axes, image) in enumerate(zip(grid, images, strict=True)):
        show(axes[0], large(image), "" if row else "image")
        axes[0].set_ylabel(names[row], fontsize=10)
        for axis, (title, values) in zip(axes[1:], maps.items(), strict=True):
            top = 1 if title.endswith("(0 to 1)") else values[row].max()
            show(axis, values[row], "" if row else title, cmap=HEAT, vmin=0, vmax=top)
    shown = figure.colorbar(ScalarMappable(cmap=HEAT), ax=grid, fraction=0.02, pad=0.01, aspect=30)
    shown.set_label(bar, fontsize=9)
    return figure


def switches(attention: Mapping[str, NDArray[Any]], branches: Sequence[str]) -> ShownFigure:
    """Channel attention (branches, channels), one panel for each named image."""
    figure = ShownFigure(10.5, 1.05 * len(attention) + 0.4)
    axes = figure.subplots(len(attention), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, values) in zip(axes, attention.items(), strict=True):
        shown = axis.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        axis.set_yticks(range(len(branches)), branches, fontsize=9)
        axis.set_title(name, fontsize=10, loc="left")
    axes[-1].set_xlabel("channel")
    figure.colorbar(shown, ax=axes, pad=0.01, label="attention")
    figure.alt = "Channel attention by branch and channel. Below 0.05 or above 0.95: " + ", ".join(
        f"{((v < 0.05) | (v > 0.95)).mean():.0%} of the values for {n}"
        for n, v in attention.items()
    )
    return figure


def bill(modules: Mapping[str, Mapping[str, tuple[float, float]]]) -> ShownFigure:
    """A panel for each scale: name of a module -> (millions of parameters, GFLOP)."""
    figure = ShownFigure(10.5, 3.6)
    for axes, (scale, costs) in zip(
        figure.subplots(1, len(modules), squeeze=False)[0], modules.items(), strict=True
    ):
        names = sorted(costs, key=lambda name: costs[name][0])
        colours = [BLUE if n == "FCA" else SKY if "FCA" in n else "0.75" for n in names]
        bars = axes.barh(names, [costs[n][0] for n in names], color=colours)
        told = [f"{costs[n][0]:.3g} M, {costs[n][1]:.3g} GFLOP" for n in names]
        axes.bar_label(bars, told, padding=3, fontsize=9)
        axes.set(xlabel="trained parameters, millions", title=scale)
        axes.margins(x=0.75)
        plain(axes)
        lines = ", ".join(f"{n} {text}" for n, text in zip(names, told, strict=True))
        figure.alt += f"{scale}: {lines}. "
    return figure


def taps(gradients: Mapping[tuple[int, int], NDArray[Any]], cells: int) -> ShownFigure:
    """The gradient of each tap against its offset; (k, dilation) -> (k,) norms, 0: a cross."""
    figure = ShownFigure(10, 3)
    axes = figure.subplots()
    axes.axvspan(1 - cells, cells - 1, color=SKY, alpha=0.2, lw=0)
    for row, ((k, d), norms) in enumerate(gradients.items()):
        at, alive = d * (np.arange(k) - k // 2), norms > 0
        sizes = 15 + 250 * norms[alive] / norms.max()
        axes.scatter(at[alive], np.full(alive.sum(), row), sizes, color=BLUE)
        axes.plot(at[~alive], np.full((~alive).sum(), row), "x", color=ORANGE, ms=10, mew=2.4)
    axes.set_yticks(range(len(gradients)), [f"k = {k}, dilation {d}" for k, d in gradients])
    axes.set(ylim=(len(gradients) - 0.4, -0.6), xlabel="offset of the tap from the middle, cells")
    axes.text(0, 3.5, f"offsets that a map of {cells} cells has", ha="center", fontsize=9)
    plain(axes)
    lost = ", ".join(f"{(n == 0).sum()} of {k} for k = {k}" for (k, _), n in gradients.items())
    figure.alt = f"Taps without any gradient on a map of {cells} by {cells} cells: {lost}"
    return figure


def intervals(panels: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> ShownFigure:
    """Panels, three in a row, of (value, low, high) in percent for each name, in two colours."""
    rows, columns = -(-len(panels) // 3), min(3, len(panels))
    figure = ShownFigure(10.5, 2.5 * rows)
    grid = figure.subplots(rows, columns, sharex="col", sharey=True, squeeze=False).ravel()
    for axes, (title, values) in zip(grid, panels.items(), strict=True):
        for place, (name, (value, low, high)) in enumerate(values.items()):
            colour = (GREY, BLUE)[place % 2]
            axes.plot([low, high], [place, place], color=colour, lw=3, solid_capstyle="round")
            axes.plot(value, place, "o", color=colour, ms=8)
            axes.annotate(f"{value:.1f}", (value, place), (0, 7), textcoords="offset points")
            figure.alt += f"{title}, {name}: {value:.1f} ({low:.1f} to {high:.1f}). "
        axes.set_yticks(range(len(values)), [*values])
        axes.set(ylim=(len(values) - 0.5, -0.7))
        axes.set_title(f"{title}, %", fontsize=11)
        plain(axes)
    return figure
