"""Pictures that look the same, found by a 64-bit difference hash."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR = 8  # bits that may differ


def dhash(image: NDArray[np.uint8]) -> tuple[int, NDArray[np.float32]]:
    """The 64-bit difference hash of an (H, W, 3) image, and a 16 x 16 grey copy of unit length.

    A bit says whether one of 9 x 8 grey areas is brighter than its right neighbour.
    """
    grey = Image.fromarray(image).convert("L")
    areas = np.asarray(grey.resize((9, 8), Image.Resampling.BOX))
    bits = np.packbits(areas[:, :-1] > areas[:, 1:])
    small = np.asarray(grey.resize((16, 16), Image.Resampling.BOX), np.float32)
    small = small - small.mean()
    return int.from_bytes(bits.tobytes()), small / max(float(np.linalg.norm(small)), 1e-6)


def near_pairs(
    train: NDArray[np.uint64], score: NDArray[np.uint64], near: int = NEAR
) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """For each hash of `score` the indices in `train` that differ in at most `near` bits.

    The nearest come first; hashes without any are left out, and so are those of plain areas
    (nearly all bits alike), which say nothing. 80,000 against 40,000 take seconds.
    """
    for index, value in enumerate(score):
        if near < int(value).bit_count() < 64 - near:
            bits = np.bitwise_count(train ^ value)
            found = np.flatnonzero(bits <= near)
            if len(found):
                yield index, found[np.argsort(bits[found], kind="stable")]
