"""What went wrong in an image, and why: every wrong pixel has exactly one cause.

Causes are told from label maps alone, so that they mean the same on scenes and on photos. Whether
one is the true cause only an experiment can tell that removes it (notebook 07_failure_cases).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from ..data import build_split, scored
from ..data.check import layout_of
from ..data.grounds import FAMILY_OF, grounds
from ..data.sample import IGNORE, Dataset, Sample
from ..data.scenes import Scene, SceneSet
from ..evaluate import ConfusionMatrix, segmented
from ..metrics import BOUNDARY, SIZES
from ..model.network import Network
from ..protocols import Protocol
from ..recipes import Data
from ..settings import SettingsError

Labels = NDArray[np.uint8]

SMALL = SIZES["medium"]  # 3 % of the image: COCO's 96 x 96 px of 640 x 480
LOST, UNSEEN = 0.5, 0.1  # an object of which less is right
NOTABLE = 0.02  # gain of an image's mIoU from which on a cause is named
SPECK = 0.001  # share of the image under which a region is no object of its own
CAUSES = {
    "small object": f"an object under {100 * SMALL:.0f} % of the image, less than half of it right",
    "false class": "pixels given to a class that is not in the image",
    "missing class": f"less than {100 * UNSEEN:.0f} % of an object is right",
    "leaked boundary": f"an outline that is off by up to {100 * BOUNDARY:.0f} % of the diagonal",
    "half object": "the other pixels of an object that are missing",
    "co-occurring background": "background farther away, given to a class that is in the image",
}
"""Cause -> its definition. Where several fit a pixel, the first counts. An object is a connected
region of one class in the exact mask; gaps of a few pixels do not cut it."""


@dataclass(frozen=True)
class Thing:
    """An object: its class, share of the image, share of it that is right, and IoU.

    Each false pixel of a class counts against the nearest object of that class in the image.
    """

    name: str
    area: float
    found: float
    iou: float


@dataclass(frozen=True)
class Case:
    """An image with a mask, and what a network made of it.

    errors: (H, W) uint8, 0 for right or not counted, i + 1 for the i-th of CAUSES. place: the
    ground of a scene.
    """

    causes: ClassVar[dict[str, str]] = CAUSES
    sample: Sample
    prediction: Labels
    classes: tuple[str, ...]
    errors: Labels
    things: tuple[Thing, ...]
    place: str = ""

    @property
    def truth(self) -> Labels:
        """The exact mask."""
        assert self.sample.mask is not None
        return self.sample.mask

    def of(self, cause: str) -> NDArray[np.bool_]:
        """Where the pixels are wrong for this cause."""
        return self.errors == [*CAUSES].index(cause) + 1

    @cached_property
    def iou(self) -> float:
        """mIoU of this image: over the classes in it or in the prediction, background included."""
        return mean_iou([self])

    @cached_property
    def gains(self) -> dict[str, float]:
        """What this image's mIoU gains if a cause is repaired, for all NOTABLE ones, most first."""
        gains = {c: mean_iou([self], c) - self.iou for c in CAUSES if self.of(c).any()}
        return {c: g for c, g in sorted(gains.items(), key=lambda item: -item[1]) if g >= NOTABLE}

    @property
    def main(self) -> str:
        """The cause whose repair gains most; empty where none is notable."""
        return next(iter(self.gains), "")

    @cached_property
    def why(self) -> tuple[str, ...]:
        """A sentence for each notable cause."""
        return tuple(
            f"{c}: {self._told(c)}. Repaired: +{100 * g:.0f}." for c, g in self.gains.items()
        )

    def _told(self, cause: str) -> str:
        if cause == "leaked boundary":
            return f"outlines are off by up to {_width(self.truth)} px"
        missed = cause in ("small object", "missing class", "half object")
        labels = (self.truth if missed else self.prediction)[self.of(cause)]
        most = np.bincount(labels, minlength=len(self.classes) + 1)[1:]
        name, share = self.classes[most.argmax()], 100 * most.max() / self.truth.size
        if missed:
            area = SMALL if cause == "small object" else 1.1
            part = UNSEEN if cause == "missing class" else 1.1
            own = [t for t in self.things if t.name == name and t.area < area and t.found < part]
            if not own:  # the object is a speck
                return f"the {name} covers {share:.1f} % of the image"
            worst = max(own, key=lambda t: t.area * (1 - t.found))
            part, area = 100 * worst.found, 100 * worst.area
            return f"{part:.0f} % of the {name} is found; it covers {area:.1f} % of the image"
        if cause == "false class":
            return f"there is no {name}, yet it has {share:.1f} % of the image"
        ground = f" (ground: {self.place})" if self.place else ""
        return f"{name} takes {share:.1f} % of the image beyond its outline{ground}"


def diagnose(sample: Sample, prediction: Labels, classes: Sequence[str], place: str = "") -> Case:
    """The causes of all wrong pixels of an image with an exact mask."""
    if sample.mask is None:
        raise SettingsError(f"{sample.id}: has no mask, so its mistakes cannot be told")
    truth, width, things = sample.mask, _width(sample.mask), []
    size, present = truth.size, np.unique(truth[(truth > 0) & (truth < IGNORE)])
    small, unseen, rim = np.zeros((3, *truth.shape), bool)
    for c in present:
        own, claimed = truth == c, (prediction == c) & (truth != IGNORE)
        far, nearest = ndimage.distance_transform_edt(~own, return_indices=True)
        parts = ndimage.label(far <= width / 2, np.ones((3, 3)))[0]
        area, hits, all_claimed = (
            np.bincount(parts[tuple(nearest)][where], minlength=parts.max() + 1)
            for where in (own, own & claimed, claimed)
        )
        found = hits / np.maximum(area, 1)
        small |= own & ((found < LOST) & (area < SMALL * size))[parts]
        unseen |= own & (found < UNSEEN)[parts]
        rim |= claimed & (far <= width)
        rim |= own & (ndimage.distance_transform_edt(own) <= width)
        iou = hits / np.maximum(area + all_claimed - hits, 1)
        things += [
            Thing(classes[c - 1], float(area[i] / size), float(found[i]), float(iou[i]))
            for i in np.flatnonzero(area > SPECK * size)
        ]
    false = (prediction > 0) & ~np.isin(prediction, present)
    order = (small, false, unseen, rim, truth > 0)
    wrong = (prediction != truth) & (truth != IGNORE)
    errors = np.where(wrong, np.select(order, range(1, 6), 6), 0).astype(np.uint8)
    return Case(sample, prediction, tuple(classes), errors, tuple(things), place)


def _width(truth: Labels) -> int:
    return max(1, round(BOUNDARY * float(np.hypot(*truth.shape))))


@dataclass
class Drawn:
    """Scenes that are drawn once, for several networks or protocols."""

    scenes: tuple[Scene, ...]
    classes: tuple[str, ...] = SceneSet.classes

    @classmethod
    def of(cls, scenes: SceneSet, *, elsewhere: bool = False, limit: int | None = None) -> Drawn:
        """elsewhere: the very same objects, each scene on a ground of none of its classes."""
        drawn = [scenes.scene(i) for i in range(min(limit or len(scenes), len(scenes)))]
        for i, scene in enumerate(drawn if elsewhere else ()):
            homes = {FAMILY_OF[placed.design.class_name] for placed in scene.objects}
            others = sorted(set(grounds(scenes.split)) - homes)
            drawn[i] = scenes.scene(i, moved_to=others[i % len(others)])
        return cls(tuple(drawn))

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        return self.scenes[index].sample


def mine(
    model: Network, dataset: Dataset, protocol: Protocol | None = None, limit: int | None = None
) -> list[Case]:
    """Every image of a data set with masks, the worst first; one scale, no flip by default."""
    quick = model.recipe.protocol.change({"name": "mined", "flip": False, "scales": (1.0,)})
    if isinstance(dataset, SceneSet):
        dataset = Drawn.of(dataset, limit=limit)
    places = {s.sample.id: s.family for s in dataset.scenes} if isinstance(dataset, Drawn) else {}
    cases = [
        diagnose(sample, found.labels, dataset.classes, places.get(sample.id, ""))
        for sample, found in segmented(
            model, dataset, protocol or quick, limit=limit, progress=False, masks=True
        )
    ]
    return sorted(cases, key=lambda case: case.iou)


def mean_iou(cases: Sequence[Case], cause: str = "") -> float:
    """mIoU over all images together; with the pixels of a cause set right, if one is named."""
    counts = ConfusionMatrix(len(cases[0].classes) + 1)
    for case in cases:
        repaired = case.of(cause) if cause else False
        counts.update(np.where(repaired, case.truth, case.prediction), case.truth)
    return counts.mean_iou


def count_causes(cases: Sequence[Case]) -> pd.DataFrame:
    """By cause: images in which it is the main one, or notable; its share of all wrong pixels in
    %; what mIoU over all images gains, in points, if it is repaired."""
    wrong = np.array([sum(int(case.of(cause).sum()) for case in cases) for cause in CAUSES])
    columns = {
        "main cause": [sum(case.main == cause for case in cases) for cause in CAUSES],
        "notable": [sum(cause in case.gains for case in cases) for cause in CAUSES],
        "% of wrong pixels": 100 * wrong / max(1, wrong.sum()),
        "gain": [100 * (mean_iou(cases, cause) - mean_iou(cases)) for cause in CAUSES],
    }
    return pd.DataFrame(columns, [*CAUSES])


def objects(cases: Sequence[Case]) -> pd.DataFrame:
    """A row for each object: its image, class, and area, found share and IoU in %."""
    rows = [
        (case.sample.id, thing.name, *(100 * v for v in (thing.area, thing.found, thing.iou)))
        for case in cases
        for thing in case.things
    ]
    return pd.DataFrame(rows, columns=["image", "class", "area", "found", "IoU"])


def photos(model: Network, folder: str | Path, split: str = "val") -> Dataset:
    """The photos with masks of a folder, laid out in any way that `wsfcn data check` knows, in the
    network's classes; other classes are what they were in its training, left out or background."""
    kind = layout_of(Path(folder))
    labels = "csv" if kind == "folder" else "masks"
    source = {"kind": kind, "labels": labels, "root": str(folder), "val_split": split, "val": 0}
    source |= {"classes": model.classes, "others": model.recipe.data.others}
    return scored(build_split(Data(**source), "val"))
