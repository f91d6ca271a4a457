"""Masks against the truth: a score that carries its protocol, and tables of scores."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from tqdm import tqdm

from .data.sample import Dataset, Sample
from .files import write_all
from .metrics import ConfusionMatrix, Tally
from .predict import NetworkLike, predict, protocol_of, refined, settled, working_size
from .protocols import Protocol
from .results import check_complete, names_of, read_mask, read_protocol, write_mask, write_protocol
from .segmentation import BACKGROUND, Segmentation
from .settings import SettingsError

__all__ = [
    "ConfusionMatrix",
    "Score",
    "compare",
    "evaluate",
    "evaluate_folder",
    "segmented",
    "write_masks",
]


@dataclass(frozen=True)
class Score:
    """A measured result. All rates are fractions of 1; `per_class` is NaN for absent classes.

    `confusion` has the N x N pixel counts (rows: truth), `size` the working size of the masks (0
    where they were read from files). boundary_iou, size_iou: see `metrics.Tally`; not in files of
    older versions.
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
    boundary_iou: float = math.nan
    size_iou: dict[str, float] = field(default_factory=dict)

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
        rows += [("boundary IoU (mean)", _percent(self.boundary_iou))]
        rows += [(f"{size} objects (mIoU)", _percent(v)) for size, v in self.size_iou.items()]
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

    def differences(self, other: Score) -> list[str]:
        """Why two scores cannot be compared: protocol, classes, images, working size."""
        reasons = self.protocol.differences(other.protocol)
        if [*self.per_class] != [*other.per_class]:
            reasons.append(f"{len(self.per_class)} and {len(other.per_class)} classes, or others")
        if self.images != other.images:
            reasons.append(f"images: {self.images} and {other.images}")
        if self.size != other.size and self.size and other.size:
            reasons.append(f"size: {self.size} and {other.size} px")
        return reasons

    def difference(self, other: Score, *, across_protocols: bool = False) -> float:
        """mIoU of this score less that of another; SettingsError unless made alike or asked for."""
        _comparable({"this score": self, "the other": other}, across_protocols)
        return self.mean_iou - other.mean_iou

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["protocol"] = self.protocol.model_dump(mode="json")
        for name in ("per_class", "size_iou"):
            values[name] = {key: _null(value) for key, value in values[name].items()}
        values["confusion"] = [list(row) for row in self.confusion]
        return {k: _null(v) if isinstance(v, float) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        known = cls.__dataclass_fields__
        needed = [*known][: [*known].index("boundary_iou")]  # older versions have no others
        if not set(needed) <= set(values) <= set(known):
            raise ValueError(f"a score needs exactly the fields {', '.join(known)}")
        values = {k: math.nan if v is None else v for k, v in values.items()}
        values["protocol"] = Protocol(**values["protocol"])
        for name in ("per_class", "size_iou"):
            rates = values.get(name, {}).items()
            values[name] = {key: math.nan if rate is None else rate for key, rate in rates}
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


def compare(
    scores: Mapping[str, Score], *, across_protocols: bool = False, markdown: bool = False
) -> str:
    """A table of named scores, each mIoU with what it gains over the first.

    Raises SettingsError where they differ in protocol, images, classes or working size, unless
    `across_protocols`: then every row says its protocol.
    """
    if not scores:
        raise SettingsError("compare: needs a score")
    _comparable(scores, across_protocols)
    start = next(iter(scores.values())).mean_iou
    head = ["", "mIoU", "gain", "PixAcc", "boundary IoU"] + ["protocol"] * across_protocols
    rows = [head]
    for name, score in scores.items():
        rates = map(_percent, (score.mean_iou, score.pixel_accuracy, score.boundary_iou))
        miou, accuracy, boundary = rates
        row = [name, miou, f"{100 * (score.mean_iou - start):+.2f}", accuracy, boundary]
        rows.append(row + [score.protocol.describe()] * across_protocols)
    wide = [max(len(row[i]) for row in rows) for i in range(len(head))]
    texts = [
        [t.ljust(w) if i in (0, 5) else t.rjust(w) for i, (t, w) in enumerate(zip(r, wide))]  # noqa: B905
        for r in rows
    ]
    if markdown:
        texts.insert(1, ["-" * (w - 1) + ("-" if i in (0, 5) else ":") for i, w in enumerate(wide)])
        lines = [f"| {' | '.join(text)} |" for text in texts]
    else:
        lines = ["  ".join(text).rstrip() for text in texts]
    if not across_protocols:
        lines += ["", next(iter(scores.values())).protocol.describe()]
    return "\n".join(lines)


def _comparable(scores: Mapping[str, Score], across_protocols: bool) -> None:
    (first, score), *others = scores.items()
    for name, other in others:
        reasons = score.differences(other)
        if reasons and not across_protocols:
            raise SettingsError(
                f"{first} and {name} were made differently: {'; '.join(reasons)} "
                "(across_protocols=True compares them all the same)"
            )


def evaluate(
    model: NetworkLike,
    dataset: Dataset,
    protocol: Protocol | None = None,
    *,
    batch_size: int = 16,
    size: int | None = None,
    limit: int | None = None,
    progress: bool = True,
    processes: int = 1,
    save: str | Path | None = None,
) -> Score:
    """The score of a network's masks on a data set with masks (section IV-A, spec 6.3).

    protocol: how masks are made; the recipe's own by default. size: longest side the network
    works at (see `predict.default_size`); masks are compared at the size of the images. limit:
    only the first so many images. processes: for the CRF, see `predict.refined`. save: a folder
    that takes each label map, see `results.write_mask`. Equal-sized images share a batch. In a
    distributed run each process scores its share of the images, and all get the whole score.

    Raises SettingsError if the data set has other classes than the network, or no masks.
    """
    protocol = _of_split(protocol or protocol_of(model), dataset)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    size = working_size(model, size)
    tally = Tally(len(model.classes) + 1)
    start = time.perf_counter()
    for sample, found in segmented(
        model,
        dataset,
        protocol,
        batch_size=batch_size,
        size=size,
        limit=limit,
        progress=progress,
        processes=processes,
        masks=True,
    ):
        if save is not None:
            write_mask(save, sample.id, found.labels)
        _count(tally, sample, found.labels)
    if dist.is_available() and dist.is_initialized():
        device = next(model.parameters()).device
        for array in (tally.confusion.matrix, tally.boundaries, tally.sizes):
            counts = torch.from_numpy(array).to(device)
            dist.all_reduce(counts)
            array[:] = counts.cpu().numpy()
    if save is not None:
        write_protocol(save, protocol)
    return _score(tally, model.classes, count, protocol, size, time.perf_counter() - start)


def segmented(
    model: NetworkLike,
    dataset: Dataset,
    protocol: Protocol,
    *,
    batch_size: int = 16,
    size: int | None = None,
    limit: int | None = None,
    progress: bool = True,
    processes: int = 1,
    masks: bool = False,
) -> Iterator[tuple[Sample, Segmentation]]:
    """Every sample of this process's share with what the network makes of it; not in order.

    masks: the data set must have them. Other arguments and errors as `evaluate`.
    """
    if tuple(dataset.classes) != tuple(model.classes):
        raise SettingsError(
            f"classes differ: the network knows {', '.join(model.classes)}; "
            f"the data set {', '.join(dataset.classes)}"
        )
    if batch_size < 1 or (limit is not None and limit < 1):
        raise SettingsError("batch_size and limit: need at least 1")
    count = len(dataset) if limit is None else min(limit, len(dataset))
    shared = dist.is_available() and dist.is_initialized()
    own = range(dist.get_rank(), count, dist.get_world_size()) if shared else range(count)
    protocol = settled(protocol)
    plain = protocol.change({"crf": "none"})
    samples: deque[Sample] = deque()

    def predicted() -> Iterator[tuple[str, Segmentation]]:
        for batch in _batches(dataset, own, batch_size, masks):
            labels = np.stack([s.labels for s in batch]) if protocol.image_labels else None
            images = [s.image for s in batch]
            results = predict(model, images, plain, labels, size=size, batch_size=batch_size)
            for sample, result in zip(batch, results, strict=True):
                samples.append(sample)
                yield sample.id, result

    if protocol.crf == "none":
        found: Iterable[Segmentation] = (one for _, one in predicted())
    else:
        found = refined(predicted(), protocol, processes=processes)
    with tqdm(total=len(own), desc="evaluate", unit="image", disable=not progress) as bar:
        for one in found:
            yield samples.popleft(), one
            bar.update()


def write_masks(
    model: NetworkLike,
    dataset: Dataset,
    folder: str | Path,
    protocol: Protocol | None = None,
    **options: Any,
) -> None:
    """Write the masks of a data set that needs none itself, such as VOC's test split.

    options: as `segmented`. The files are those of `evaluate(save=...)`.
    """
    protocol = _of_split(protocol or protocol_of(model), dataset)
    for sample, found in segmented(model, dataset, protocol, **options):
        write_mask(folder, sample.id, found.labels)
    write_protocol(folder, protocol)


def evaluate_folder(
    predictions: str | Path,
    dataset: Dataset,
    protocol: Protocol | None = None,
    *,
    progress: bool = True,
) -> Score:
    """The score of index PNGs `<predictions>/<id>.png` on a data set with masks.

    protocol: how they were made; by default what the folder's protocol.json says, which
    `evaluate(save=...)` writes. Raises MissingPredictionsError naming the images without a file,
    before any is read, and ValueError naming a file that does not fit its image.
    """
    folder = Path(predictions)
    if protocol is None:
        protocol = read_protocol(folder)
    protocol = _of_split(protocol, dataset)
    check_complete(folder, names_of(dataset))
    tally = Tally(len(dataset.classes) + 1)
    start = time.perf_counter()
    for index in tqdm(range(len(dataset)), "evaluate", unit="image", disable=not progress):
        sample = _with_mask(dataset[index])
        _count(tally, sample, read_mask(folder, sample.id))
    seconds = time.perf_counter() - start
    return _score(tally, tuple(dataset.classes), len(dataset), protocol, 0, seconds)


def _of_split(protocol: Protocol, dataset: Dataset) -> Protocol:
    """The protocol as a score carries it: with the split it is made on, its CRF's code chosen."""
    split = str(getattr(dataset, "split", ""))
    if protocol.split and split and protocol.split != split:
        raise SettingsError(f"split: the protocol says {protocol.split}, the data set is {split}")
    return settled(protocol.change({"split": protocol.split or split}))


def _count(tally: Tally, sample: Sample, labels: NDArray[np.uint8]) -> None:
    try:
        tally.update(labels, np.asarray(sample.mask))
    except ValueError as error:
        raise ValueError(f"{sample.id}: {error}") from None


def _score(
    tally: Tally,
    classes: tuple[str, ...],
    images: int,
    protocol: Protocol,
    size: int,
    seconds: float,
) -> Score:
    confusion = tally.confusion
    return Score(
        mean_iou=confusion.mean_iou,
        pixel_accuracy=confusion.pixel_accuracy,
        foreground_precision=confusion.foreground_precision,
        foreground_recall=confusion.foreground_recall,
        per_class=dict(zip((BACKGROUND, *classes), confusion.iou().tolist(), strict=True)),
        images=images,
        protocol=protocol,
        size=size,
        seconds=seconds,
        confusion=tuple(map(tuple, confusion.matrix.tolist())),
        boundary_iou=tally.boundary_iou,
        size_iou=tally.size_iou,
    )


def _with_mask(sample: Sample) -> Sample:
    if sample.mask is None:
        raise SettingsError(f"{sample.id}: has no mask, so its prediction cannot be scored")
    return sample


def _batches(
    dataset: Dataset, indices: Iterable[int], batch_size: int, masks: bool
) -> Iterator[list[Sample]]:
    """Samples in batches of equal image size; every sample exactly once."""
    waiting: dict[tuple[int, ...], list[Sample]] = {}
    for index in indices:
        sample = _with_mask(dataset[index]) if masks else dataset[index]
        batch = waiting.setdefault(sample.image.shape, [])
        batch.append(sample)
        if len(batch) == batch_size:
            yield waiting.pop(sample.image.shape)
    yield from waiting.values()
