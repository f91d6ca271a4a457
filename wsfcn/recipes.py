"""Recipes: every number of an experiment, as frozen settings returned by named functions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .protocols import Protocol
from .settings import Settings

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class Scenes(Settings):
    """Emoji scenes: what a drawn scene looks like. Sizes are fractions of the scene's side."""

    size: int = Field(128, ge=32, le=1024, description="side of the square scene, px")
    objects: tuple[Positive, Positive] = Field((1, 2), description="fewest and most objects")
    object_size: tuple[float, float] = Field((0.4, 0.85), description="smallest and largest")
    occlusion: Fraction = Field(0.25, description="largest share of an object that may be hidden")
    co_occurrence: Fraction = Field(0.3, description="chance of a class to come with its ground")
    artwork: Literal["openmoji", "twemoji"] = "openmoji"

    @model_validator(mode="after")
    def _ordered(self) -> Scenes:
        if self.objects[0] > self.objects[1]:
            raise ValueError("objects: the fewest must not exceed the most")
        small, large = self.object_size
        if not 0.05 <= small <= large <= 1:
            raise ValueError("object_size: needs 0.05 <= smallest <= largest <= 1")
        return self


class Data(Settings):
    """Which images train and score the network."""

    kind: Literal["scenes"] = "scenes"
    train: Positive = Field(2400, description="training images")
    val: Positive = Field(300, description="validation images")
    seed: int = Field(0, ge=0, description="seed of the scenes; the same for all runs of a table")
    scenes: Scenes = Scenes()


class Augment(Settings):
    """Training augmentation, in this order (released code; spec of the baseline, CVPR 2020)."""

    crop: int = Field(128, ge=32, le=1024, description="side of the training crop, px")
    area: tuple[Fraction, Fraction] = (0.9, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: Fraction = 0.5
    brightness: Fraction = 0.3
    contrast: Fraction = 0.3
    saturation: Fraction = 0.3
    hue: float = Field(0.1, ge=0, le=0.5)


class Model(Settings):
    """The network and its widths. The names of the parts are those of the paper."""

    backbone: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    pretrained: bool = Field(True, description="start from ImageNet weights")
    stages: int = Field(7, ge=3, le=7, description="stages of the backbone that are built")
    frozen: int = Field(1, ge=1, le=7, description="leading stages of the backbone kept frozen")
    context: Literal["fca", "mclm", "aspp"] = "fca"
    fusion: Literal["sf2", "skip_gci"] = "sf2"
    width: int = Field(64, ge=8, le=1024, description="channels after the context module")
    align_width: int = Field(32, ge=4, le=512, description="channels that meet in flow alignment")
    skip_width: int = Field(24, ge=4, le=512, description="channels of the baseline's skip")
    strips: tuple[Positive, ...] = Field((1, 3, 5, 7), description="strip lengths of the MCLM")
    dilations: tuple[Positive, ...] = Field((1, 2, 2, 2), description="one per strip length")
    rates: tuple[Positive, ...] = Field((1, 2, 4, 6), description="dilations of the ASPP")
    gate_rate: float = Field(0.3, ge=0, lt=1, description="psi of the stochastic gate")
    context_dropout: float = Field(0.5, ge=0, lt=1)
    decoder_dropout: tuple[float, float] = (0.5, 0.1)

    @model_validator(mode="after")
    def _paired(self) -> Model:
        if len(self.strips) != len(self.dilations):
            raise ValueError("dilations: needs one value per strip length")
        if any(k % 2 == 0 for k in self.strips):
            raise ValueError("strips: lengths must be odd, or the map would shift")
        return self


class Weak(Settings):
    """From image labels to masks: pooling, refinement, pseudo labels, losses."""

    focal_power: float = Field(3.0, ge=0, description="p of the size penalty")
    focal_floor: float = Field(0.01, gt=0, le=1, description="lambda of the size penalty")
    pamr_iterations: int = Field(10, ge=0, le=100)
    pamr_dilations: tuple[Positive, ...] = (1, 2, 4, 8, 12, 24)
    background_factor: Fraction = Field(0.7, description="share of the maximum a pixel must reach")
    foreground_factor: Fraction = 0.6
    floor: Fraction = Field(0.2, description="least mask value of a pseudo label")
    label_stride: int = Field(1, ge=1, le=8, description="pseudo labels at 1/stride of the crop")
    mask_weight: float = Field(1.0, ge=0, description="weight of the mask loss after the warm-up")


class Train(Settings):
    """Optimisation: SGD with a constant rate, new layers faster than pretrained ones."""

    epochs: Positive = 24
    warmup_epochs: int = Field(5, ge=0, description="epochs on the classification loss alone")
    batch_size: Positive = 16
    learning_rate: float = Field(1e-3, gt=0, le=1)
    new_factor: float = Field(20.0, gt=0, description="rate of new weights / learning_rate")
    bias_factor: float = Field(2.0, gt=0, description="rate of biases / rate of weights")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0, le=1)
    average: float = Field(
        0.0, ge=0, lt=1, description="decay of the running mean of the weights; 0: none"
    )
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    views: int = Field(
        0, ge=0, description="augmented views an image whose features are cached; 0: none"
    )
    workers: int = Field(0, ge=0, le=64, description="data loading processes")
    seed: int = Field(0, ge=0)


class Recipe(Settings):
    """One experiment, whole."""

    name: str
    data: Data = Data()
    augment: Augment = Augment()
    model: Model = Model()
    weak: Weak = Weak()
    train: Train = Train()
    protocol: Protocol = Protocol()


def lite_scenes() -> Recipe:
    """The laptop profile: EfficientNet-Lite0 on emoji scenes, minutes on two cores.

    The backbone is frozen and its features are cached; dropout, which a long schedule needs, is
    off in this short one; the result is the running mean of the weights.
    """
    return Recipe(
        name="lite_scenes",
        model=Model(frozen=7, width=48, context_dropout=0.0, decoder_dropout=(0.0, 0.0)),
        weak=Weak(label_stride=2),
        train=Train(epochs=7, warmup_epochs=2, learning_rate=6e-3, average=0.99, views=1),
    )


def smoke_scenes() -> Recipe:
    """The smoke profile: 24 scenes and a narrow network, seconds on two cores."""
    return lite_scenes().change(
        {
            "name": "smoke_scenes",
            "data.train": 24,
            "data.val": 8,
            "model.width": 16,
            "model.align_width": 8,
            "model.skip_width": 8,
            "train.epochs": 2,
            "train.warmup_epochs": 1,
            "train.batch_size": 8,
        }
    )


def table1(base: Recipe | None = None) -> dict[str, Recipe]:
    """The five rows of Table I, each a copy of `base` with one change."""
    base = base or lite_scenes()
    parts = {
        "baseline": ("aspp", "skip_gci"),
        "mclm": ("mclm", "skip_gci"),
        "fca": ("fca", "skip_gci"),
        "sf2": ("aspp", "sf2"),
        "full": ("fca", "sf2"),
    }
    return {
        row: base.change(
            {"name": f"{base.name}/{row}", "model.context": context, "model.fusion": fusion}
        )
        for row, (context, fusion) in parts.items()
    }
