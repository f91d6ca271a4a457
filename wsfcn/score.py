"""A score that carries the protocol that made it, and tables that refuse to mix protocols."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from .files import write_all
from .protocols import Protocol
from .settings import SettingsError


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
