"""Figures of the notebook 04_pamr_refinement: affinities, steps as a film, a cut with claims."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..data.sample import IGNORE
from .colours import class_colours
from .figures import ShownFigure
from .panels import BLUE, GREY, INK, ORANGE, UNSURE, Image8, Labels, painted, plain, show

Values = NDArray[Any]
HEAT = "cividis"


def neighbours(
    image: Image8,
    truth: Labels,
    pixels: Mapping[str, tuple[int, int]],
    offsets: Sequence[tuple[int, int]],
    weights: Sequence[Values],
) -> ShownFigure:
    """The scene, and around each of four pixels its neighbours: disks whose area is their weight.

    pixels: name -> (row, column); weights: (len(offsets),) for each. Blue: the pixel's own exact
    label, orange: another, grey: not counted.
    """
    reach, told, figure = 5 + int(np.max(offsets)), [], ShownFigure(10.5, 6.2)
    layout = figure.add_gridspec(2, 3, width_ratios=(1.25, 1, 1))
    scene = figure.add_subplot(layout[:, 0])
    show(scene, image, "scene")
    for n, ((name, (y, x)), own) in enumerate(zip(pixels.items(), weights, strict=True)):
        box = {"fc": INK, "ec": "none", "pad": 1.5}
        scene.text(x + 5, y, name, color="w", bbox=box, fontsize=9, va="center")
        axes = figure.add_subplot(layout[n // 2, 1 + n % 2])
        show(axes, image, name)
        rows, columns = np.add(offsets, (y, x)).T
        height, width = truth.shape
        theirs = truth[rows.clip(0, height - 1), columns.clip(0, width - 1)]
        same, known = theirs == truth[y, x], theirs != IGNORE
        colours = np.where(known, np.where(same, BLUE, ORANGE), GREY)
        axes.scatter(columns, rows, 9 + 1500 * own, colours, lw=0.7, edgecolors="w", alpha=0.9)
        for at in (scene, axes):
            at.plot(x, y, "P", color="w", mec="k", ms=9)
        axes.set(xlim=(x - reach, x + reach), ylim=(y + reach, y - reach))
        share = f"{100 * own[same].sum() / own[known].sum():.0f} % of the weight on its own class"
        axes.set_xlabel(f"{share}\nlargest single weight {100 * own.max():.0f} %")
        told.append(f"{name}: {share}")
    figure.alt = f"A scene and the {len(offsets)} neighbours of some pixels. {'; '.join(told)}"
    return figure


def grid(
    image: Image8,
    rows: Mapping[str, Mapping[str, Values]],
    outline: Values | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
) -> ShownFigure:
    """Rows of pictures by title: heat for masks in 0..1, label maps painted over the image.

    outline: (H, W) bool, drawn white on the heat. notes: row -> a line below each picture.
    """
    columns = max(map(len, rows.values()))
    tall = 10 / columns * image.shape[0] / image.shape[1] + 0.3 + 0.2 * (notes is not None)
    figure = ShownFigure(10.5, len(rows) * tall, layout="compressed")
    extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
    for n, (name, pictures) in enumerate(rows.items()):
        for c, (title, values) in enumerate(pictures.items()):
            axes = figure.add_subplot(len(rows), columns, n * columns + c + 1)
            if values.dtype == np.uint8:
                show(axes, painted(image, values) if values.ndim == 2 else values, title)
            else:
                show(axes, values, title, cmap=HEAT, vmin=0, vmax=1, extent=extent)
                if outline is not None:
                    axes.contour(outline, [0.5], colors="w", linewidths=0.8)
            axes.set_xlabel((notes or {}).get(name, [""] * columns)[c])
            axes.set_ylabel(name if c == 0 else "", fontsize=11)
    told = (f"{name or 'pictures'}: {', '.join(of)}" for name, of in rows.items())
    below = "".join(f". Below {name}: {', '.join(of)}" for name, of in (notes or {}).items())
    figure.alt = "Rows of " + "; ".join(told) + below
    return figure


class Film:
    """Heat beside the label map, a picture for each step: an animated PNG that plays in a page."""

    def __init__(self, image: Image8, steps: Mapping[int, tuple[Values, Labels]], alt: str) -> None:
        """steps: number of the step -> mask (H, W) in 0..1 and label map."""
        frames, font, self.alt = [], ImageFont.load_default(20), alt
        for number, (heat, labels) in steps.items():
            hot = matplotlib.colormaps[HEAT](heat, bytes=True)[..., :3]
            pair = [Image.fromarray(a).resize((300, 300)) for a in (hot, painted(image, labels))]
            frame = Image.fromarray(np.hstack([np.asarray(half) for half in pair]))
            ImageDraw.Draw(frame).text((8, 6), f"step {number}", "white", font)
            frames.append(frame.quantize(128, dither=Image.Dither.NONE))
        self.png, times = BytesIO(), [300] * (len(frames) - 1) + [2000]  # ms
        more: dict[str, Any] = {"append_images": frames[1:], "duration": times, "loop": 20}
        frames[0].save(self.png, "PNG", save_all=True, **more)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[Any, Any]:
        picture = base64.b64encode(self.png.getvalue()).decode()
        return {"image/png": picture, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def along_row(
    image: Image8, row: int, curves: Mapping[str, tuple[int, Values, float]], pseudo: Labels
) -> ShownFigure:
    """A cut through the scene: masks and their thresholds, and the pseudo label of each pixel.

    curves: name -> (label, mask along the row, threshold); pseudo: (H, W), white where not sure.
    """
    limits = ", ".join(f"{name} {limit:.2f}" for name, (_, _, limit) in curves.items())
    figure = ShownFigure(10.5, 4, f"Masks along row {row} of a scene; they claim above: {limits}")
    layout = figure.add_gridspec(2, 2, width_ratios=(1, 2.2), height_ratios=(8, 1))
    places = (layout[:, 0], layout[0, 1], layout[1, 1])
    scene, top, strip = map(figure.add_subplot, places)
    show(scene, image, "scene, and the row of the cut").axes.axhline(row, color="w", lw=2)
    table = class_colours(IGNORE + 1)
    table[IGNORE] = UNSURE
    for name, (label, values, threshold) in curves.items():
        colour = table[label] / 255 * (0.8 if label else 0.5)
        top.plot(values, color=colour, label=name, lw=2)
        top.axhline(threshold, color=colour, ls="--", lw=1.2)
    top.set(xlim=(-0.5, pseudo.shape[1] - 0.5), ylim=(0, 1.02), ylabel="share", xticks=[])
    top.set_title("masks along the row; dashed: what a share has to exceed", fontsize=11)
    top.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    plain(top)
    show(strip, table[pseudo[[row]]], aspect="auto")
    strip.set(xlabel="pseudo label of each pixel; white: not sure")
    strip.spines[:].set_visible(True)
    return figure
