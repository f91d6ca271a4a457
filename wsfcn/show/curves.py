"""Training curves from the metrics that a run writes, also while it writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .figures import ShownFigure
from .panels import BLUE, GREEN, ORANGE, PURPLE, plain, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Row = Mapping[str, Any]
METRICS = ("classification_loss", "mask_loss", "gate_open", "mean_iou", "pixel_accuracy")


def curves(
    rows: Iterable[Row],
    warmup_epochs: float | None = None,
    *,
    picture: NDArray[np.uint8] | None = None,
    caption: str = "",
) -> ShownFigure:
    """Losses by epoch and mIoU with pixel accuracy, the warm-up marked.

    rows: what a training logs; per step {"epoch", "classification_loss", "mask_loss",
    "gate_open"}, per evaluation {"epoch", "mean_iou", "pixel_accuracy"}. warmup_epochs: the end of
    the warm-up; by default where the first mask loss appears. The share of images with an open
    gate stands between, where rows have it, unless a `picture` (H, W, 3) stands on the right.
    """
    table = pd.DataFrame(rows, columns=["epoch", *METRICS]).astype(float).set_index("epoch")
    if warmup_epochs is None:  # an epoch of 3.0 is the end of the third
        masked = table.index[table["mask_loss"] > 0]
        warmup_epochs = float(np.ceil(masked.min()) - 1) if len(masked) else None
    later = table[table.index > (warmup_epochs or 0)]
    gates = picture is None and later["gate_open"].notna().any()
    panels = 2 + gates + (picture is not None)
    last = 0 if table.empty else table.index.max()
    figure = ShownFigure(1 + 3.2 * panels, 3.1, _describe(table, last, caption), dpi=150)
    every = list(figure.subplots(1, panels))
    left, middle, right = every[0], every[1], every[1 + gates]

    _smooth_line(left, table["classification_loss"], "classification loss", BLUE)
    _smooth_line(left, later["mask_loss"], "mask loss", ORANGE)
    left.set(ylabel="loss", title="Training losses")
    left.set_ylim(bottom=0)
    if gates:
        _smooth_line(middle, 100 * later["gate_open"], "images with an open gate", PURPLE)
        middle.set(ylabel="% of the images", ylim=(0, 100), title="Batch gate")
    scores = 100 * table[["mean_iou", "pixel_accuracy"]].dropna(how="all")
    if len(scores):
        right.plot(scores["mean_iou"], "o-", color=GREEN, label="mIoU")
        right.plot(scores["pixel_accuracy"], "s-", color=BLUE, label="pixel accuracy")
    right.set(ylabel="%", ylim=(0, 100), title="Masks of the validation images")

    for axes in every[: 2 + gates]:
        if warmup_epochs:
            axes.axvspan(0, warmup_epochs, color="0.92", zorder=0)
            axes.axvline(warmup_epochs, color="0.4", linestyle="--", label="end of warm-up")
        axes.set(xlabel="epoch", xlim=(0, 1.02 * max(last, warmup_epochs or 0, 1)))
        plain(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
    if picture is not None:
        show(every[-1], picture, caption.replace(": ", "\n"))
    return figure


def _describe(table: pd.DataFrame, last: float, caption: str) -> str:
    """The curves in words: where the loss went, and the mIoU."""
    text = f"Training curves over {last:g} epochs"
    losses = table["classification_loss"].dropna().to_numpy()
    scores = 100 * table["mean_iou"].dropna().to_numpy()
    if len(losses):
        text += f"; classification loss from {losses[0]:.3f} to {losses[-1]:.3f}"
    if len(scores):
        text += f"; mIoU from {scores[0]:.0f} to {scores[-1]:.0f} percent"
    return text + (f"; {caption}, painted over it" if caption else "")


def _smooth_line(axes: Axes, values: pd.Series, label: str, colour: str) -> None:
    """Every step faintly, and the running mean over a twentieth of the steps."""
    values = values.dropna()
    if len(values):
        smooth = values.rolling(max(1, len(values) // 20), min_periods=1, center=True).mean()
        marker = "o" if len(values) < 10 else ""  # a line of one point would not be seen
        axes.plot(values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(smooth, color=colour, label=label, marker=marker)
