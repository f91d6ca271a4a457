"""How masks become pseudo labels, in pictures: refinement, claims, loss, batch gate, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.sample import IGNORE
from .colours import class_colours
from .figures import ShownFigure
from .panels import BLUE, GREEN, GREY, INK, ORANGE, UNSURE, frame, key, large, painted, plain


def refinement(
    image: NDArray[np.uint8],
    names: Sequence[str],
    columns: Mapping[str, NDArray[Any]],
) -> ShownFigure:
    """A row for each channel, a column for each step: masks in 0..1 as heat, claims in black.

    columns: title -> (channels, h, w); boolean maps are drawn in black and white.
    """
    rows, count = len(names), len(columns) + 1
    figure = ShownFigure(
        figsize=(2.25 * count + 0.5, 2.2 * rows + 0.35),
        dpi=130,
        layout="constrained",
        alt=f"Masks of {', '.join(names)} of one scene, step by step: {', '.join(columns)}",
    )
    grid = figure.subplots(rows, count, squeeze=False)
    heat = None
    for row, name in enumerate(names):
        grid[row, 0].imshow(large(image))
        grid[row, 0].set_ylabel(name, fontsize=12)
        for axes, values in zip(grid[row, 1:], columns.values(), strict=True):
            if values.dtype == bool:
                axes.imshow(~values[row], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            else:
                heat = axes.imshow(values[row], cmap="cividis", vmin=0, vmax=1)
    for axes, title in zip(grid[0], ["scene", *columns], strict=True):
        axes.set_title(title, fontsize=11)
    for axes in grid.ravel():
        frame(axes)
    if heat is not None:
        figure.colorbar(heat, ax=grid, shrink=0.8, pad=0.015, label="mask value")
    return figure


def lesson(
    image: NDArray[np.uint8],
    claims: NDArray[Any],
    pseudo: NDArray[np.uint8],
    loss: NDArray[Any],
    channels: Sequence[int],
    weights: Mapping[str, float],
    exact: NDArray[np.uint8] | None = None,
) -> ShownFigure:
    """What one scene teaches: claims by pixel, pseudo label, loss map, class weights, truth.

    claims: (H, W), how many classes claim a pixel; loss: (H, W); weights: name -> weight of the
    classes whose labels are `channels`.
    """
    count = 5 if exact is None else 6
    figure = ShownFigure(
        figsize=(2.55 * count, 2.9),
        dpi=130,
        layout="constrained",
        alt="Scene, number of classes that claim a pixel, pseudo label, weight of each class "
        f"({', '.join(f'{n} {w:.2f}' for n, w in weights.items())}), loss map, exact mask",
    )
    every = list(figure.subplots(1, count))
    every[0].imshow(large(image))
    every[0].set_title("scene")
    table = np.array([(240, 240, 240), (0, 114, 178), (213, 94, 0)], np.uint8)
    every[1].imshow(table[np.minimum(claims, 2)], interpolation="nearest")
    every[1].set_title("claimed by")
    key(every[1], {"nobody": table[0], "one": table[1], "several": table[2]})
    every[2].imshow(painted(image, pseudo))
    every[2].set_title("pseudo label")
    key(every[2], {"background": (222, 222, 222), "not sure": UNSURE})
    shown = every[3].imshow(loss, cmap="magma", vmin=0)
    every[3].set_title("loss by pixel")
    figure.colorbar(shown, ax=every[3], orientation="horizontal", shrink=0.85, pad=0.04)
    bars = class_colours(max(channels) + 1)[list(channels)] / 255
    every[4].barh([*weights], [*weights.values()], color=bars, edgecolor=INK, lw=0.6)
    every[4].invert_yaxis()
    every[4].set(xlim=(0, 1), title="weight by class")
    plain(every[4])
    if exact is not None:
        every[5].imshow(painted(image, exact))
        every[5].set_title("exact mask\n(never shown)")
    for axes in [*every[:4], *every[5:]]:
        frame(axes)
    return figure


def gate_wall(
    images: NDArray[np.uint8], pseudo: NDArray[np.uint8], verdicts: Sequence[str], columns: int = 6
) -> ShownFigure:
    """Scenes over their pseudo labels, with what the gate says: "open", or why it is shut."""
    columns = min(columns, len(images))
    opened = sum(verdict == "open" for verdict in verdicts)
    figure = ShownFigure(
        figsize=(1.9 * columns, 4.4),
        dpi=130,
        layout="constrained",
        alt=f"{columns} scenes and their pseudo labels; the gate is open for {opened} of them",
    )
    grid = figure.subplots(2, columns, squeeze=False)
    for column, verdict in enumerate(verdicts[:columns]):
        grid[0, column].imshow(large(images[column]))
        grid[1, column].imshow(painted(images[column], pseudo[column]))
        colour = GREEN if verdict == "open" else ORANGE
        grid[1, column].set_xlabel(verdict, color=colour, fontsize=10, weight="bold")
        for axes in grid[:, column]:
            frame(axes)
        for spine in grid[1, column].spines.values():
            spine.set(visible=True, color=colour, linewidth=2.5)
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
    figure = ShownFigure(
        figsize=(6.6, 4.2),
        dpi=130,
        layout="constrained",
        alt="Share of right labels against share of labelled pixels, for thresholds from "
        f"{min(factors):g} to {max(factors):g}: {', '.join(pseudo)}",
    )
    axes = figure.subplots()
    for (name, maps), colour in zip(pseudo.items(), (GREY, BLUE), strict=False):
        precision, coverage = 100 * np.array([_quality(labels, exact) for labels in maps]).T
        axes.plot(coverage, precision, "o-", color=colour, label=name, ms=5)
        for factor, x, y in zip(factors, coverage, precision, strict=True):
            if factor in (min(factors), max(factors)) or np.isclose(factor, chosen):
                text = f"{factor:g}"
                axes.annotate(text, (x, y), (0, 11), textcoords="offset points", ha="center")
            if np.isclose(factor, chosen):
                axes.plot(x, y, "o", ms=12, mfc="none", mec=ORANGE, mew=2)
    axes.set(xlabel="coverage: labelled pixels, %", ylabel="precision: labels that are right, %")
    axes.margins(0.08, 0.14)
    axes.legend(frameon=False)
    plain(axes)
    return figure


def _quality(pseudo: NDArray[np.uint8], exact: NDArray[np.uint8]) -> tuple[float, float]:
    """(share of right labels, share of labelled pixels); nan, 0 where there is no label."""
    labelled = pseudo != IGNORE
    judged = labelled & (exact != IGNORE)
    right = float((pseudo == exact)[judged].mean()) if judged.any() else np.nan
    return right, float(labelled.mean())
