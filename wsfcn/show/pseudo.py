"""How masks become pseudo labels, in pictures: refinement, claims, loss, batch gate, thresholds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.sample import IGNORE
from .colours import class_colours
from .figures import ShownFigure
from .panels import BLUE, GREEN, ORANGE, UNSURE, Image8, Labels, key, large, painted, plain, show

CLAIMS = {"nobody": (240, 240, 240), "one class": (0, 114, 178), "several": (213, 94, 0)}


def refinement(
    image: Image8, names: Sequence[str], columns: Mapping[str, NDArray[Any]]
) -> ShownFigure:
    """The scene, then a row for each channel and a column for each step.

    columns: title -> (channels, h, w): masks in 0..1, or truth values, drawn over the pale scene.
    """
    rows, count = len(names), len(columns)
    alt = f"Masks of {', '.join(names)} of one scene, step by step: {', '.join(columns)}"
    figure = ShownFigure(2.4 * (count + 1) + 0.9, 2.3 * rows + 0.3, alt)
    layout = figure.add_gridspec(rows, count + 1)
    show(figure.add_subplot(layout[:, 0]), large(image), "scene")
    heat, grid = None, []
    blue = np.array([UNSURE, CLAIMS["one class"]], np.uint8)
    for row, name in enumerate(names):
        for column, (title, values) in enumerate(columns.items(), 1):
            axes = figure.add_subplot(layout[row, column])
            grid.append(axes)
            head = title if row == 0 else ""
            if values.dtype == bool:
                show(axes, painted(image, values[row].astype(np.uint8), 0.7, blue), head)
            else:
                heat = show(axes, values[row], head, cmap="cividis", vmin=0, vmax=1)
            if column == 1:
                axes.set_ylabel(name, fontsize=11)
    if heat is not None:
        figure.colorbar(heat, ax=grid, shrink=0.8, pad=0.015, label="mask value")
    return figure


def lesson(
    image: Image8,
    claims: NDArray[Any],
    pseudo: Labels,
    loss: NDArray[Any],
    channels: Sequence[int],
    weights: Mapping[str, float],
    exact: Labels,
) -> ShownFigure:
    """What one scene teaches: claims by pixel, pseudo label, loss map, class weights, truth.

    claims: (H, W), how many classes claim a pixel; loss: (H, W); weights: name -> weight of the
    classes whose labels are `channels`.
    """
    alt = (
        "Scene, number of classes that claim a pixel, pseudo label, loss map, weight of each "
        f"class ({', '.join(f'{n} {w:.2f}' for n, w in weights.items())}), exact mask"
    )
    figure = ShownFigure(10, 7, alt)
    scene, claimed, label, bars, lost, truth = figure.subplots(2, 3).ravel()
    show(scene, large(image), "scene")
    show(claimed, np.array([*CLAIMS.values()], np.uint8)[np.minimum(claims, 2)], "claimed by")
    key(claimed, CLAIMS, columns=3)
    show(label, painted(image, pseudo), "pseudo label")
    colours = class_colours(max(channels) + 1)[list(channels)]
    named = dict(zip(weights, colours, strict=True)) | {"not sure": UNSURE}
    key(label, named, columns=3 if len(named) < 4 else 2)
    bars.barh([*weights], [*weights.values()], color=colours / 255, edgecolor="0.2", lw=0.6)
    bars.invert_yaxis()
    bars.set(xlim=(0, 1), title="weight by class", box_aspect=0.8)
    plain(bars)
    shown = show(lost, loss, "loss by pixel", cmap="magma", vmin=0)
    figure.colorbar(shown, ax=lost, shrink=0.85, pad=0.03)
    show(truth, painted(image, exact), "exact mask, never shown")
    return figure


def gate_wall(
    images: NDArray[np.uint8], pseudo: NDArray[np.uint8], verdicts: Sequence[str]
) -> ShownFigure:
    """Scenes over their pseudo labels, with what the gate says: "open", or why it is shut."""
    columns = len(images)
    opened = sum(verdict == "open" for verdict in verdicts)
    alt = f"{columns} scenes and their pseudo labels; the gate is open for {opened} of them"
    figure = ShownFigure(1.6 * columns, 3.7, alt)
    for above, below, image, labels, verdict in zip(
        *figure.subplots(2, columns, squeeze=False), images, pseudo, verdicts, strict=True
    ):
        colour = GREEN if verdict == "open" else ORANGE
        show(above, large(image))
        show(below, painted(image, labels))
        below.set_xlabel(textwrap.fill(verdict, 18), color=colour, fontsize=10, weight="bold")
        below.spines[:].set(visible=True, color=colour, linewidth=2.5)
    return figure


def trade_off(
    factors: Sequence[float],
    pseudo: Mapping[str, Sequence[NDArray[np.uint8]]],
    exact: NDArray[np.uint8],
    chosen: float,
) -> ShownFigure:
    """Precision against coverage of pseudo labels; a line a method, a point a threshold.

    pseudo: method -> label maps (n, H, W) for each of the `factors`; exact: (n, H, W). The
    `chosen` factor is ringed.
    """
    alt = (
        "Share of right labels against share of labelled pixels, for thresholds from "
        f"{min(factors):g} to {max(factors):g}: {', '.join(pseudo)}"
    )
    figure = ShownFigure(6.6, 4.2, alt)
    axes = figure.subplots()
    offset: dict[str, Any] = {"textcoords": "offset points", "ha": "center"}
    sure = exact != IGNORE
    for (name, maps), colour, above in zip(pseudo.items(), ("0.55", BLUE), (-18, 11), strict=True):
        labelled = [labels != IGNORE for labels in maps]
        coverage = [100 * some.mean() for some in labelled]
        right = (100 * (m == exact)[s & sure] for m, s in zip(maps, labelled, strict=True))
        precision = [values.mean() if values.size else np.nan for values in right]
        axes.plot(coverage, precision, "o-", color=colour, label=name, ms=5)
        for factor, x, y in zip(factors, coverage, precision, strict=True):
            if factor in (min(factors), max(factors)) or np.isclose(factor, chosen):
                axes.annotate(f"{factor:g}", (x, y), (0, above), **offset)
            if np.isclose(factor, chosen):
                axes.plot(x, y, "o", ms=12, mfc="none", mec=ORANGE, mew=2)
    axes.set(xlabel="coverage: labelled pixels, %", ylabel="precision: labels that are right, %")
    axes.margins(0.08, 0.14)
    axes.legend(frameon=False)
    plain(axes)
    return figure
