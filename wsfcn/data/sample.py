"""What every data set yields."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

IGNORE = 255

_VOC = """aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike
    person pottedplant sheep sofa train tvmonitor"""
# The 80 object classes of MS COCO 2014, in the order of their category ids.
_COCO = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
    fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant,
    bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard,
    sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle,
    wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
    hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv,
    laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator,
    book, clock, vase, scissors, teddy bear, hair drier, toothbrush"""
VOC_CLASSES = tuple(_VOC.split())
COCO_CLASSES = tuple(name.strip() for name in _COCO.split(","))
CLASSES = {"scenes": VOC_CLASSES, "voc": VOC_CLASSES, "coco": COCO_CLASSES}


class DataError(ValueError):
    """Data that cannot be used; one line that names the file or the setting."""


def check_size(path: Path, most: int) -> None:
    """DataError for a file of more bytes than any of its kind has, before it is read."""
    size = path.stat().st_size if path.is_file() else 0
    if size > most:
        raise DataError(f"{path}: has {size:,} bytes; files of this kind have at most {most:,}")


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
