"""The one builder: from a recipe to a network, and back from a file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from . import weights
from .data.sample import CLASSES, IGNORE
from .model.backbone import Backbone
from .model.context_rivals import ASPP, PPM, LargeConv, NonLocal
from .model.decoder import Decoder, StochasticGate
from .model.efficientnet import EfficientNetLite
from .model.fca import FCA
from .model.layers import free_batch_norms
from .model.network import Network
from .model.resnet import ResNet
from .model.sf2 import SF2
from .model.skip_gci import SkipGCI
from .model.vgg import VGG16
from .model.wide_resnet import WideResNet38
from .recipes import Context, Fusion, Model, Recipe
from .settings import SettingsError
from .weak.scores import ngwp_scores

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "efficientnet_lite0": partial(EfficientNetLite, "0"),
    "efficientnet_lite1": partial(EfficientNetLite, "1"),
    "efficientnet_lite2": partial(EfficientNetLite, "2"),
    "wide_resnet38": WideResNet38,
    "resnet50": partial(ResNet, "50"),
    "resnet101": partial(ResNet, "101"),
    "vgg16": VGG16,
}
SHIPPED = Path(__file__).parent / "shipped"
RIVALS = {"non_local": NonLocal, "large_conv": LargeConv, "ppm": PPM}


def _backbone(settings: Model) -> Backbone:
    more = {"stride": settings.stride} if settings.backbone.startswith("resnet") else {}
    try:
        backbone = BACKBONES[settings.backbone](frozen=settings.frozen, **more)
        if settings.hypercolumn:
            backbone.stack(settings.hypercolumn)
    except ValueError as error:
        raise SettingsError(f"model.{error}") from None
    if settings.pretrained:
        weights.load_imagenet(backbone, settings.backbone, settings.pretrained)
    return backbone


def _context(settings: Model, inputs: int) -> nn.Module:
    width, dropout = settings.width, settings.context_dropout
    if settings.context in RIVALS:
        return RIVALS[settings.context](inputs, width, dropout=dropout)
    if settings.context == "aspp":
        return ASPP(inputs, width, rates=settings.rates, dropout=dropout)
    return FCA(
        inputs,
        width,
        lengths=settings.strips,
        dilations=settings.dilations,
        spatial=settings.context == "fca",
        dropout=dropout,
        private_attention=settings.private_attention,
        embedding_relu=settings.embedding_relu,
        srm_kernel=settings.srm_kernel,
    )


def _fusion(settings: Model, low: int) -> nn.Module:
    if settings.fusion == "skip_gci":
        return SkipGCI(low, settings.width, settings.skip_width)
    if settings.fusion == "sf2":
        return SF2(low, settings.width, settings.align_width)
    return SF2(low, settings.width, align_width=0, fuse=settings.fusion)


def build_model(
    recipe: Recipe,
    classes: tuple[str, ...] | None = None,
    *,
    context: Context | None = None,
    fusion: Fusion | None = None,
) -> Network:
    """The network of a recipe, in train mode.

    classes: the foreground classes, by default those of the recipe's data. context, fusion:
    other parts than the recipe's, by name (the rows of Tables I and II). New layers are drawn
    from torch's global generator: seed it first for a repeatable network.
    """
    parts = {"model.context": context, "model.fusion": fusion}
    recipe = recipe.change({name: part for name, part in parts.items() if part is not None})
    classes = tuple(classes or recipe.data.classes or CLASSES.get(recipe.data.kind, ()))
    if not classes:
        raise SettingsError("data.classes: a folder has classes of its own; name them")
    settings, weak = recipe.model, recipe.weak
    backbone = _backbone(settings)
    context_module = _context(settings, backbone.high_channels)
    if settings.context_norms == "batch":
        free_batch_norms(context_module)
    network = Network(
        backbone=backbone,
        context=context_module,
        fusion=_fusion(settings, backbone.low_channels),
        gate=StochasticGate(settings.gate_rate, settings.gate_matched),
        decoder=Decoder(settings.width, len(classes), settings.decoder_dropout),
        pooling=partial(ngwp_scores, power=weak.focal_power, floor=weak.focal_floor),
        classes=classes,
        recipe=recipe,
    )
    # Convolutions on a CPU are several times faster with channels last.
    return network.to(memory_format=torch.channels_last)


def save(
    model: Network,
    path: str | Path,
    provenance: dict | None = None,
    *,
    compact: bool = False,
) -> None:
    """Write the weights as safetensors; recipe, classes and provenance go into its header.

    compact: as they are shipped: large tensors in half precision, and no backbone where it is
    still the one of the ImageNet package, which `load` then takes from there.
    """
    header = {
        "format": 1,
        "recipe": model.recipe.model_dump(mode="json"),
        "classes": list(model.classes),
        "provenance": provenance or {},
    }
    tensors = model.state_dict()
    if compact:
        if model.recipe.model.pretrained is True and _is_imagenet(model):
            tensors = {k: v for k, v in tensors.items() if not k.startswith("backbone.")}
            header["backbone"] = "imagenet"
        tensors = {k: v.half() if v.numel() > 1000 else v for k, v in tensors.items()}
    weights.write_safetensors(path, tensors, header)


def _is_imagenet(model: Network) -> bool:
    fresh, own = _backbone(model.recipe.model).state_dict(), model.backbone.state_dict()
    # The counters of batch norms move though nothing reads them.
    return all(torch.equal(v, own[k]) for k, v in fresh.items() if not k.endswith(weights.COUNTER))


def shipped() -> list[str]:
    """The names of the networks in the package, for `load`."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def recipe_in(header: dict, path: str | Path) -> tuple[Recipe, tuple[str, ...]]:
    """Recipe and classes of a file's header. Raises WeightsError for what cannot be one."""
    try:
        recipe = Recipe(**header["recipe"])
        classes = tuple(header["classes"])
        if not 0 < len(classes) < IGNORE or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"{len(classes)} classes; it needs 1 to {IGNORE - 1} names")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise weights.WeightsError(f"{path}: no network of wsfcn, header: {reason:.300}") from None
    return recipe, classes


def load(source: str | Path) -> Network:
    """A trained network in eval mode: one of the package by name (`shipped`), or a file.

    source: a name such as "lite-voc", or a .safetensors written by `save`. Raises WeightsError
    naming the file where it is missing, torn, or no network of this package.
    """
    path = Path(source)
    if path.name == str(source) and not path.suffix and not path.exists():
        if str(source) not in shipped():
            known = ", ".join(shipped())
            raise weights.WeightsError(f"{source}: no network of this name; there are {known}")
        path = SHIPPED / f"{source}.safetensors"
    tensors, header = weights.read_safetensors(path)
    if "recipe" in header and "classes" not in header:
        raise weights.WeightsError(
            f"{path}: holds a backbone alone; a recipe takes it as model.pretrained"
        )
    if "recipe" not in header:
        raise weights.WeightsError(f"{path}: no recipe in its header; not a network of wsfcn")
    recipe, classes = recipe_in(header, path)
    bare = recipe.change({"model.pretrained": False})
    with torch.device("meta"):  # a header may ask for a network larger than memory
        sizes = {k: v.shape for k, v in build_model(bare, classes).state_dict().items()}
    wrong = [k for k, v in tensors.items() if k in sizes and v.shape != sizes[k]]
    if wrong:
        raise weights.WeightsError(f"{path}: does not fit the recipe in its header: {wrong[0]}")
    bare = recipe.change({"model.pretrained": header.get("backbone") == "imagenet"})
    model = build_model(bare, classes)
    model.recipe = recipe
    if bare.model.pretrained:
        own = {k: v for k, v in model.state_dict().items() if k.startswith("backbone.")}
        tensors = own | tensors
    weights.load_state(model, tensors, str(path))
    return model.eval()
