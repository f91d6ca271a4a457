"""VGG-16 (Simonyan & Zisserman 2015) as a dilated, fully convolutional network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Backbone
from .layers import init_kaiming

# channels, convolutions, stride of the 3x3 pooling before them (0: none), dilation
STAGES = ((64, 2, 0, 1), (128, 2, 2, 1), (256, 3, 2, 1), (512, 3, 2, 1), (512, 3, 1, 2))


class VGG16(Backbone):
    """Low features at 1/4 (256 channels, conv3_3), high ones at 1/8 (1024, fc7).

    The fourth pooling keeps the size, conv5 is dilated by 2, and fc6 and fc7 are convolutions of
    1024 channels with dropout between them. Six stages: conv1 to conv5, then fc6 and fc7; the
    baseline freezes the first.
    """

    low_channels, high_channels, low_stage = 256, 1024, 2

    def __init__(self, *, frozen: int = 1) -> None:
        super().__init__()
        inputs = 3
        for i, (channels, count, _, dilation) in enumerate(STAGES, start=1):
            for j in range(1, count + 1):
                conv = nn.Conv2d(inputs, channels, 3, padding=dilation, dilation=dilation)
                self.add_module(f"conv{i}_{j}", conv)
                inputs = channels
        self.fc6 = nn.Conv2d(inputs, 1024, 3, padding=1)
        self.drop6 = nn.Dropout2d(0.5)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        init_kaiming(self)
        self.settle(frozen)

    def stages(self) -> list[list[nn.Module]]:
        convs = [
            [self.get_submodule(f"conv{i}_{j}") for j in range(1, count + 1)]
            for i, (_, count, _, _) in enumerate(STAGES, start=1)
        ]
        return [*convs, [self.fc6, self.drop6, self.fc7]]

    def units(self, stage: int) -> list[Callable[[Tensor], Tensor]]:
        return [partial(self._stage, stage)]

    def _stage(self, stage: int, x: Tensor) -> Tensor:
        if stage == len(STAGES):
            x = self.drop6(F.relu(self.fc6(x), inplace=True))
            return F.relu(self.fc7(x), inplace=True)
        step = STAGES[stage][2]
        if step:
            x = F.max_pool2d(x, 3, stride=step, padding=1)
        for conv in self.stages()[stage]:
            x = F.relu(conv(x), inplace=True)
        return x
