"""A segmented photo: label map, masks, scores and the protocol that made them."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .files import write_all
from .protocols import Protocol

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

BACKGROUND = "background"


@dataclass(frozen=True)
class Segmentation:
    """A photo, segmented. Shows itself in a notebook.

    image: (H, W, 3) uint8, the photo. labels: (H, W) uint8, 0 background, 1..K the classes.
    masks: (N, h, w) float32 in [0, 1] at the size the network worked at, after the protocol's
    class filter and background rule. scores: (K,) probability that the class is in the photo.
    """

    image: NDArray[np.uint8] = field(repr=False)
    labels: NDArray[np.uint8] = field(repr=False)
    masks: NDArray[np.float32] = field(repr=False)
    scores: NDArray[np.float32] = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    protocol: Protocol

    def areas(self) -> dict[str, float]:
        """Fraction of the photo by class, for the classes it has; they sum to 1."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes) + 1)
        names = (BACKGROUND, *self.classes)
        return {n: float(c / self.labels.size) for n, c in zip(names, counts, strict=True) if c}

    @property
    def found(self) -> tuple[str, ...]:
        """The foreground classes of the label map, largest first."""
        areas = {n: a for n, a in self.areas().items() if n != BACKGROUND}
        return tuple(sorted(areas, key=lambda name: -areas[name]))

    def overlay(self, longest: int | None = None) -> Picture:
        """The photo with coloured classes and a legend; longest: at most this long a side, px."""
        from .show.segmentation import overlay_picture

        return overlay_picture(self.image, self.labels, self.classes, longest=longest)

    def to_dict(self) -> dict[str, Any]:
        """Sizes, areas, scores and protocol as plain values."""
        return {
            "size": [*self.labels.shape[::-1]],
            "working_size": [*self.masks.shape[:0:-1]],
            "areas": self.areas(),
            "scores": {n: float(s) for n, s in zip(self.classes, self.scores, strict=True)},
            "classes": [BACKGROUND, *self.classes],
            "protocol": self.protocol.model_dump(mode="json"),
            "protocol_text": self.protocol.describe(),
        }

    def save(
        self, folder: str | Path, stem: str, protected: Collection[Path] = ()
    ) -> tuple[Path, Path, Path]:
        """Write STEM.overlay.png, STEM.mask.png (class indices, VOC palette) and STEM.json.

        All three or none. Raises FileExistsError instead of writing over a `protected` path.
        """
        from .show.segmentation import index_png, png

        text = json.dumps(self.to_dict(), indent=1) + "\n"
        overlay, mask, record = write_all(
            folder,
            {
                f"{stem}.overlay.png": png(self.overlay()),
                f"{stem}.mask.png": index_png(self.labels),
                f"{stem}.json": text.encode(),
            },
            protected,
        )
        return overlay, mask, record

    def _repr_png_(self) -> bytes:
        from .show.segmentation import png

        return png(self.overlay(longest=1024))

    def _repr_html_(self) -> str:
        from .show.segmentation import html

        return html(self._repr_png_(), self.areas(), self.protocol.describe())
