"""How a score or a mask was made, as data: a figure without its protocol means nothing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .settings import Settings


class Protocol(Settings):
    """Everything between a photo and its label map (WS-FCN section IV-E, Table III).

    background: "softmax" keeps the network's own background map; "constant" replaces it by
    `background_value` (released WS-FCN: 0.25); "power" raises it to `background_value`
    (released baseline: 3).
    class_filter: a class is kept where the largest sigmoid(score) over all scales and flips is
    above it. `image_labels`: the true image labels are given and replace the class filter (the
    rows marked § in the paper).
    crf: the fully connected CRF as the released WS-FCN or the released baseline sets it.
    """

    name: str = "single-scale+flip"
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field((1.0,), min_length=1)
    flip: bool = True
    class_filter: float = Field(0.1, ge=0, lt=1)
    image_labels: bool = False
    background: Literal["softmax", "constant", "power"] = "softmax"
    background_value: float = Field(1.0, gt=0)
    crf: Literal["none", "wsfcn", "baseline"] = "none"

    def describe(self) -> str:
        """One line for tables and picture captions."""
        scales = ", ".join(f"{s:g}" for s in self.scales)
        labels = (
            "image labels given" if self.image_labels else f"class filter {self.class_filter:g}"
        )
        background: str = self.background
        if background != "softmax":
            background += f" {self.background_value:g}"
        crf = "no CRF" if self.crf == "none" else f"CRF of {self.crf}"
        flip = "flip" if self.flip else "no flip"
        return f"{self.name}: scales {scales}; {flip}; {labels}; background {background}; {crf}"


def single_scale() -> Protocol:
    """Scale 1 with flip, the class filter, the network's own background; no CRF, no labels."""
    return Protocol()


def given_image_labels() -> Protocol:
    """As single_scale, but the image labels are known."""
    return Protocol(name="single-scale+flip, labels given", image_labels=True)


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
