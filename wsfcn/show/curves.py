"""Training curves from the metrics that a run writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito, told apart by everyone


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file. An unfinished last line (a run in progress) is left out.

    Raises ValueError naming file and line for anything else that is no JSON object.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            if not line.endswith("\n"):
                break
            raise ValueError(f"{path} line {number}: is not JSON") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path} line {number}: needs an object of metrics by name")
        rows.append(row)
    return rows


def curves(metrics: str | Path | Iterable[Row], warmup_epochs: float | None = None) -> Figure:
    """Losses by epoch (left) and mIoU with pixel accuracy (right), the warm-up marked.

    metrics: a JSON-lines file or its rows: per step {"epoch", "classification_loss",
    "mask_loss", ...}, per evaluation {"epoch", "mean_iou", "pixel_accuracy"}. warmup_epochs: the
    end of the warm-up; by default where the first mask loss appears.
    """
    from matplotlib.figure import Figure

    rows: list[Row]
    rows = [*read_metrics(metrics)] if isinstance(metrics, str | Path) else [*metrics]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    if warmup_epochs is None:
        warmup_epochs = _warmup_end(rows)

    _smooth_line(left, rows, "classification_loss", "classification loss", BLUE)
    masked = [r for r in rows if warmup_epochs is None or r.get("epoch", 0) > warmup_epochs]
    _smooth_line(left, masked, "mask_loss", "mask loss", ORANGE)
    left.set(xlabel="epoch", ylabel="loss", title="Training losses")
    left.set_ylim(bottom=0)

    for name, label, colour, marker in (
        ("mean_iou", "mIoU", GREEN, "o"),
        ("pixel_accuracy", "pixel accuracy", BLUE, "s"),
    ):
        points = _points(rows, name)
        if len(points):
            right.plot(points[:, 0], 100 * points[:, 1], color=colour, marker=marker, label=label)
    right.set(xlabel="epoch", ylabel="%", ylim=(0, 100), title="Masks of the validation images")

    for axes in (left, right):
        if warmup_epochs:
            axes.axvspan(0, warmup_epochs, color="0.92", zorder=0)
            axes.axvline(warmup_epochs, color="0.4", linestyle="--", label="end of warm-up")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    return figure


def _warmup_end(rows: list[Row]) -> float | None:
    """Full epochs before the first step with a mask loss; None if there is none.

    A row's epoch counts what is finished after its step: 3.0 is the end of the third epoch.
    """
    epochs = [r["epoch"] for r in rows if r.get("mask_loss") and "epoch" in r]
    return float(np.ceil(min(epochs)) - 1) if epochs else None


def _points(rows: Iterable[Row], name: str) -> np.ndarray:
    """(n, 2) of epoch and value, rows without a value left out."""
    points = [(r["epoch"], r[name]) for r in rows if r.get(name) is not None and "epoch" in r]
    return np.asarray(points, float).reshape(-1, 2)


def _smooth_line(axes: Axes, rows: Iterable[Row], name: str, label: str, colour: str) -> None:
    """Every step faintly, and the running mean over a twentieth of the steps."""
    points = _points(rows, name)
    if not len(points):
        return
    width = max(1, len(points) // 20)
    sums = np.convolve(points[:, 1], np.ones(width), "same")
    counts = np.convolve(np.ones(len(points)), np.ones(width), "same")
    axes.plot(points[:, 0], points[:, 1], color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(points[:, 0], sums / counts, color=colour, label=label)
