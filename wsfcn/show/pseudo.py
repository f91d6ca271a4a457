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
from .panels import BLUE, GREEN, GREY, INK, ORANGE, UNSURE, frame, key, large, painted, plain


def refinement(
    image: NDArray[np.uint8],
    names: Sequence[str],
    columns: Mapping[str, NDArray[Any]],
) -> ShownFigure:
    """The scene, then a row for each channel and a column for each step.

    columns: title -> (channels, h, w); masks in 0..1 are drawn as heat, truth values as blue over
    the pale scene.
    """
    rows, count = len(names), len(columns)
    figure = ShownFigure(
        figsize=(2.4 * (count + 1) + 0.9, 2.3 * rows + 0.3),
        dpi=130,
        layout="constrained",
        alt=f"Masks of {', '.join(names)} of one scene, step by step: {', '.join(columns)}",
    )
    layout = figure.add_gridspec(rows, count + 1)
    scene = figure.add_subplot(layout[:, 0])
    scene.imshow(large(image))
    scene.set_title("scene", fontsize=11)
    frame(scene)
    heat, grid = None, []
    for row, name in enumerate(names):
        for column, (title, values) in enumerate(columns.items(), 1):
            axes = figure.add_subplot(layout[row, column])
            grid.append(axes)
            if values.dtype == bool:
                axes.imshow(_tinted(image, values[row]))
            else:
                heat = axes.imshow(values[row], cmap="cividis", vmin=0, vmax=1)
            if row == 0:
                axes.set_title(title, fontsize=11)
            if column == 1:
                axes.set_ylabel(name, fontsize=11)
            frame(axes)
    if heat is not None:
        figure.colorbar(heat, ax=grid, shrink=0.8, pad=0.015, label="mask value")
    return figure


def _tinted(image: NDArray[np.uint8], chosen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The pale scene, blue where chosen."""
    pale = painted(image, np.zeros(chosen.shape, np.uint8))
    factor = pale.shape[0] // chosen.shape[0]
    fine = chosen.repeat(factor, 0).repeat(factor, 1)[..., None]
    blue = np.array([0, 114, 178])
    return np.where(fine, 0.3 * pale + 0.7 * blue, pale).round().astype(np.uint8)


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
    figure = ShownFigure(
        figsize=(10, 7),
        dpi=130,
        layout="constrained",
        alt="Scene, number of classes that claim a pixel, pseudo label, loss map, weight of each "
        f"class ({', '.join(f'{n} {w:.2f}' for n, w in weights.items())}), exact mask",
    )
    every = list(figure.subplots(2, 3).ravel())
    every[0].imshow(large(image))
    every[0].set_title("scene")
    table = np.array([(240, 240, 240), (0, 114, 178), (213, 94, 0)], np.uint8)
    every[1].imshow(table[np.minimum(claims, 2)], interpolation="nearest")
    every[1].set_title("claimed by")
    key(every[1], {"nobody": table[0], "one class": table[1], "several": table[2]})
    every[2].imshow(painted(image, pseudo))
    every[2].set_title("pseudo label")
    colours = class_colours(max(channels) + 1)
    named = {name: colours[c] for name, c in zip(weights, channels, strict=True)}
    key(every[2], {**named, "not sure": UNSURE})
    bars = colours[list(channels)] / 255
    every[3].barh([*weights], [*weights.values()], color=bars, edgecolor=INK, lw=0.6)
    every[3].invert_yaxis()
    every[3].set(xlim=(0, 1), title="weight by class")
    every[3].set_box_aspect(0.8)
    plain(every[3])
    shown = every[4].imshow(loss, cmap="magma", vmin=0)
    every[4].set_title("loss by pixel")
    figure.colorbar(shown, ax=every[4], shrink=0.85, pad=0.03)
    if exact is not None:
        every[5].imshow(painted(image, exact))
        every[5].set_title("exact mask, never shown")
    for axes in [*every[:3], *every[4:]]:
        frame(axes)
    return figure


def gate_wall(
    images: NDArray[np.uint8], pseudo: NDArray[np.uint8], verdicts: Sequence[str], columns: int = 6
) -> ShownFigure:
    """Scenes over their pseudo labels, with what the gate says: "open", or why it is shut."""
    columns = min(columns, len(images))
    opened = sum(verdict == "open" for verdict in verdicts)
    figure = ShownFigure(
        figsize=(1.6 * columns, 3.7),
        dpi=130,
        layout="constrained",
        alt=f"{columns} scenes and their pseudo labels; the gate is open for {opened} of them",
    )
    grid = figure.subplots(2, columns, squeeze=False)
    for column, verdict in enumerate(verdicts[:columns]):
        grid[0, column].imshow(large(images[column]))
        grid[1, column].imshow(painted(images[column], pseudo[column]))
        colour = GREEN if verdict == "open" else ORANGE
        text = textwrap.fill(verdict, 18)
        grid[1, column].set_xlabel(text, color=colour, fontsize=10, weight="bold")
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
    for (name, maps), colour, above in zip(pseudo.items(), (GREY, BLUE), (-18, 11), strict=False):
        precision, coverage = 100 * np.array([_quality(labels, exact) for labels in maps]).T
        axes.plot(coverage, precision, "o-", color=colour, label=name, ms=5)
        for factor, x, y in zip(factors, coverage, precision, strict=True):
            if factor in (min(factors), max(factors)) or np.isclose(factor, chosen):
                text = f"{factor:g}"
                axes.annotate(text, (x, y), (0, above), textcoords="offset points", ha="center")
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
