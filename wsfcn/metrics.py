"""Counts of pixels, and the rates that follow: IoU, boundary IoU, IoU by the size of objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.measure import label as regions

from .data.sample import IGNORE

BOUNDARY = 0.02  # width of a boundary as a share of the image's diagonal (Cheng et al., CVPR 2021)
# COCO's limits of 32^2 and 96^2 px, on its usual image of 640 x 480 px, as shares of the image.
SIZES = {"small": 32**2 / (640 * 480), "medium": 96**2 / (640 * 480), "large": 1.0}


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
        for name, values in (("prediction", predicted), ("target", true)):
            if values.dtype.kind not in "iu":
                raise ValueError(f"{name}: needs integer labels, got {values.dtype}")
            if values.dtype != np.uint8 and values.size:
                extreme = max(int(values.min()), int(values.max()), key=lambda v: abs(v - 127))
                self._refuse(name, [] if 0 <= extreme <= IGNORE else [extreme])
        # Labels are judged by their counts, 256 x 256 numbers, not pixel by pixel.
        pairs = true.astype(np.intp) << 8
        pairs |= predicted.astype(np.uint8)
        counts = np.bincount(pairs.ravel(), minlength=256 * 256).reshape(256, 256)
        n = self.num_classes
        self._refuse("prediction", n + np.flatnonzero(counts[:, n:].any(0)))
        self._refuse("target", n + np.flatnonzero(counts[n:IGNORE].any(1)))
        self.matrix += counts[:n, :n]

    def _refuse(self, name: str, wrong: Sequence[int] | NDArray[np.intp]) -> None:
        if len(wrong):
            extra = f" or {IGNORE} (ignore)" if name == "target" else ""
            raise ValueError(
                f"{name}: label {int(wrong[0])} is not one of 0..{self.num_classes - 1}{extra}"
            )

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
        return _mean(self.iou())

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


class Tally:
    """All counts of a data set: the confusion matrix, boundaries, objects by size.

    `boundaries` (3, N) and `sizes` (3, 3, N; small, medium, large) hold hits, false and missed
    pixels by class. Ignored pixels are taken out of truth and prediction first.

    Boundaries (Cheng et al., CVPR 2021): only pixels within 2 % of the image's diagonal of the
    own class's contour count, the border of the image being one; the larger an object, the less
    its inside can hide how wrong its outline is.

    Sizes: an object is a connected region of one class in the truth. Its hits and misses are its
    own; the false pixels of a predicted region belong to the largest object of its class that the
    region meets, or where it meets none to the size of the region. So the three sizes add up to
    the whole.
    """

    def __init__(self, num_classes: int) -> None:
        self.confusion = ConfusionMatrix(num_classes)
        self.boundaries: NDArray[np.int64] = np.zeros((3, num_classes), np.int64)
        self.sizes: NDArray[np.int64] = np.zeros((len(SIZES), 3, num_classes), np.int64)

    def update(self, prediction: ArrayLike, target: ArrayLike) -> None:
        """Count label maps (H, W); errors as `ConfusionMatrix.update`."""
        self.confusion.update(prediction, target)
        true = np.asarray(target).astype(np.uint8)
        found = np.where(true == IGNORE, IGNORE, np.asarray(prediction)).astype(np.uint8)
        self._count_boundaries(found, true)
        self._count_sizes(found, true)

    def _by_class(self, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
        return np.bincount(labels, minlength=self.confusion.num_classes)[
            : self.confusion.num_classes
        ]

    def _count_boundaries(self, found: NDArray[np.uint8], true: NDArray[np.uint8]) -> None:
        width = max(1, round(BOUNDARY * math.hypot(*true.shape)))
        of_found, of_true = _band(found, width), _band(true, width)
        hits = self._by_class(found[of_found & of_true & (found == true)])
        self.boundaries[0] += hits
        self.boundaries[1] += self._by_class(found[of_found]) - hits
        self.boundaries[2] += self._by_class(true[of_true]) - hits

    def _count_sizes(self, found: NDArray[np.uint8], true: NDArray[np.uint8]) -> None:
        limits = np.array([*SIZES.values()][:-1]) * true.size
        classes = self.confusion.num_classes
        objects, guesses = (
            regions(np.where(labels == IGNORE, 0, labels), background=0, connectivity=2)
            for labels in (true, found)
        )
        areas, own = np.bincount(objects.ravel()), np.bincount(guesses.ravel())
        right = (found == true) & (objects > 0)
        met = np.zeros(len(own), np.int64)  # area of the largest object that a guess meets
        np.maximum.at(met, guesses[right], areas[objects[right]])
        size_of_object = np.searchsorted(limits, areas, side="right")
        size_of_guess = np.searchsorted(limits, np.where(met > 0, met, own), side="right")
        wrong, missed = (guesses > 0) & ~right, (objects > 0) & ~right
        for row, size, labels in (
            (0, size_of_object[objects[right]], true[right]),
            (1, size_of_guess[guesses[wrong]], found[wrong]),
            (2, size_of_object[objects[missed]], true[missed]),
        ):
            counts = np.bincount(size * classes + labels, minlength=len(SIZES) * classes)
            self.sizes[:, row] += counts.reshape(len(SIZES), classes)

    @property
    def boundary_iou(self) -> float:
        """Mean over the classes that occur, background included."""
        return _mean(_ratio(self.boundaries[0], self.boundaries.sum(0)))

    @property
    def size_iou(self) -> dict[str, float]:
        """For each size the mean over the foreground classes that have objects of it."""
        result = {}
        for name, (hits, false, missed) in zip(SIZES, self.sizes, strict=True):
            result[name] = _mean(
                np.where(hits + missed, _ratio(hits, hits + false + missed), np.nan)
            )
        return result


def _band(labels: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Pixels with another label, or the end of the image, at most `width` px away along an axis
    or diagonal; what `width` erosions by a 3 x 3 square remove from each class."""
    outside = {"size": 2 * width + 1, "mode": "constant", "cval": IGNORE - 1}
    highest = ndimage.maximum_filter(labels, **outside)
    return highest != ndimage.minimum_filter(labels, **outside)


def _mean(values: NDArray[np.float64]) -> float:
    return math.nan if np.isnan(values).all() else float(np.nanmean(values))


def _ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.true_divide(part, whole)
