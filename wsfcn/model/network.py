"""WS-FCN as one module composed of injected parts (Figure 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .backbone import Features
from .decoder import with_background
from .layers import Stages, note, resize


class Output(NamedTuple):
    """What the network says about a batch.

    logits: (B, K+1, h, w) at 1/4 of the input, channel 0 the constant background logit 1.
    probabilities: (B, K+1, h, w), their softmax.
    scores: (B, K) image-level class scores, before the sigmoid.
    size: (H, W) of the input. stages: named intermediate tensors where asked for.
    """

    logits: Tensor
    probabilities: Tensor
    scores: Tensor
    size: tuple[int, int]
    stages: Stages = None

    @property
    def masks(self) -> Tensor:
        """(B, K+1, H, W) softmax masks at the input's size (bilinear, align_corners=True)."""
        return resize(self.probabilities, self.size)


class Network(nn.Module):
    """Image -> backbone -> context -> fusion -> gate -> decoder -> masks and scores.

    backbone.rest(backbone.stem(images)) gives Features(low at 1/4, high at 1/8), the stem being
    what can be computed once where it is frozen; context(high) a map of the network's width;
    fusion(low, context) the deep and the shallow stream; pooling(logits, probabilities) the
    (B, K) scores. `classes` are the K foreground names, `recipe` what the network was built from.
    """

    def __init__(
        self,
        backbone: nn.Module,
        context: nn.Module,
        fusion: nn.Module,
        gate: nn.Module,
        decoder: nn.Module,
        pooling: Callable[[Tensor, Tensor], Tensor],
        classes: tuple[str, ...],
        recipe: Any = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.context = context
        self.fusion = fusion
        self.gate = gate
        self.decoder = decoder
        self.pooling = pooling
        self.classes = classes
        self.recipe = recipe
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1), persistent=False)

    @property
    def num_classes(self) -> int:
        """K, the number of foreground classes."""
        return len(self.classes)

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.mean.device

    def normalise(self, images: Tensor) -> Tensor:
        """Images in [0, 1] -> what the backbone was trained on."""
        return (images - self.mean) / self.std

    def forward(self, images: Tensor, stages: bool = False) -> Output:
        """images: (B, 3, H, W), normalised. stages=True keeps every intermediate map by name."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images: expected (B, 3, H, W), got {tuple(images.shape)}")
        images = images.contiguous(memory_format=torch.channels_last)
        return self.finish(self.backbone.stem(images), images.shape[-2:], stages)

    def finish(self, stem: Features, size: tuple[int, int], stages: bool = False) -> Output:
        """Everything after the backbone's stem, for images of `size` (H, W)."""
        features = self.backbone.rest(stem)
        kept: Stages = {} if stages else None
        note(kept, "low", features.low)
        note(kept, "high", features.high)
        context = self.context(features.high, kept)
        deep, shallow = self.fusion(features.low, context, kept)
        note(kept, "deep", deep)
        note(kept, "shallow", shallow)
        gated = note(kept, "gated", self.gate(deep, shallow))
        logits = with_background(self.decoder(gated))
        probabilities = logits.softmax(dim=1)
        scores = self.pooling(logits, probabilities)
        return Output(logits, probabilities, scores, (size[0], size[1]), kept)


def count_parameters(model: nn.Module) -> int:
    """Parameters that train, the convention behind the paper's Tables I and II.

    Frozen stem, blocks and batch norms of the backbone do not count.
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
