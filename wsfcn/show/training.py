"""Figures of the training notebook: labels, scores, filmstrip, evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from ..data.sample import IGNORE, Sample
from ..evaluate import ConfusionMatrix, Score
from .colours import class_colours
from .figures import ShownFigure
from .panels import BLUE, GREEN, GREY, ORANGE, SKY, large, painted, plain, present, show, swatches

if TYPE_CHECKING:
    from ..recipes import Train


def labelled_scenes(
    samples: Sequence[Sample], classes: Sequence[str], columns: int = 6
) -> ShownFigure:
    """Images, and under each the names of its classes: all that the training is told."""
    columns = min(columns, len(samples))
    rows = -(-len(samples) // columns)
    names = [", ".join(present(sample.labels, classes).values()) for sample in samples]
    alt = f"{len(samples)} scenes with their class names: {'; '.join(names)}"
    figure = ShownFigure(1.75 * columns, 2.05 * rows, alt)
    for place, (sample, name) in enumerate(zip(samples, names, strict=True), 1):
        axes = figure.add_subplot(rows, columns, place)
        show(axes, large(sample.image))
        axes.set_xlabel(name, fontsize=11 if len(name) < 20 else 9)
    return figure


def group_table(groups: Sequence[Mapping[str, Any]], settings: Train) -> pd.DataFrame:
    """The optimiser's groups: how many tensors and numbers, at which rate, how decayed."""
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
    alt = (
        "Left: average pooling grows with the mask, nGWP alone does not care, and with the "
        "penalty small masks score low. Right: a softmax against a constant background and a "
        "rival rises later than a sigmoid."
    )
    figure = ShownFigure(10.5, 3.9, alt)
    left, right = figure.subplots(1, 2)
    percent = 100 * np.asarray(sizes)
    shares = {name: 100 * np.asarray(values) for name, values in shares.items()}
    for axes, x, lines, colours in (
        (left, percent, scores, (GREY, SKY, BLUE)),
        (right, logits, shares, (GREY, GREEN, ORANGE)),
    ):
        for name, colour, style in zip(lines, colours, ("--", "-", "-"), strict=True):
            axes.plot(x, lines[name], style, color=colour, lw=2.4, label=name)
        plain(axes)
    *_, above, below = scores.values()
    left.fill_between(percent, above, below, color=SKY, alpha=0.2, lw=0, label="the penalty")
    left.axhline(0, color="0.2", lw=0.8)
    left.set(xscale="log", xlabel="size of the mask, % of the image", ylabel="score of the class")
    left.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    left.set_title("What a mask of this size earns")
    left.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 0.12))
    right.axhline(50, color="0.2", lw=0.8)
    right.set(xlabel="logit of the class at a pixel", ylabel="its share of the pixel, %")
    right.set(ylim=(0, 140), yticks=range(0, 101, 20), title="Who gets the pixel")
    right.legend(frameon=False, fontsize=9, loc="upper left")
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
    """Scenes in rows, epochs in columns, the exact mask last; a dashed line ends the warm-up.

    images (n, H, W, 3), masks (n, H, W), frames (epochs, n, H, W), one after each epoch. Under
    each frame is its mIoU over the classes that occur in it.
    """
    rows = min(rows, len(images))
    epochs = _epochs(len(frames), warmup_epochs, columns)
    during = sum(epoch <= warmup_epochs for epoch in epochs)
    drawn = [*frames[np.array(epochs) - 1, :rows], masks[:rows]]
    seen = [c for c in np.unique(drawn).tolist() if 0 < c < IGNORE]
    named = max(2, len(epochs))  # classes in a line of the legend
    alt = (
        f"Masks of {rows} scenes after the epochs {', '.join(map(str, epochs))}; the warm-up "
        f"ends with epoch {warmup_epochs}; last column: the exact masks"
    )
    width, height = 1.22 * (len(epochs) + 2), 0.75 + 1.32 * rows + 0.22 * -(-len(seen) // named)
    figure = ShownFigure(width, height, alt, dpi=170)
    grid = figure.subplots(rows, len(epochs) + 2, squeeze=False)
    for row, (first, *middle, last) in enumerate(grid):
        show(first, large(images[row]))
        show(last, painted(images[row], masks[row]))
        for axes, epoch in zip(middle, epochs, strict=True):
            found = frames[epoch - 1, row]
            show(axes, painted(images[row], found))
            confusion = ConfusionMatrix(len(classes) + 1)
            confusion.update(found, masks[row])
            told = f"mIoU {100 * confusion.mean_iou:.0f}"
            axes.set_xlabel(told, fontsize=8.5, labelpad=1.5)
        if 0 < during < len(epochs):
            axes = middle[during]
            edge = Line2D([-0.04, -0.04], [-0.15, 1.2], color="0.2", ls="--", lw=1.2)
            edge.set(transform=axes.transAxes, clip_on=False, in_layout=False)
            axes.add_line(edge)
    heads = ("scene", *(f"epoch {epoch}" for epoch in epochs), "exact mask")
    for axes, head in zip(grid[0], heads, strict=True):
        axes.set_title(f"\n{head}", fontsize=10)
    for start, end, phase, colour in (
        (0, during, "warm-up: image labels alone", GREY),
        (during, len(epochs), "with the mask loss", BLUE),
    ):
        if end > start:
            name = phase if end - start > 2 else phase.split(":")[0]
            place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
            text = grid[0, 1 + start].annotate(name, (0, 1), (0, 18), color=colour, **place)
            text.set(in_layout=False, fontsize=10, fontweight="bold")
    colours = class_colours(len(classes) + 1)
    handles = swatches({classes[c - 1]: colours[c] for c in seen})
    legend: dict[str, Any] = {"loc": "outside lower center", "ncols": named, "handlelength": 1}
    figure.legend(handles=handles, frameon=False, fontsize=9, **legend)
    return figure


def per_class(score: Score) -> ShownFigure:
    """IoU of every class, best first, and their mean as a line."""
    known = 100 * pd.Series(score.per_class).dropna().sort_values(kind="stable")
    mean = 100 * score.mean_iou
    told = [f"{name} {value:.0f}" for name, value in known[::-1].items()]
    alt = f"IoU by class, from {', '.join(told[:3])} to {told[-1]} percent; mean {mean:.1f}"
    figure = ShownFigure(7.4, 0.6 + 0.26 * len(known), alt)
    axes = figure.subplots()
    colours = [GREY if name == "background" else BLUE for name in known.index]
    bars = axes.barh(known.index, known, color=colours, height=0.72)
    paper: Any = {"fc": "white", "ec": "none", "pad": 0.8}  # figures stay legible on the line
    axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8.5, bbox=paper)
    axes.axvline(mean, color=ORANGE, lw=2, zorder=0)
    axes.text(mean, len(known) - 0.3, f" mIoU {mean:.1f}", color=ORANGE)
    axes.set(xlabel="IoU, %", xlim=(0, 100), ylim=(-0.6, len(known) + 0.5))
    axes.tick_params("y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def protocol_gains(ours: Mapping[str, float], paper: Mapping[str, float]) -> ShownFigure:
    """The same network under several protocols: ours left, the paper's right, one scale.

    Both map protocol -> mIoU in percent; the first entry of each is what the others gain over.
    """
    told = [", ".join(f"{n} {v:.{d}f}" for n, v in t.items()) for t, d in ((ours, 1), (paper, 2))]
    alt = f"mIoU by protocol. Ours: {told[0]}. Paper: {told[1]}"
    figure = ShownFigure(10.5, 1.2 + 0.5 * max(len(ours), len(paper)), alt)
    spans = [max(v.values()) - min(v.values()) for v in (ours, paper)]
    reach = 1.5 * max(*spans, 1.0)  # the same length is the same gain on both sides
    titles = ("this network, emoji scenes", "the paper, VOC 2012 val, WideResNet-38")
    offset: Any = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
    for axes, table, title in zip(figure.subplots(1, 2), (ours, paper), titles, strict=True):
        values = [*table.values()]
        start, places = values[0], range(len(values))
        axes.hlines(places, start, values, color=GREY, lw=2)
        axes.axvline(start, color="0.2", lw=0.8)
        axes.plot(values, places, "o", color=BLUE, ms=9)
        for place, value in enumerate(values):
            gain = f"  ({value - start:+.2f})" if place else ""
            right = (max(value, start), place)  # of the dot and the line, where nothing else is
            axes.annotate(f"{value:.2f}{gain}", right, **offset)
        axes.set_yticks(places, [*table])
        axes.set_xlim(min(values) - 0.12 * reach, min(values) + 1.1 * reach)
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set(xlabel="mIoU, %", title=title)
        plain(axes)
    return figure


def _epochs(last: int, warmup: int, most: int) -> list[int]:
    """At most so many of the epochs 1..last: the ends, the warm-up's end, the rest spread out."""
    chosen = {1, last} | ({warmup} if 0 < warmup < last else set())
    while len(chosen) < min(most, last):
        chosen.add(max(range(1, last + 1), key=lambda e: min(abs(e - c) for c in chosen)))
    return sorted(chosen)
