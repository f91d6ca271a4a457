"""Masks against the truth, from a network or from files; the result is a `Score`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from tqdm import tqdm

from .data.sample import Dataset, Sample
from .metrics import ConfusionMatrix, Tally
from .predict import NetworkLike, at_size, predict, protocol_of, refined, settled
from .protocols import Protocol
from .results import check_complete, names_of, read_mask, read_protocol, write_mask, write_protocol
from .score import Score, compare
from .segmentation import BACKGROUND, Segmentation
from .settings import SettingsError

WAITING = 4  # batches of samples that memory holds

__all__ = [
    "ConfusionMatrix",
    "Score",
    "compare",
    "evaluate",
    "evaluate_folder",
    "segmented",
    "write_masks",
]


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
    protocol, size = at_size(model, _of_split(protocol or protocol_of(model), dataset), size)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    tally = Tally(len(model.classes) + 1)
    start = time.perf_counter()
    found_of = segmented(
        model,
        dataset,
        protocol,
        batch_size=batch_size,
        size=size,
        limit=limit,
        progress=progress,
        processes=processes,
        masks=True,
    )
    for sample, found in found_of if save is None else _saving(found_of, save, protocol):
        _count(tally, sample, found.labels)
    if dist.is_available() and dist.is_initialized():
        device = next(model.parameters()).device
        for array in (tally.confusion.matrix, tally.boundaries, tally.sizes):
            counts = torch.from_numpy(array).to(device)
            dist.all_reduce(counts)
            array[:] = counts.cpu().numpy()
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
    deque(_saving(segmented(model, dataset, protocol, **options), folder, protocol), maxlen=0)


def _saving(
    pairs: Iterable[tuple[Sample, Segmentation]], folder: str | Path, protocol: Protocol
) -> Iterator[tuple[Sample, Segmentation]]:
    """Each pair, its mask written; the protocol goes first, lest a break leave masks without."""
    for number, (sample, found) in enumerate(pairs):
        if number == 0:
            write_protocol(folder, protocol)
        write_mask(folder, sample.id, found.labels)
        yield sample, found


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
    """Samples in batches of equal image size; every sample exactly once. Of photos of many sizes
    at most WAITING batches wait: then the largest one goes as it is."""
    waiting: dict[tuple[int, ...], list[Sample]] = {}
    for index in indices:
        sample = _with_mask(dataset[index]) if masks else dataset[index]
        batch = waiting.setdefault(sample.image.shape, [])
        batch.append(sample)
        if len(batch) == batch_size:
            yield waiting.pop(sample.image.shape)
        elif sum(map(len, waiting.values())) >= WAITING * batch_size:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()
