"""The failure browser: a wall of cases, by cause, class and size; each opens and says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets
from PIL import Image

from .colours import class_colours
from .failures import case_rows, cause_colours
from .widget import Interactive

if TYPE_CHECKING:
    from ..study.failures import Case

SIZES = {"under 3 % of the image": (0, 0.03), "3 to 12 %": (0.03, 0.12), "over 12 %": (0.12, 2)}
LONGEST = 192  # px of a picture in the browser


@dataclass(frozen=True)
class Wall:
    """Cases, the worst first. `choose` is what the browser does with its three lists."""

    cases: tuple[Case, ...]

    @classmethod
    def of(cls, cases: Sequence[Case], limit: int) -> Wall:
        """The worst cases of every cause in turn, at most `limit`."""
        rank: dict[str, int] = {}
        for cause in cases[0].causes:
            own = sorted((c for c in cases if cause in c.gains), key=lambda c: -c.gains[cause])
            for place, case in enumerate(own):
                rank[case.sample.id] = min(place, rank.get(case.sample.id, place))
        ranked = sorted(cases, key=lambda c: (rank.get(c.sample.id, len(cases)), c.iou))
        return cls(tuple(sorted(ranked[:limit], key=lambda c: c.iou)))

    def choose(self, cause: str = "", name: str = "", size: str = "") -> list[int]:
        """Places of the cases with a cause (most costly first), a class and an object's size."""
        found = [
            place
            for place, case in enumerate(self.entries())
            if cause in ("", *dict(case["gains"]))
            and name in ("", *case["names"])
            and size in ("", *case["sizes"])
        ]
        return sorted(found, key=lambda i: -self.cases[i].gains.get(cause, 0))

    def entries(self) -> list[dict[str, Any]]:
        """What the browser is told of each case, beside the pictures. Order matters, so lists of
        pairs: a notebook's file sorts the names of a dict."""
        return [
            {
                "id": case.sample.id,
                "iou": round(100 * case.iou),
                "gains": [*map(list, case.gains.items())],
                "why": case.why,
                "place": case.place,
                "names": [
                    name
                    for k, name in enumerate(case.classes, 1)
                    if (case.truth == k).any() or (case.prediction == k).any()
                ],
                "sizes": [
                    name
                    for name, (low, high) in SIZES.items()
                    if any(low <= thing.area < high for thing in case.things)
                ],
                "size": _size(case),
            }
            for case in self.cases
        ]

    def sheets(self) -> tuple[bytes, bytes]:
        """All images in rows of eight, a JPEG, and a PNG whose red, green and blue are prediction,
        exact mask and errors. Every picture stands in the corner of a cell of LONGEST px."""
        columns = min(8, len(self.cases))
        size = (columns * LONGEST, -(-len(self.cases) // columns) * LONGEST)
        images, maps = Image.new("RGB", size), Image.new("RGB", size)
        for place, case in enumerate(self.cases):
            corner = (place % columns * LONGEST, place // columns * LONGEST)
            labels = Image.fromarray(np.dstack((case.prediction, case.truth, case.errors)))
            images.paste(Image.fromarray(case.sample.image).resize(_size(case)), corner)
            maps.paste(labels.resize(_size(case), Image.Resampling.NEAREST), corner)
        files = BytesIO(), BytesIO()
        images.save(files[0], "JPEG", quality=88)
        maps.save(files[1], "PNG", optimize=True)
        return files[0].getvalue(), files[1].getvalue()


def _size(case: Case) -> tuple[int, int]:
    """Width and height in the browser."""
    height, width = case.truth.shape
    ratio = min(1, LONGEST / max(height, width))
    return round(ratio * width), round(ratio * height)


class FailureBrowser(Interactive):
    """Look through cases (wsfcn.study.failures.mine) with lists, mouse or keys."""

    _esm = Path(__file__).with_suffix(".js")
    meta = traitlets.Dict().tag(sync=True)
    images = traitlets.Bytes().tag(sync=True)
    maps = traitlets.Bytes().tag(sync=True)

    def __init__(self, cases: Sequence[Case], limit: int = 48) -> None:
        if not cases:
            raise ValueError("cases: there are none to look at")
        self.wall = Wall.of(cases, limit)
        colours = class_colours(len(cases[0].classes) + 1).tolist()
        images, maps = self.wall.sheets()
        meta = {
            "cases": self.wall.entries(),
            "classes": cases[0].classes,
            "colours": colours,
            "causes": [[n, cases[0].causes[n], c] for n, c in cause_colours(cases).items()],
            "sizes": [*SIZES],
            "cell": LONGEST,
        }
        super().__init__(meta=meta, images=images, maps=maps)
        self.alt = f"Failure browser of {len(self.wall.cases)} images, the worst of every cause"

    def still(self) -> Image.Image:
        """The three worst cases."""
        file = BytesIO()
        case_rows(self.wall.cases[:3]).savefig(file, format="png", dpi=90)
        return Image.open(file)
