"""The one builder: from a recipe to a network, and back from a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

from . import weights
from .data.sample import VOC_CLASSES
from .model.aspp import ASPP
from .model.decoder import Decoder, StochasticGate
from .model.efficientnet import EfficientNetLite
from .model.fca import FCA
from .model.network import Network
from .model.sf2 import SF2
from .model.skip_gci import SkipGCI
from .recipes import Model, Recipe
from .weak.scores import ngwp_scores


def _backbone(settings: Model) -> nn.Module:
    backbone = EfficientNetLite("0", stages=settings.stages, frozen=settings.frozen)
    if settings.pretrained:
        tensors = weights.imagenet_efficientnet_lite("0")
        own = backbone.state_dict()
        weights.load_state(backbone, {k: tensors[k] for k in own if k in tensors}, "ImageNet file")
    return backbone


def _context(settings: Model, inputs: int) -> nn.Module:
    if settings.context == "aspp":
        return ASPP(inputs, settings.width, rates=settings.rates, dropout=settings.context_dropout)
    return FCA(
        inputs,
        settings.width,
        lengths=settings.strips,
        dilations=settings.dilations,
        spatial=settings.context == "fca",
        dropout=settings.context_dropout,
    )


def _fusion(settings: Model, low: int) -> nn.Module:
    if settings.fusion == "sf2":
        return SF2(low, settings.width, settings.align_width)
    return SkipGCI(low, settings.width, settings.skip_width)


def build_model(recipe: Recipe, classes: tuple[str, ...] = VOC_CLASSES) -> Network:
    """The network of a recipe for the given foreground classes, in train mode.

    New layers are drawn from torch's global generator: seed it first for a repeatable network.
    """
    settings, weak = recipe.model, recipe.weak
    backbone = _backbone(settings)
    network = Network(
        backbone=backbone,
        context=_context(settings, backbone.high_channels),
        fusion=_fusion(settings, backbone.low_channels),
        gate=StochasticGate(settings.gate_rate),
        decoder=Decoder(settings.width, len(classes), settings.decoder_dropout),
        pooling=partial(ngwp_scores, power=weak.focal_power, floor=weak.focal_floor),
        classes=tuple(classes),
        recipe=recipe,
    )
    # Convolutions on a CPU are several times faster with channels last.
    return network.to(memory_format=torch.channels_last)


def save(model: Network, path: str | Path, provenance: dict | None = None) -> None:
    """Write the weights as safetensors; recipe, classes and provenance go into its header."""
    header = {
        "format": 1,
        "recipe": model.recipe.model_dump(mode="json"),
        "classes": list(model.classes),
        "provenance": provenance or {},
    }
    weights.write_safetensors(path, model.state_dict(), header)


def load(path: str | Path) -> Network:
    """The network of a .safetensors file written by `save`, in eval mode.

    Raises WeightsError naming the file where it is missing, torn, or no network of this package.
    """
    tensors, header = weights.read_safetensors(path)
    if "recipe" not in header or "classes" not in header:
        raise weights.WeightsError(f"{path}: no recipe in its header; not a network of wsfcn")
    recipe = Recipe(**header["recipe"])
    bare = recipe.change({"model.pretrained": False})
    model = build_model(bare, tuple(header["classes"]))
    model.recipe = recipe
    weights.load_state(model, tensors, str(path))
    return model.eval()
