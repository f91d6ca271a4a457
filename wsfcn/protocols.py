"""How a score or a mask was made, as data: a figure without its protocol means nothing."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from .settings import Settings, SettingsError


class Protocol(Settings):
    """Everything between a photo and its label map (WS-FCN section IV-E, Table III).

    padding: "none" shows the network each scale at its own size; "canvas" centres each on a
    square of `canvas` px, zero after normalisation, as the released code does (1024 for VOC, 1304
    for COCO), which lets the padding into the class scores.
    background: "softmax" keeps the network's own background map; "constant" replaces it by
    `background_value` (released WS-FCN: 0.25); "power" raises it to `background_value`
    (released baseline: 3).
    class_filter: a class is kept where the largest sigmoid(score) over all scales and flips is
    above it. `image_labels`: the true image labels are given and replace the class filter (the
    rows marked § in the paper).
    pamr: so many iterations of PAMR on the merged masks, 0 for none.
    crf: the fully connected CRF as the released WS-FCN or the released baseline sets it. crf_code:
    what computes it; "auto" is settled (see `weak.crf.chosen_code`) before anything carries it.
    longest: at scale 1, so many px of the longest side are what the network looks at; smaller
    photos keep their size. 0: what the network's recipe says, else twice its training crop.
    split: the images that were scored; empty where there is no data set.
    """

    name: str = "single-scale+flip"
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field((1.0,), min_length=1)
    flip: bool = True
    padding: Literal["none", "canvas"] = "none"
    canvas: int = Field(1024, ge=32, le=4096)
    class_filter: float = Field(0.1, ge=0, lt=1)
    image_labels: bool = False
    background: Literal["softmax", "constant", "power"] = "softmax"
    background_value: float = Field(1.0, gt=0)
    pamr: int = Field(0, ge=0, le=100)
    crf: Literal["none", "wsfcn", "baseline"] = "none"
    crf_code: Literal["auto", "pydensecrf", "torch"] = "auto"
    longest: int = Field(0, ge=0, le=2048)
    split: str = ""

    def describe(self) -> str:
        """One line for tables and picture captions."""
        scales = ", ".join(f"{s:g}" for s in self.scales)
        labels = (
            "image labels given" if self.image_labels else f"class filter {self.class_filter:g}"
        )
        background: str = self.background
        if background != "softmax":
            background += f" {self.background_value:g}"
        crf = "no CRF"
        if self.crf != "none":
            crf = f"CRF of {self.crf}" + (f" ({self.crf_code})" * (self.crf_code != "auto"))
        parts = [f"scales {scales}", "flip" if self.flip else "no flip"]
        parts += [f"longest side {self.longest} px"] * bool(self.longest)
        parts += [f"padded to {self.canvas} px"] * (self.padding == "canvas")
        parts += [labels, f"background {background}"]
        parts += [f"PAMR {self.pamr}"] * bool(self.pamr) + [crf]
        parts += [f"split {self.split}"] * bool(self.split)
        return f"{self.name}: {'; '.join(parts)}"

    def differences(self, other: Protocol) -> list[str]:
        """What differs in effect, e.g. "flip: True and False"; names and idle settings do not."""
        mine, theirs = self._effective(), other._effective()
        return [
            f"{name}: {mine.get(name)} and {theirs.get(name)}"
            for name in type(self).model_fields
            if mine.get(name) != theirs.get(name)
        ]

    def _effective(self) -> dict[str, Any]:
        values = self.model_dump(exclude={"name"})
        values["scales"] = tuple(sorted(self.scales))
        idle = {
            "canvas": self.padding == "none",
            "class_filter": self.image_labels,
            "background_value": self.background == "softmax",
            "crf_code": self.crf == "none",
        }
        return {name: value for name, value in values.items() if not idle.get(name)}


def single_scale() -> Protocol:
    """Scale 1 with flip, the class filter, the network's own background; no CRF, no labels."""
    return Protocol()


def given_image_labels() -> Protocol:
    """As single_scale, but the image labels are known."""
    return Protocol(name="single-scale+flip, labels given", image_labels=True)


def photos() -> Protocol:
    """As single_scale, at 384 px, with a background that must be surer of itself and a class filter
    of 0.3, all chosen on photos that trained nothing (docs/results.md): what `lite-voc` is scored
    with."""
    return Protocol(
        name="photos", background="power", background_value=4.0, class_filter=0.3, longest=384
    )


def paper() -> Protocol:
    """The released WS-FCN without CRF (Table IV, 61.57 on VOC val): four scales with flip,
    background constant 0.25."""
    return Protocol(
        name="paper",
        scales=(1.0, 0.5, 1.5, 2.0),
        background="constant",
        background_value=0.25,
    )


def baseline() -> Protocol:
    """The released baseline without CRF: as `paper`, but the background is cubed."""
    return paper().change({"name": "baseline", "background": "power", "background_value": 3.0})


def paper_gt_labels() -> Protocol:
    """The rows marked § in the paper (64.02 on VOC val): true image labels, which the released
    comments combine with the cubed background."""
    return baseline().change({"name": "paper, labels given", "image_labels": True})


def baseline_gt_labels() -> Protocol:
    """The baseline with true image labels (its "val-clean", 63.4)."""
    return baseline().change({"name": "baseline, labels given", "image_labels": True})


def coco() -> Protocol:
    """As `paper`, on MS COCO (Table V, 27.34); its canvas, where one is asked for, is 1304 px."""
    return paper().change({"name": "coco", "canvas": 1304})


NAMED: dict[str, Callable[[], Protocol]] = {
    function.__name__: function
    for function in (
        single_scale,
        given_image_labels,
        photos,
        paper,
        baseline,
        paper_gt_labels,
        baseline_gt_labels,
        coco,
    )
}


def with_crf(protocol: Protocol, kind: Literal["wsfcn", "baseline"] = "wsfcn") -> Protocol:
    """The protocol followed by a CRF: rows "+CRF" of Tables IV and V."""
    return protocol.change({"name": f"{protocol.name}+CRF", "crf": kind})


def padded(protocol: Protocol) -> Protocol:
    """The protocol on the released code's canvas."""
    return protocol.change({"name": f"{protocol.name}+canvas", "padding": "canvas"})


def named(name: str) -> Protocol:
    """The protocol of a name such as "paper", "paper_gt_labels+crf" or "baseline+crf+canvas".

    Raises SettingsError with the nearest name that exists.
    """
    base, *more = name.lower().replace("-", "_").split("+")
    for part, known in ((base, [*NAMED]), *((extra, ["crf", "canvas"]) for extra in more)):
        if part not in known:
            near = difflib.get_close_matches(part, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise SettingsError(f"no protocol {name!r}: {part!r} is not known; {hint}")
    protocol = NAMED[base]()
    if "crf" in more:
        protocol = with_crf(protocol, "baseline" if base.startswith("baseline") else "wsfcn")
    return padded(protocol) if "canvas" in more else protocol


def table3(base: Protocol | None = None) -> dict[str, Protocol]:
    """The four rows of Table III, multi-scale by flip, of `base` (`paper` by default)."""
    base = base or paper()
    many = base.scales if len(base.scales) > 1 else paper().scales
    rows = {
        "single scale": ((1.0,), False),
        "flip": ((1.0,), True),
        "multi-scale": (many, False),
        "multi-scale + flip": (many, True),
    }
    return {
        row: base.change({"name": row, "scales": scales, "flip": flip})
        for row, (scales, flip) in rows.items()
    }
