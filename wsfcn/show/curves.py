"""Training curves from the metrics that a run writes, also while it writes them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.sample import Sample
from ..predict import predict, protocol_of
from .panels import BLUE, GREEN, ORANGE, PURPLE, painted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..model.network import Network
    from .figures import ShownFigure

Row = Mapping[str, Any]


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


def curves(
    metrics: str | Path | Iterable[Row],
    warmup_epochs: float | None = None,
    *,
    picture: NDArray[np.uint8] | None = None,
    caption: str = "",
) -> ShownFigure:
    """Losses by epoch and mIoU with pixel accuracy, the warm-up marked.

    metrics: a JSON-lines file or its rows: per step {"epoch", "classification_loss",
    "mask_loss", "gate_open"}, per evaluation {"epoch", "mean_iou", "pixel_accuracy"}.
    warmup_epochs: the end of the warm-up; by default where the first mask loss appears. Between
    the two stands the share of images with an open gate, where rows have it. With a `picture`,
    (H, W, 3), that panel gives way to it, on the right.
    """
    from .figures import ShownFigure

    rows: list[Row]
    rows = [*read_metrics(metrics)] if isinstance(metrics, str | Path) else [*metrics]
    if warmup_epochs is None:
        warmup_epochs = _warmup_end(rows)
    masked = [r for r in rows if warmup_epochs is None or r.get("epoch", 0) > warmup_epochs]
    gates = picture is None and bool(len(_points(masked, "gate_open")))
    panels = 2 + gates + (picture is not None)
    figure = ShownFigure(figsize=(1 + 3.2 * panels, 3.1), dpi=150, layout="constrained")
    every = list(figure.subplots(1, panels))

    left = every[0]
    _smooth_line(left, rows, "classification_loss", "classification loss", BLUE)
    _smooth_line(left, masked, "mask_loss", "mask loss", ORANGE)
    left.set(xlabel="epoch", ylabel="loss", title="Training losses")
    left.set_ylim(bottom=0)

    if gates:
        shares = [{**row, "gate": 100 * row["gate_open"]} for row in masked if "gate_open" in row]
        _smooth_line(every[1], shares, "gate", "images with an open gate", PURPLE)
        every[1].set(xlabel="epoch", ylabel="% of the images", ylim=(0, 100), title="Batch gate")

    right = every[1 + gates]
    for name, label, colour, marker in (
        ("mean_iou", "mIoU", GREEN, "o"),
        ("pixel_accuracy", "pixel accuracy", BLUE, "s"),
    ):
        points = _points(rows, name)
        if len(points):
            right.plot(points[:, 0], 100 * points[:, 1], color=colour, marker=marker, label=label)
    right.set(xlabel="epoch", ylabel="%", ylim=(0, 100), title="Masks of the validation images")

    last = max((r["epoch"] for r in rows if "epoch" in r), default=0)
    for axes in every[: 2 + gates]:
        if warmup_epochs:
            axes.axvspan(0, warmup_epochs, color="0.92", zorder=0)
            axes.axvline(warmup_epochs, color="0.4", linestyle="--", label="end of warm-up")
        axes.set_xlim(0, 1.02 * max(last, warmup_epochs or 0, 1))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            place = "lower right" if gates and axes is every[1] else "best"
            axes.legend(frameon=False, fontsize=9, loc=place)
    if picture is not None:
        every[-1].imshow(picture)
        every[-1].set_title(caption.replace(": ", "\n"))
        every[-1].set_axis_off()
    figure.alt = _describe(rows, last, caption)
    return figure


class LiveCurves:
    """Curves that redraw themselves in a notebook's cell: `train(..., on_epoch=LiveCurves())`.

    All drawings share one output; the last one stays in the saved notebook. Given a `scene`,
    its mask by the network of the moment is drawn beside the curves. Between two drawings pass
    at least `seconds`; `finish` draws the final state, also of a training that is read back.
    """

    def __init__(
        self,
        warmup_epochs: float | None = None,
        scene: Sample | None = None,
        *,
        seconds: float = 2.0,
    ) -> None:
        self.warmup_epochs, self.scene, self.seconds = warmup_epochs, scene, seconds
        self._handle: Any = None
        self._drawn = -np.inf

    def __call__(self, epoch: int, model: Network, rows: Sequence[Row]) -> None:
        """Draw the rows so far, unless that was done a moment ago."""
        if time.monotonic() - self._drawn >= self.seconds:
            self._draw(model, rows, f"after epoch {epoch}")

    def finish(self, model: Network, rows: Sequence[Row]) -> None:
        """Draw the last state, whenever the one before was drawn."""
        self._draw(model, rows, "at the end")

    def _draw(self, model: Network, rows: Sequence[Row], when: str) -> None:
        from IPython.display import display

        picture, caption = None, ""
        if self.scene is not None:
            quick = protocol_of(model).change({"flip": False, "scales": (1.0,)})
            found = predict(model, [self.scene.image], quick)[0]
            picture = painted(self.scene.image, found.labels)
            caption = f"One scene {when}: {', '.join(found.found) or 'nothing found'}"
        figure = curves(rows, self.warmup_epochs, picture=picture, caption=caption)
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)
        self._drawn = time.monotonic()


def _describe(rows: Sequence[Row], last: float, caption: str) -> str:
    """The curves in words: where the loss went, and the mIoU."""
    text = f"Training curves over {last:g} epochs"
    losses, scores = _points(rows, "classification_loss"), _points(rows, "mean_iou")
    if len(losses):
        text += f"; classification loss from {losses[0, 1]:.3f} to {losses[-1, 1]:.3f}"
    if len(scores):
        text += f"; mIoU from {100 * scores[0, 1]:.0f} to {100 * scores[-1, 1]:.0f} percent"
    return text + (f"; {caption}, painted over it" if caption else "")


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
    marker = "o" if len(points) < 10 else ""  # a line of one point would not be seen
    axes.plot(points[:, 0], sums / counts, color=colour, label=label, marker=marker)
