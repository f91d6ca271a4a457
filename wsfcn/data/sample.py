"""What every data set yields."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

IGNORE = 255

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


class Sample(NamedTuple):
    """One image with what is known about it.

    image: (H, W, 3) uint8 RGB. labels: (K,) float32, 1 where the class is in the image.
    mask: (H, W) uint8, 0 background, 1..K classes, 255 ignore; None where there is none.
    """

    id: str
    image: NDArray[np.uint8]
    labels: NDArray[np.float32]
    mask: NDArray[np.uint8] | None


class Dataset(Protocol):
    """A fixed-length sequence of samples with named foreground classes."""

    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
