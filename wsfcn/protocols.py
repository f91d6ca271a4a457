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
    """

    name: str = "single-scale+flip"
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field((1.0,), min_length=1)
    flip: bool = True
    class_filter: float = Field(0.1, ge=0, lt=1)
    image_labels: bool = False
    background: Literal["softmax", "constant", "power"] = "softmax"
    background_value: float = Field(1.0, gt=0)

    def describe(self) -> str:
        """One line for tables and picture captions."""
        scales = ", ".join(f"{s:g}" for s in self.scales)
        labels = (
            "image labels given" if self.image_labels else f"class filter {self.class_filter:g}"
        )
        background: str = self.background
        if background != "softmax":
            background += f" {self.background_value:g}"
        flip = "flip" if self.flip else "no flip"
        return f"{self.name}: scales {scales}; {flip}; {labels}; background {background}; no CRF"


def single_scale() -> Protocol:
    """Scale 1 with flip, the class filter, the network's own background; no CRF, no labels."""
    return Protocol()


def given_image_labels() -> Protocol:
    """As single_scale, but the image labels are known."""
    return Protocol(name="single-scale+flip, labels given", image_labels=True)
