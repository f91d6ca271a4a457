"""What a record says of a network on a data set: rates, and sums by image that add up to them.

Besides mIoU the paper's two problems are measured: background incompleteness as the share of the
background that is claimed, object incompleteness as the share of an object that is missed where
its class was found, and as the share of thin parts that is found.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.morphology import disk, opening

from ..data.sample import IGNORE, Dataset, Sample
from ..evaluate import segmented
from ..metrics import Tally
from ..model.network import Network
from ..predict import settled
from ..protocols import Protocol

Labels = NDArray[np.uint8]
PROBLEMS = ("background claimed", "object missed", "thin parts found")
"""Measures of the two problems; each is a sum over images divided by another."""


def thin_parts(exact: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) pixels of one object -> those that a disc of 7 px cannot reach."""
    return exact & ~opening(exact, disk(3))


def object_counts(found: Labels, exact: Labels, classes: int) -> NDArray[np.int64]:
    """(4, K) by class: pixels found, pixels, pixels of thin parts found, pixels of thin parts."""
    counts = np.zeros((4, classes), np.int64)
    for k in np.unique(exact[(exact > 0) & (exact < IGNORE)]):
        thing, right = exact == k, found == k
        thin = thin_parts(thing)
        counts[:, k - 1] = [(a & b).sum() for a in (thing, thin) for b in (right, True)]
    return counts


def problem_sums(found: Labels, exact: Labels, classes: int) -> list[float]:
    """Numerator and denominator of each of PROBLEMS for one image."""
    ground = exact == 0
    hit, pixels, thin_hit, thin = object_counts(found, exact, classes)
    seen = hit > 0
    missed = round(float((1 - hit[seen] / pixels[seen]).sum()), 5)
    claimed = [int((found[ground] > 0).sum()), int(ground.sum())]
    return [*claimed, missed, int(seen.sum()), int(thin_hit.sum()), int(thin.sum())]


def measure(
    model: Network,
    data: Dataset,
    protocol: Protocol | None = None,
    limit: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Rates in percent (None where there are none), protocol, classes, data, and sums by image.

    data: a fingerprint of the pixels that were scored. counts: image -> [class, hits, union,
    class, ...] in pixels, of all classes that occur in it. problems: image -> `problem_sums`.
    """
    split = str(getattr(data, "split", ""))
    protocol = settled((protocol or model.recipe.protocol).change({"split": split}))
    tally, counts, problems, pixels = Tally(len(model.classes) + 1), {}, {}, {}
    options: dict[str, Any] = {"limit": limit, "progress": progress, "masks": True}
    for sample, found in segmented(model, data, protocol, **options):
        before, exact = tally.confusion.matrix.copy(), np.asarray(sample.mask)
        tally.update(found.labels, exact)
        own = tally.confusion.matrix - before
        hits = own.diagonal()
        union = own.sum(0) + own.sum(1) - hits
        seen = np.flatnonzero(union)
        counts[sample.id] = np.stack([seen, hits[seen], union[seen]], 1).ravel().tolist()
        problems[sample.id] = problem_sums(found.labels, exact, len(model.classes))
        pixels[sample.id] = _digest(sample)
    whole = tally.confusion
    rates = {"mIoU": whole.mean_iou, "PixAcc": whole.pixel_accuracy}
    rates |= {"boundary IoU": tally.boundary_iou} | tally.size_iou
    sums = np.sum([*problems.values()], 0).reshape(-1, 2)
    rates |= {n: a / b if b else np.nan for n, (a, b) in zip(PROBLEMS, sums, strict=True)}
    values = {name: None if np.isnan(v) else round(100 * v, 4) for name, v in rates.items()}
    about = {"protocol": protocol.describe(), "classes": len(model.classes) + 1}
    told = "".join(f"{name} {pixels[name]}\n" for name in sorted(pixels))
    about["data"] = f"{len(pixels)} images, {hashlib.sha256(told.encode()).hexdigest()[:12]}"
    by_image = {"counts": dict(sorted(counts.items())), "problems": dict(sorted(problems.items()))}
    return {**values, **about, **by_image}


def _digest(sample: Sample) -> str:
    arrays = (np.ascontiguousarray(a) for a in (sample.image, sample.mask))
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()
