"""ResNet-50 and ResNet-101 (He et al., CVPR 2016) with a fine last map."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Backbone
from .layers import FixedStatsBatchNorm2d, folded, init_kaiming

DEPTHS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3)}


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each with BN, and a shortcut; ReLU after the sum."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = FixedStatsBatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = FixedStatsBatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = FixedStatsBatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False),
                FixedStatsBatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(folded(self.conv1, self.bn1, x), inplace=True)
        y = F.relu(folded(self.conv2, self.bn2, y), inplace=True)
        y = folded(self.conv3, self.bn3, y)
        shortcut = x
        if self.downsample is not None:
            shortcut = folded(self.downsample[0], self.downsample[1], x)
        return F.relu(shortcut + y, inplace=True)


class ResNet(Backbone):
    """Low features at 1/4 (256 channels, layer1), high ones at 1/`stride` (2048, layer4).

    stride 8 replaces the strides of layer3 and layer4 by dilations 2 and 4; 16 only drops the
    last one, as the released baseline does. Five stages: conv1 and layer1 to layer4; the
    baseline freezes the first. Module names are torchvision's, whose files fit.
    """

    low_channels, high_channels, low_stage = 256, 2048, 1

    def __init__(self, variant: str = "50", *, stride: int = 8, frozen: int = 1) -> None:
        super().__init__()
        if stride not in (8, 16):
            raise ValueError(f"stride: a ResNet is built at 8 or 16, got {stride}")
        self.stride = stride
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = FixedStatsBatchNorm2d(64)
        steps = (1, 2, 1, 1) if stride == 8 else (1, 2, 2, 1)
        dilations = (1, 1, 2, 4) if stride == 8 else (1, 1, 1, 1)
        channels, previous = 64, 1
        for i, repeats in enumerate(DEPTHS[variant]):
            width = 64 << i
            blocks = []
            for repeat in range(repeats):
                # The first block of a stage whose stride is dropped still sees the finer grid.
                first = (steps[i], previous) if repeat == 0 else (1, dilations[i])
                blocks.append(Bottleneck(channels, width, *first))
                channels = 4 * width
            previous = dilations[i]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        init_kaiming(self)
        self.settle(frozen)

    def stages(self) -> list[list[nn.Module]]:
        return [
            [self.conv1, self.bn1],
            *(list(self.get_submodule(f"layer{i}")) for i in (1, 2, 3, 4)),
        ]

    def units(self, stage: int) -> list[Callable[[Tensor], Tensor]]:
        return [self._entry] if stage == 0 else super().units(stage)

    def _entry(self, x: Tensor) -> Tensor:
        x = F.relu(folded(self.conv1, self.bn1, x), inplace=True)
        return F.max_pool2d(x, 3, stride=2, padding=1)
