"""Figures of the training notebook: labels, scores, filmstrip, evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from ..data.sample import IGNORE, Sample
from ..evaluate import ConfusionMatrix, Score
from .colours import class_colours
from .figures import ShownFigure
from .panels import BLUE, GREEN, GREY, INK, ORANGE, SKY, frame, large, painted, plain

if TYPE_CHECKING:
    import pandas as pd

    from ..recipes import Train


def labelled_scenes(
    samples: Sequence[Sample], classes: Sequence[str], columns: int = 6
) -> ShownFigure:
    """Images, and under each the names of its classes: all that the training is told."""
    columns = min(columns, len(samples))
    rows = -(-len(samples) // columns)
    names = [_names(sample.labels, classes) for sample in samples]
    figure = ShownFigure(
        figsize=(1.75 * columns, 2.05 * rows),
        dpi=130,
        layout="constrained",
        alt=f"{len(samples)} scenes with their class names: {'; '.join(names)}",
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        frame(axes)
    for axes, sample, name in zip(grid, samples, names, strict=False):
        axes.imshow(large(sample.image))
        axes.set_xlabel(name, fontsize=11 if len(name) < 20 else 9)
    return figure


def group_table(groups: Sequence[Mapping[str, Any]], settings: Train) -> pd.DataFrame:
    """The optimiser's groups: how many tensors and numbers, at which rate, how decayed."""
    import pandas as pd

    rows = {}
    for group in groups:
        new = group["lr"] >= settings.learning_rate * min(settings.new_factor, 3)
        kind = "biases" if group["weight_decay"] == 0 else "weights"
        rows[f"{'new' if new else 'pretrained'} {kind}"] = {
            "tensors": len(group["params"]),
            "numbers": f"{sum(p.numel() for p in group['params']):,}",
            "learning rate": f"{group['lr']:g}",
            "weight decay": f"{group['weight_decay']:g}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def pooling(
    sizes: ArrayLike, scores: Mapping[str, ArrayLike], logits: ArrayLike, shares: Any
) -> ShownFigure:
    """Left: a class's score by the size of its mask. Right: its share of a pixel by its logit.

    scores: name -> values along `sizes` (0..1); shares: name -> values along `logits` (0..1).
    """
    figure = ShownFigure(
        figsize=(10.5, 3.9),
        dpi=130,
        layout="constrained",
        alt="Left: average pooling grows with the mask, nGWP alone does not care, and with the "
        "penalty small masks score low. Right: a softmax against a constant background and a "
        "rival rises later than a sigmoid.",
    )
    left, right = figure.subplots(1, 2)
    percent = 100 * np.asarray(sizes)
    lines = zip(scores.items(), (GREY, SKY, BLUE), ("--", "-", "-"), strict=False)
    for (name, values), colour, style in lines:
        left.semilogx(percent, values, style, color=colour, lw=2.4, label=name)
    *_, above, below = scores.values()
    left.fill_between(percent, above, below, color=SKY, alpha=0.2, lw=0, label="the penalty")
    left.axhline(0, color=INK, lw=0.8)
    left.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    left.set(xlabel="size of the mask, % of the image", ylabel="score of the class")
    left.set_title("What a mask of this size earns")
    lines = zip(shares.items(), (GREY, GREEN, ORANGE), ("--", "-", "-"), strict=False)
    for (name, values), colour, style in lines:
        right.plot(logits, 100 * np.asarray(values), style, color=colour, lw=2.4, label=name)
    right.axhline(50, color=INK, lw=0.8)
    right.set(xlabel="logit of the class at a pixel", ylabel="its share of the pixel, %")
    right.set(ylim=(0, 140), yticks=range(0, 101, 20), title="Who gets the pixel")
    left.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 0.12))
    right.legend(frameon=False, fontsize=9, loc="upper left")
    for axes in (left, right):
        plain(axes)
    return figure


def filmstrip(
    images: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    frames: NDArray[np.uint8],
    warmup_epochs: int,
    *,
    classes: Sequence[str],
    rows: int = 6,
    columns: int = 7,
) -> ShownFigure:
    """Scenes in rows, epochs in columns, the exact mask last; the warm-up stands on grey.

    images (n, H, W, 3), masks (n, H, W), frames (epochs, n, H, W), one after each epoch. Under
    each frame is its mIoU over the classes that occur in it.
    """
    rows, last = min(rows, len(images)), len(frames)
    epochs = _epochs(last, warmup_epochs, columns)
    count = len(epochs) + 2
    cell, side, top, foot = 1.2, 1.14, 0.75, 0.19
    width = cell * count + 0.1
    drawn = np.concatenate([frames[np.array(epochs) - 1, :rows].ravel(), masks[:rows].ravel()])
    seen = [c for c in np.unique(drawn).tolist() if 0 < c < IGNORE]
    named = max(2, int(width / 1.35))  # classes in a line of the legend
    bottom = 0.15 + 0.19 * -(-len(seen) // named)
    height = top + rows * (side + foot) + bottom
    figure = ShownFigure(
        figsize=(width, height),
        dpi=170,
        alt=f"Masks of {rows} scenes after the epochs {', '.join(map(str, epochs))}; the warm-up "
        f"ends with epoch {warmup_epochs}; last column: the exact masks",
    )
    for column in range(count):
        x = 0.05 + column * cell + (0.08 if column == count - 1 else 0)
        for row in range(rows):
            y = height - top - row * (side + foot) - side
            axes = figure.add_axes((x / width, y / height, side / width, side / height))
            frame(axes)
            if column == 0:
                axes.imshow(large(images[row]))
            elif column == count - 1:
                axes.imshow(painted(images[row], masks[row]))
            else:
                found = frames[epochs[column - 1] - 1, row]
                axes.imshow(painted(images[row], found))
                axes.set_xlabel(_miou(found, masks[row], len(classes)), fontsize=8.5, labelpad=1.5)
        titles = ["scene", *(f"epoch {e}" for e in epochs), "exact mask"]
        place = (x + side / 2) / width, 1 - 0.9 * top / height
        figure.text(*place, titles[column], ha="center", va="bottom", fontsize=10)
    _phases(figure, epochs, warmup_epochs, cell, (width, height), bottom)
    colours = class_colours(len(classes) + 1) / 255
    handles = [Patch(fc=colours[c], ec=INK, lw=0.5, label=classes[c - 1]) for c in seen]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=named,
        frameon=False,
        fontsize=9,
        handlelength=1,
    )
    return figure


def per_class(score: Score) -> ShownFigure:
    """IoU of every class, best first, and their mean as a line."""
    known = {n: 100 * v for n, v in score.per_class.items() if not np.isnan(v)}
    names = sorted(known, key=lambda name: known[name])
    figure = ShownFigure(
        figsize=(7.4, 0.6 + 0.26 * len(names)),
        dpi=130,
        layout="constrained",
        alt=f"IoU by class, from {', '.join(f'{n} {known[n]:.0f}' for n in names[:-4:-1])} to "
        f"{names[0]} {known[names[0]]:.0f} percent; mean {100 * score.mean_iou:.1f}",
    )
    axes = figure.subplots()
    values = [known[name] for name in names]
    colours = [GREY if name == "background" else BLUE for name in names]
    axes.barh(names, values, color=colours, height=0.72)
    for place, value in enumerate(values):
        x, colour = (1, "white") if value > 8 else (value + 0.8, INK)
        axes.text(x, place, f"{value:.0f}", va="center", fontsize=8.5, color=colour)
    mean = 100 * score.mean_iou
    axes.axvline(mean, color=ORANGE, lw=2, zorder=3)
    axes.text(mean, len(names) - 0.3, f" mIoU {mean:.1f}", color=ORANGE, ha="left", va="bottom")
    axes.set(xlabel="IoU, %", xlim=(0, 100), ylim=(-0.6, len(names) + 0.5))
    axes.tick_params("y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def protocol_gains(ours: Mapping[str, float], paper: Mapping[str, float]) -> ShownFigure:
    """The same network under several protocols: ours left, the paper's right, one scale.

    Both map protocol -> mIoU in percent; the first entry of each is what the others gain over.
    """
    figure = ShownFigure(
        figsize=(10.5, 1.2 + 0.5 * max(len(ours), len(paper))),
        dpi=130,
        layout="constrained",
        alt="mIoU by protocol. Ours: "
        + ", ".join(f"{name} {value:.1f}" for name, value in ours.items())
        + ". Paper: "
        + ", ".join(f"{name} {value:.2f}" for name, value in paper.items()),
    )
    spans = [max(v.values()) - min(v.values()) for v in (ours, paper)]
    reach = 1.5 * max(*spans, 1.0)  # the same length is the same gain on both sides
    titles = ("this network, emoji scenes", "the paper, VOC 2012 val, WideResNet-38")
    for axes, table, title in zip(figure.subplots(1, 2), (ours, paper), titles, strict=True):
        values = [*table.values()]
        start = values[0]
        places = np.arange(len(values))
        axes.hlines(places, start, values, color=GREY, lw=2)
        axes.axvline(start, color=INK, lw=0.8)
        axes.plot(values, places, "o", color=BLUE, ms=9)
        for place, value in zip(places, values, strict=True):
            gain = "" if place == 0 else f"  ({value - start:+.2f})"
            right = (max(value, start), place)  # of the dot and the line, where nothing else is
            offset = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{value:.2f}{gain}", right, **offset)
        axes.set_yticks(places, [*table])
        axes.set_xlim(min(values) - 0.12 * reach, min(values) + 1.1 * reach)
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set(xlabel="mIoU, %", title=title)
        plain(axes)
    return figure


def _names(labels: NDArray[Any], classes: Sequence[str]) -> str:
    return ", ".join(classes[k] for k in np.flatnonzero(labels).tolist())


def _miou(found: NDArray[np.uint8], exact: NDArray[np.uint8], classes: int) -> str:
    confusion = ConfusionMatrix(classes + 1)
    confusion.update(found, exact)
    return f"mIoU {100 * confusion.mean_iou:.0f}"


def _epochs(last: int, warmup: int, most: int) -> list[int]:
    """At most so many of the epochs 1..last: the ends, the warm-up's end, the rest spread out."""
    chosen = {1, last} | ({warmup} if 0 < warmup < last else set())
    while len(chosen) < min(most, last):
        chosen.add(max(range(1, last + 1), key=lambda e: min(abs(e - c) for c in chosen)))
    return sorted(chosen)


def _phases(
    figure: ShownFigure,
    epochs: Sequence[int],
    warmup: int,
    cell: float,
    size: tuple[float, float],
    bottom: float,
) -> None:
    """Two bars above the epochs, and a line where the warm-up ends; all lengths in inches."""
    width, height = size
    during = sum(e <= warmup for e in epochs)
    edges = [cell, cell * (1 + during), cell * (1 + len(epochs))]
    names = ("warm-up: image labels alone", "the masks teach the masks")
    for left, right, name, colour in zip(edges, edges[1:], names, (GREY, BLUE), strict=False):
        if right > left:
            x = np.array([left + 0.08, right - 0.02]) / width
            y = 1 - 0.36 / height
            figure.add_artist(Line2D(x, [y, y], color=colour, lw=5, solid_capstyle="butt"))
            short = name if right - left > 1.9 * cell else name.split(":")[0].split(" teach")[0]
            place = float(x.mean()), 1 - 0.1 / height
            figure.text(*place, short, ha="center", va="top", fontsize=10, color=INK)
    if 0 < during < len(epochs):
        edge = (edges[1] + 0.03) / width
        figure.add_artist(
            Line2D([edge, edge], [bottom / height, 1 - 0.4 / height], color=INK, lw=1.2, ls="--")
        )
