"""Masks against the truth: confusion matrix, IoU, and a score that carries its protocol."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from .data.sample import IGNORE, Dataset, Sample
from .files import write_all
from .predict import NetworkLike, predict, protocol_of, working_size
from .protocols import Protocol
from .segmentation import BACKGROUND
from .settings import SettingsError


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column), 0 = background.

    >>> m = ConfusionMatrix(num_classes=2)
    >>> m.update(prediction=[[0, 1]], target=[[0, 0]])
    >>> m.matrix.tolist()
    [[1, 1], [0, 0]]
    """

    def __init__(self, num_classes: int) -> None:
        if not 2 <= num_classes <= IGNORE:
            raise ValueError(f"num_classes: needs 2 to {IGNORE} with background, got {num_classes}")
        self.num_classes = num_classes
        self.matrix: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)

    def update(self, prediction: ArrayLike, target: ArrayLike) -> None:
        """Count pixels of integer label maps of equal shape; target 255 is skipped.

        Raises ValueError for another shape, a target that is neither a class nor 255, or a
        prediction that is no class.
        """
        predicted, true = np.asarray(prediction), np.asarray(target)
        if predicted.shape != true.shape:
            raise ValueError(f"shapes differ: prediction {predicted.shape}, target {true.shape}")
        n = self.num_classes
        for name, values in (("prediction", predicted), ("target", true)):
            if values.dtype.kind not in "iu":
                raise ValueError(f"{name}: needs integer labels, got {values.dtype}")
            wrong = (values < 0) | (values >= n)
            if name == "target":
                wrong &= values != IGNORE
            if wrong.any():
                extra = f" or {IGNORE} (ignore)" if name == "target" else ""
                value = int(values[wrong].flat[0])
                raise ValueError(f"{name}: label {value} is not one of 0..{n - 1}{extra}")
        counted = true != IGNORE
        pairs = n * true[counted].astype(np.int64) + predicted[counted].astype(np.int64)
        self.matrix += np.bincount(pairs, minlength=n * n).reshape(n, n)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another matrix (another worker, another part of the data)."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} with {self.num_classes} classes")
        self.matrix += other.matrix

    def iou(self) -> NDArray[np.float64]:
        """(N,) intersection over union, NaN for a class neither predicted nor true anywhere."""
        hits = self.matrix.diagonal()
        return _ratio(hits, self.matrix.sum(0) + self.matrix.sum(1) - hits)

    @property
    def absent(self) -> tuple[int, ...]:
        """Classes with no pixel in prediction or truth; the mean IoU leaves them out."""
        return tuple(int(c) for c in np.flatnonzero(np.isnan(self.iou())))

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur, background included; NaN without any pixel."""
        iou = self.iou()
        return float(np.nanmean(iou)) if not np.isnan(iou).all() else math.nan

    @property
    def pixel_accuracy(self) -> float:
        """Share of counted pixels with the right class."""
        return float(_ratio(self.matrix.trace(), self.matrix.sum()))

    @property
    def foreground_precision(self) -> float:
        """Share of the pixels predicted as any object that are on some object."""
        return float(_ratio(self.matrix[1:, 1:].sum(), self.matrix[:, 1:].sum()))

    @property
    def foreground_recall(self) -> float:
        """Share of the pixels of objects that are predicted as some object."""
        return float(_ratio(self.matrix[1:, 1:].sum(), self.matrix[1:].sum()))


def _ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.true_divide(part, whole)


@dataclass(frozen=True)
class Score:
    """A measured result. All rates are fractions of 1; `per_class` is NaN for absent classes.

    `confusion` has the N x N pixel counts (rows: truth), `size` the working size of the masks.
    """

    mean_iou: float
    pixel_accuracy: float
    foreground_precision: float
    foreground_recall: float
    per_class: dict[str, float]
    images: int
    protocol: Protocol
    size: int
    seconds: float
    confusion: tuple[tuple[int, ...], ...] = field(repr=False)

    def __str__(self) -> str:
        if not self.images:
            return "not scored: no image has a mask"
        return (
            f"mIoU {100 * self.mean_iou:.2f}  PixAcc {100 * self.pixel_accuracy:.2f}  "
            f"({self.images} images; {self.protocol.describe()})"
        )

    def table(self, markdown: bool = False) -> str:
        """IoU by class in percent, with the means and the protocol underneath."""
        rows = [(name, _percent(value)) for name, value in self.per_class.items()]
        absent = [name for name, value in self.per_class.items() if math.isnan(value)]
        rows += [("mean (mIoU)", _percent(self.mean_iou))]
        rows += [("pixel accuracy", _percent(self.pixel_accuracy))]
        rows += [("foreground precision", _percent(self.foreground_precision))]
        rows += [("foreground recall", _percent(self.foreground_recall))]
        wide = max(len(name) for name, _ in rows)
        if markdown:
            lines = [f"| {'class':<{wide}} | IoU % |", f"| {'-' * wide} | ----: |"]
            lines += [f"| {name:<{wide}} | {value:>5} |" for name, value in rows]
        else:
            lines = [f"{'class':<{wide}}  IoU %"]
            lines += [f"{name:<{wide}}  {value:>5}" for name, value in rows]
        notes = [f"{self.images} images in {self.seconds:.1f} s; {self.protocol.describe()}"]
        if absent:
            notes.append(f"absent, not in the mean: {', '.join(absent)}")
        return "\n".join([*lines, "", *notes])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["protocol"] = self.protocol.model_dump(mode="json")
        values["per_class"] = {name: _null(value) for name, value in self.per_class.items()}
        values["confusion"] = [list(row) for row in self.confusion]
        return {k: _null(v) if isinstance(v, float) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        known = cls.__dataclass_fields__
        if set(values) != set(known):
            raise ValueError(f"a score needs exactly the fields {', '.join(known)}")
        values = {k: math.nan if v is None else v for k, v in values.items()}
        values["protocol"] = Protocol(**values["protocol"])
        values["per_class"] = {
            name: math.nan if value is None else value
            for name, value in values["per_class"].items()
        }
        values["confusion"] = tuple(tuple(row) for row in values["confusion"])
        return cls(**values)

    def save(self, path: str | Path) -> Path:
        """Write as JSON, whole or not at all."""
        path = Path(path)
        content = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        return write_all(path.parent, {path.name: content.encode()})[0]

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read what `save` wrote; ValueError naming the file where it is not a score."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: is not a saved score ({error})") from None


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value


def evaluate(
    model: NetworkLike,
    dataset: Dataset,
    protocol: Protocol | None = None,
    *,
    batch_size: int = 16,
    size: int | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> Score:
    """The score of a network's masks on a data set with masks (section IV-A, spec 6.3).

    protocol: how masks are made; the recipe's own by default. size: longest side the network
    works at (see `predict.default_size`); masks are compared at the size of the images. limit:
    only the first so many images. Equal-sized images share a batch. In a distributed run each
    process scores its share of the images, and all get the whole score.

    Raises SettingsError if the data set has other classes than the network, or no masks.
    """
    protocol = protocol or protocol_of(model)
    if tuple(dataset.classes) != tuple(model.classes):
        raise SettingsError(
            f"classes differ: the network knows {', '.join(model.classes)}; "
            f"the data set {', '.join(dataset.classes)}"
        )
    if batch_size < 1 or (limit is not None and limit < 1):
        raise SettingsError("batch_size and limit: need at least 1")
    size = working_size(model, size)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    shared = dist.is_available() and dist.is_initialized()
    own = range(dist.get_rank(), count, dist.get_world_size()) if shared else range(count)
    confusion = ConfusionMatrix(num_classes=len(model.classes) + 1)
    start = time.perf_counter()
    with tqdm(total=len(own), desc="evaluate", unit="image", disable=not progress) as bar:
        for batch in _batches(dataset, own, batch_size):
            labels = np.stack([s.labels for s in batch]) if protocol.image_labels else None
            images = [s.image for s in batch]
            results = predict(model, images, protocol, labels, size=size, batch_size=batch_size)
            for sample, result in zip(batch, results, strict=True):
                try:
                    confusion.update(result.labels, np.asarray(sample.mask))
                except ValueError as error:
                    raise ValueError(f"{sample.id}: {error}") from None
            bar.update(len(batch))
    if shared:
        device = next(model.parameters()).device
        counts = torch.from_numpy(confusion.matrix).to(device)
        dist.all_reduce(counts)
        confusion.matrix = counts.cpu().numpy()
    return Score(
        mean_iou=confusion.mean_iou,
        pixel_accuracy=confusion.pixel_accuracy,
        foreground_precision=confusion.foreground_precision,
        foreground_recall=confusion.foreground_recall,
        per_class=dict(zip((BACKGROUND, *model.classes), confusion.iou().tolist(), strict=True)),
        images=count,
        protocol=protocol,
        size=size,
        seconds=time.perf_counter() - start,
        confusion=tuple(map(tuple, confusion.matrix.tolist())),
    )


def _batches(dataset: Dataset, indices: Iterable[int], batch_size: int) -> Iterator[list[Sample]]:
    """Samples in batches of equal image size; every sample exactly once."""
    waiting: dict[tuple[int, ...], list[Sample]] = {}
    for index in indices:
        sample = dataset[index]
        if sample.mask is None:
            raise SettingsError(f"{sample.id}: has no mask, so its prediction cannot be scored")
        batch = waiting.setdefault(sample.image.shape, [])
        batch.append(sample)
        if len(batch) == batch_size:
            yield waiting.pop(sample.image.shape)
    yield from waiting.values()
