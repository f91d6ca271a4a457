"""Figures of the notebook 03_sf2_semantic_flow: flow fields, sampling grids, streams, effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .figures import ShownFigure
from .panels import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, Image8, key, large, plain, show

COLOURS = [BLUE, ORANGE, GREEN, PURPLE, INK]
Maps = Sequence[NDArray[Any]]
# Right, down, left, up: opposite directions differ in lightness or in blue against yellow.
COMPASS = np.array([[213, 94, 0], [0, 90, 178], [86, 190, 233], [240, 228, 66]]) / 255


def tiles(
    rows: Sequence[Mapping[str, NDArray[Any]]], alt: str, outlines: Maps = (), bar: str = "heat"
) -> ShownFigure:
    """A row of named maps each: uint8 pictures, or heat from 0 to 1. outlines: for each row an
    exact mask, drawn as a line over its heat."""
    columns = max(len(row) for row in rows)
    side = min(11 / columns, 2.7)
    figure = ShownFigure(side * columns, (side + 0.3) * len(rows), alt, layout="compressed")
    grid, heat = figure.subplots(len(rows), columns, squeeze=False), None
    for number, (line, row) in enumerate(zip(grid, rows, strict=True)):
        for axes, (title, values) in zip(line, row.items(), strict=True):
            options: dict[str, Any] = {"extent": (0, 1, 1, 0)}  # the same square for any resolution
            if values.dtype == np.uint8:
                show(axes, values, title, **options)
                continue
            heat = show(axes, values, title, cmap="cividis", vmin=0, vmax=1, **options)
            if len(outlines):
                places = [(np.arange(n) + 0.5) / n for n in outlines[number].shape[::-1]]
                axes.contour(*places, outlines[number], [0.5], colors=[ORANGE], linewidths=1.2)
    if heat is not None:
        figure.colorbar(heat, ax=grid, fraction=0.02, pad=0.01, aspect=30).set_label(bar)
    return figure


def flow_colours(field: NDArray[Any], longest: float) -> NDArray[Any]:
    """Steps (H, W, 2), x and y down, as (H, W, 3) in 0..1: direction a colour, paler if shorter."""
    turn = np.arctan2(field[..., 1], field[..., 0]) / (2 * np.pi) % 1 * 4
    first, part = turn.astype(int) % 4, (turn % 1)[..., None]
    colour = (1 - part) * COMPASS[first] + part * COMPASS[(first + 1) % 4]
    strength = np.clip(np.hypot(field[..., 0], field[..., 1]) / longest, 0, 1)[..., None]
    return np.clip(1 - strength + strength * colour, 0, 1)


def flows(images: Sequence[Image8], fields: Maps, things: Maps) -> ShownFigure:
    """For each scene the places that bilinear upsampling reads, those of the flow, and the flow.

    fields: steps (h, w, 2) in px of the image, one for each pixel of the large map. things:
    (H, W), True on the object; a dot has the colour of the pixel that reads there.
    """
    lengths = np.hypot(*np.moveaxis(np.stack(fields), -1, 0))
    longest = float(np.ceil(np.percentile(lengths, 95)))
    figure = ShownFigure(11, 3.1 * len(images))
    figure.alt = (
        "Scenes with dots where bilinear upsampling and where the flow reads; the flow as arrows "
        f"and colours. Steps: median {np.median(lengths):.0f} px, most below {longest:.0f} px"
    )
    layout = figure.add_gridspec(len(images), 4, width_ratios=(1, 1, 1, 0.45))
    titles = "places that bilinear upsampling reads", "places that the flow reads", "the flow"
    for row, (image, field, thing) in enumerate(zip(images, fields, things, strict=True)):
        axes, size = [figure.add_subplot(layout[row, column]) for column in range(3)], len(image)
        at = np.stack(np.meshgrid(*[np.linspace(0, size - 1, n) for n in field.shape[1::-1]]), -1)
        mine = thing[tuple(at.round().astype(int)[..., ::-1].T)].T
        square: dict[str, Any] = {"extent": (0, size, size, 0)}
        for axis, looked in zip(axes, (at, at + field), strict=False):
            show(axis, large(image), alpha=0.4, **square)
            for here, colour in ((~mine, BLUE), (mine, ORANGE)):
                axis.plot(*looked[here].T, ".", ms=3, color=colour)
            axis.set(xlim=(-0.12 * size, 1.12 * size), ylim=(1.12 * size, -0.12 * size))
        show(axes[2], flow_colours(field, longest), **square)
        axes[2].contour(thing, [0.5], colors="k", linewidths=1)
        tails, arrows = (np.moveaxis(a[1::2, 1::2], -1, 0) for a in (at, field))
        scale = max(1, 2 * len(tails[0]) * longest / size / 3)  # arrows that leave each other room
        how: dict[str, Any] = {"color": INK, "angles": "xy", "scale_units": "xy"}
        axes[2].quiver(*tails, *arrows, scale=scale, width=0.005, **how)
        for axis, title in zip(axes, titles, strict=True):
            axis.set_title("" if row else title, fontsize=11)
    wheel, (y, x) = figure.add_subplot(layout[0, 3]), np.mgrid[-1:1:201j, -1:1:201j]
    disc = np.where(np.hypot(x, y)[..., None] > 1, 1, flow_colours(np.stack([x, y], -1), 1))
    show(wheel, disc, extent=(-1, 1, 1, -1))
    wheel.set_title(f"where a pixel looks\n(rim: {longest:.0f} px or more)", fontsize=9)
    wheel.quiver(*np.zeros((2, 4)), [0.8, 0, -0.8, 0], [0, 0.8, 0, -0.8], scale=1, **how)
    key(wheel, {"pixel of the object": (213, 94, 0), "of the background": (0, 114, 178)}, columns=1)
    return figure


def curves(panels: Mapping[str, pd.DataFrame]) -> ShownFigure:
    """A panel of lines for each table, its axes named as index and columns are; `attrs["log"]`."""
    figure = ShownFigure(11, 3.6)
    alike = len({tuple(table.columns) for table in panels.values()}) == 1
    for axes, (title, table) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        look: dict[str, Any] = {"style": ["o-", "--", "s-", "D:", "-."], "color": COLOURS}
        table.plot(ax=axes, title=title, loglog=table.attrs.get("log", False), **look)
        axes.set_ylabel(table.columns.name)
        axes.legend(frameon=False, fontsize=9).set_visible(not alike)
        plain(axes)
        for name, values in table.items():
            first, last = values.bfill().iloc[0], values.ffill().iloc[-1]
            figure.alt += f"{title}, {name}: {first:.3g} to {last:.3g}. "
    if alike:
        below: dict[str, Any] = {"loc": "outside lower center", "ncols": len(table.columns)}
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, **below)
    return figure


def streams(
    skills: Mapping[str, tuple[float, float]], arrows: Sequence[tuple[str, str]]
) -> ShownFigure:
    """Maps by what can be read from them: name -> (side of the outline, class), percent."""
    told = ", ".join(f"{n} {side:.0f} and {kind:.0f} %" for n, (side, kind) in skills.items())
    figure = ShownFigure(8, 4.8, f"Side of the outline and class, as linear probes tell: {told}")
    axes, way = figure.subplots(), {"arrowstyle": "->", "color": GREY, "shrinkA": 7, "shrinkB": 7}
    for start, end in arrows:
        axes.annotate("", skills[end], skills[start], arrowprops=way)
    for rank, (name, place) in enumerate(sorted(skills.items(), key=lambda item: item[1][1])):
        axes.plot(*place, "o", color=BLUE, ms=9)
        offset = 6, -16 if rank % 2 else 9  # above and below in turn, or names would collide
        axes.annotate(name, place, offset, textcoords="offset points", fontsize=10)
    axes.set(xlabel="pixels put on the right side of the outline, % (guessing: 50)")
    axes.set(ylabel="pixels given the right class, % (guessing: 5)")
    axes.margins(0.2, 0.15)
    plain(axes)
    return figure


def effects(panels: Mapping[str, Mapping[str, Sequence[float]]]) -> ShownFigure:
    """Differences in points: measure -> {comparison: (value, low, high)}; 0 is a line."""
    figure = ShownFigure(11, 0.5 * len(next(iter(panels.values()))) + 1.4)
    grid = figure.subplots(1, len(panels), sharey=True)
    for axes, (title, rows) in zip(grid, panels.items(), strict=True):
        axes.axvline(0, color=INK, lw=0.8)
        for place, (name, (value, low, high)) in enumerate(rows.items()):
            axes.errorbar(
                value, place, None, [[value - low], [high - value]], "o", color=BLUE, lw=2.5
            )
            axes.annotate(
                f"{value:+z.1f}", (value, place), (0, 7), textcoords="offset points", ha="center"
            )
            what = " ".join(title.split())
            figure.alt += f"{what}, {name}: {value:+z.1f} ({low:+z.1f} to {high:+z.1f}). "
        axes.set(title=title, ylim=(len(rows) - 0.5, -0.7), xlabel="points")
        axes.set_yticks(range(len(rows)), [*rows])
        plain(axes)
    return figure
