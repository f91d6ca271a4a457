"""Recipes: every number of an experiment, as frozen settings returned by named functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from . import protocols
from .protocols import Protocol
from .settings import Settings, SettingsError, nearest

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Lengths = Annotated[tuple[Annotated[int, Field(ge=1, le=255)], ...], Field(max_length=16)]


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

    kind: Literal["scenes", "voc", "coco", "folder"] = "scenes"
    root: str = Field("", description="folder of the photos; nothing for scenes")
    train_split: str = Field("train", description="list of training images; also train_aug (voc)")
    val_split: str = Field("val", description="list of validation images")
    labels: Literal["masks", "xml", "csv"] = Field("masks", description="source of image labels")
    classes: tuple[str, ...] = Field((), description="foreground classes; empty: all of the data")
    others: Literal["ignore", "background"] = Field(
        "ignore", description="what masks say of the classes that were not chosen"
    )
    train: int = Field(2240, ge=0, description="scenes to draw; of photos at most so many, 0: all")
    val: int = Field(300, ge=0, description="as train, for validation")
    label_noise: Fraction = Field(0.0, description="share of the training labels made wrong")
    seed: int = Field(0, ge=0, description="seed of the scenes; the same for all runs of a table")
    scenes: Scenes = Scenes()

    @model_validator(mode="after")
    def _complete(self) -> Data:
        if self.kind == "scenes" and not (self.train and self.val):
            raise ValueError("train, val: scenes need at least 1 of each")
        return self


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


Backbone = Literal[
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "wide_resnet38",
    "resnet50",
    "resnet101",
    "vgg16",
]
Context = Literal["fca", "mclm", "aspp", "non_local", "large_conv", "ppm"]
Fusion = Literal["sf2", "skip_gci", "sum", "concat", "multiply"]


class Model(Settings):
    """The network and its widths. The names of the parts are those of the paper.

    The last four settings are what the paper's text says and the released code does not, or the
    other way round; off, they are as in the released code.
    """

    backbone: Backbone = "efficientnet_lite0"
    pretrained: bool | str = Field(
        True, description="ImageNet weights: true from a pip package, a file, or false for none"
    )
    stride: Literal[8, 16] = Field(8, description="of the high features; 16 for ResNets alone")
    frozen: int = Field(1, ge=1, le=7, description="leading stages of the backbone kept frozen")
    hypercolumn: Lengths = Field(
        (), description="earlier stages whose maps are stacked onto the high features"
    )
    context: Context = "fca"
    fusion: Fusion = "sf2"
    width: int = Field(64, ge=8, le=1024, description="channels after the context module")
    align_width: int = Field(32, ge=4, le=512, description="channels that meet in flow alignment")
    skip_width: int = Field(24, ge=4, le=512, description="channels of the baseline's skip")
    strips: Lengths = Field((1, 3, 5, 7), description="strip lengths of the MCLM")
    dilations: Lengths = Field((1, 2, 2, 2), description="one per strip length")
    rates: Lengths = Field((1, 2, 4, 6), description="dilations of the ASPP")
    gate_rate: float = Field(0.3, ge=0, lt=1, description="psi of the stochastic gate")
    context_norms: Literal["initial", "batch"] = Field(
        "initial", description="statistics of the context's batch norms, kept or the batch's"
    )
    context_dropout: float = Field(0.5, ge=0, lt=1)
    decoder_dropout: tuple[float, float] = (0.5, 0.1)
    private_attention: bool = Field(False, description="a channel attention of its own per strip")
    embedding_relu: bool = Field(False, description="ReLU after the embedding of the FCA")
    srm_kernel: Literal[3, 7] = Field(3, description="side of the SRM's convolution")
    gate_matched: bool = Field(False, description="evaluate the gate by its training expectation")

    @model_validator(mode="after")
    def _stride_possible(self) -> Model:
        if self.stride != 8 and not self.backbone.startswith("resnet"):
            raise ValueError(f"stride: {self.backbone} is built at 8 alone")
        return self

    @model_validator(mode="after")
    def _paired(self) -> Model:
        if len(self.strips) != len(self.dilations):
            raise ValueError("dilations: needs one value per strip length")
        if any(k % 2 == 0 for k in self.strips):
            raise ValueError("strips: lengths must be odd, or the map would shift")
        return self


class Weak(Settings):
    """From image labels to masks: pooling, refinement, pseudo labels, losses."""

    supervision: Literal["labels", "masks"] = Field(
        "labels", description="masks: the true ones teach, from the first step; the ceiling"
    )
    focal_power: float = Field(3.0, ge=0, description="p of the size penalty")
    focal_floor: float = Field(0.01, gt=0, le=1, description="lambda of the size penalty")
    pamr_iterations: int = Field(10, ge=0, le=100)
    pamr_dilations: tuple[Positive, ...] = (1, 2, 4, 8, 12, 24)
    background_factor: Fraction = Field(0.7, description="share of the maximum a pixel must reach")
    foreground_factor: Fraction = 0.6
    floor: Fraction = Field(0.2, description="least mask value of a pseudo label")
    label_stride: int = Field(1, ge=1, le=8, description="pseudo labels at 1/stride of the crop")
    before_pamr: bool = Field(
        False, description="a second mask loss, on pseudo labels made before PAMR"
    )
    mask_weight: float = Field(1.0, ge=0, description="weight of the loss on pseudo labels")

    @property
    def weight(self) -> float:
        """Of the mask loss. On true masks, a mean over known pixels, it is as loud as the other."""
        return 1.0 if self.supervision == "masks" else self.mask_weight


class Train(Settings):
    """Optimisation: SGD, new layers faster than pretrained ones, at a constant rate by default."""

    epochs: Positive = 24
    warmup_epochs: int = Field(5, ge=0, description="epochs on the classification loss alone")
    epoch_steps: int = Field(
        0, ge=0, description="an epoch has at least so many steps: few images come more than once"
    )
    batch_size: Positive = Field(16, description="images a step, over all devices together")
    accumulate: Positive = Field(1, description="passes that a device splits its batch into")
    learning_rate: float = Field(1e-3, gt=0, le=1)
    new_factor: float = Field(20.0, gt=0, description="rate of new weights / learning_rate")
    bias_factor: float = Field(2.0, gt=0, description="rate of biases / rate of weights")
    decay: float = Field(
        0.0, ge=0, le=10, description="rates fall as (1 - share of the training)^decay; 0: constant"
    )
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0, le=1)
    average: float = Field(
        0.0, ge=0, lt=1, description="decay of the running mean of the weights; 0: none"
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    checkpointing: bool = Field(
        False, description="recompute the backbone's maps in the backward pass: slower, smaller"
    )
    compile: bool = Field(False, description="torch.compile the network")
    views: int = Field(
        0, ge=0, description="augmented views an image whose features are cached; 0: none"
    )
    workers: int = Field(
        0, ge=-1, le=64, description="data loading processes; -1: as many as the cores can feed"
    )
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
        model=Model(
            frozen=7,
            width=48,
            context_norms="batch",
            context_dropout=0.0,
            decoder_dropout=(0.0, 0.0),
        ),
        weak=Weak(label_stride=2, pamr_dilations=(1, 2, 4, 8)),
        train=Train(epochs=7, warmup_epochs=2, learning_rate=6e-3, average=0.99, views=1),
    )


def lite_folder() -> Recipe:
    """The laptop profile on photos of your own: a folder with labels.csv, named by data.root.

    Tuned on photos of animals (lite_voc); small sets see each photo more often, not fewer steps.
    """
    return lite_scenes().change(
        {
            "name": "lite_folder",
            "data.kind": "folder",
            "data.labels": "csv",
            "data.train": 0,
            "data.val": 0,
            "augment.crop": 256,
            "model.backbone": "efficientnet_lite2",
            "model.dilations": (1, 1, 1, 1),
            "model.hypercolumn": (3, 5),
            "weak.mask_weight": 8.0,
            "protocol": protocols.photos(),
            "train.epochs": 8,
            "train.warmup_epochs": 3,
            "train.decay": 0.9,
            "train.epoch_steps": 32,
        }
    )


def lite_voc() -> Recipe:
    """The network of the package for photos: five animals and people of PASCAL VOC 2012, from image
    labels alone. data.root has the list trainaug_large; other classes are background in its masks.
    """
    return lite_folder().change(
        {
            "name": "lite_voc",
            "data.kind": "voc",
            "data.labels": "masks",
            "data.train_split": "trainaug_large",
            "data.classes": ("cat", "cow", "dog", "horse", "person", "sheep"),
            "data.others": "background",
        }
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


def paper_voc() -> Recipe:
    """The paper's network and schedule on PASCAL VOC 2012 (section IV-A; numbers lost in the
    text are those of the released code; 24 epochs with 5 of warm-up are the baseline's, whose
    schedule the paper follows).

    It starts from ImageNet weights only if `model.pretrained` names their file.
    """
    return Recipe(
        name="paper_voc",
        data=Data(kind="voc", train_split="train_aug", train=0, val=0),
        augment=Augment(crop=321),
        model=Model(
            backbone="wide_resnet38",
            pretrained=False,
            frozen=2,
            width=256,
            align_width=128,
            skip_width=48,
            dilations=(1, 12, 24, 36),
            rates=(1, 12, 24, 36),
        ),
        train=Train(workers=-1),
        protocol=protocols.paper(),
    )


def paper_coco() -> Recipe:
    """As paper_voc, on MS COCO 2014 with 80 classes and the constants of the released comments."""
    return paper_voc().change(
        {
            "name": "paper_coco",
            "data.kind": "coco",
            "data.train_split": "train",
            "weak.focal_floor": 0.1,
            "weak.pamr_iterations": 5,
            "weak.floor": 0.1,
            "weak.background_factor": 0.8,
        }
    )


def table1(base: Recipe | None = None) -> dict[str, Recipe]:
    """The five rows of Table I, each a copy of `base` (paper_voc by default) with one change."""
    parts: dict[str, tuple[Context, Fusion]] = {
        "baseline": ("aspp", "skip_gci"),
        "mclm": ("mclm", "skip_gci"),
        "fca": ("fca", "skip_gci"),
        "sf2": ("aspp", "sf2"),
        "full": ("fca", "sf2"),
    }
    return _rows(base, parts)


def table2(base: Recipe | None = None) -> dict[str, Recipe]:
    """The rows of Table II: rivals of FCA on the baseline's fusion, then rivals of SF2 on its
    context, each a copy of `base` (paper_voc by default) with one change."""
    parts: dict[str, tuple[Context, Fusion]] = {
        "non_local": ("non_local", "skip_gci"),
        "large_conv": ("large_conv", "skip_gci"),
        "ppm": ("ppm", "skip_gci"),
        "fca": ("fca", "skip_gci"),
        "sum": ("aspp", "sum"),
        "concat": ("aspp", "concat"),
        "multiply": ("aspp", "multiply"),
        "sf2": ("aspp", "sf2"),
    }
    return _rows(base, parts)


def _rows(base: Recipe | None, parts: dict[str, tuple[Context, Fusion]]) -> dict[str, Recipe]:
    base = base or paper_voc()
    return {
        row: base.change(
            {"name": f"{base.name}/{row}", "model.context": context, "model.fusion": fusion}
        )
        for row, (context, fusion) in parts.items()
    }


VARIANTS: dict[str, dict[str, Any]] = {
    # whole settings of the two released codes
    "released": {
        "train.new_factor": 20.0,
        "train.epochs": 30,
        "train.warmup_epochs": 7,
        "protocol": protocols.paper().change({"name": "released WS-FCN", "crf": "wsfcn"}),
    },
    "released_baseline": {
        "model.context": "aspp",
        "model.fusion": "skip_gci",
        "train.new_factor": 10.0,
        "train.epochs": 24,
        "train.warmup_epochs": 5,
        "protocol": protocols.baseline().change({"name": "released baseline", "crf": "baseline"}),
    },
    # what the paper's text says and the released code does not, or leaves open
    "embedding_relu": {"model.embedding_relu": True},
    "private_attention": {"model.private_attention": True},
    "loss_before_pamr": {"weak.before_pamr": True},
    "undilated_strips": {"model.dilations": (1, 1, 1, 1)},
    "matched_gate": {"model.gate_matched": True},
    "srm_7x7": {"model.srm_kernel": 7},
}


def variants(base: Recipe | None = None) -> dict[str, Recipe]:
    """Where paper, released code and the baseline's code disagree: copies of `base` (paper_voc by
    default) with one named change each. The released loops count epochs from 0 to the number
    inclusive, so they train one more."""
    base = base or paper_voc()
    return {
        name: base.change({"name": f"{base.name}/{name}", **changes})
        for name, changes in VARIANTS.items()
    }


def known_recipes() -> dict[str, Callable[[], Recipe]]:
    """The functions here that return a recipe and need nothing, by name."""
    told = {"return": "Recipe"}
    return {k: f for k, f in globals().items() if getattr(f, "__annotations__", 0) == told}


def find_recipe(name: str) -> Recipe:
    """NAME, or NAME/ROW for a row of Table I or II or a variant. SettingsError with the nearest."""
    known = known_recipes()
    base, _, row = name.replace("-", "_").partition("/")
    if base not in known:
        raise SettingsError(f"no recipe {name!r}; {nearest(base, known)}")
    recipe = known[base]()
    if not row:
        return recipe
    rows = variants(recipe) | table2(recipe) | table1(recipe)
    if row not in rows:
        raise SettingsError(f"no row {row!r} in Tables I and II; {nearest(row, rows)}")
    return rows[row]
