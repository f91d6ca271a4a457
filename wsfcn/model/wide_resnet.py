"""WideResNet-38, variant A1 of Wu et al. (2016): the backbone of WS-FCN and of its baseline."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Backbone
from .layers import FixedStatsBatchNorm2d, init_kaiming

# unit: inputs, widths of its convolutions, stride, their dilations, dropout before the later ones
UNITS: dict[str, tuple[int, tuple[int, ...], int, tuple[int, ...], float]] = {
    "b2": (64, (128, 128), 2, (1, 1), 0),
    "b2_1": (128, (128, 128), 1, (1, 1), 0),
    "b2_2": (128, (128, 128), 1, (1, 1), 0),
    "b3": (128, (256, 256), 2, (1, 1), 0),
    "b3_1": (256, (256, 256), 1, (1, 1), 0),
    "b3_2": (256, (256, 256), 1, (1, 1), 0),
    "b4": (256, (512, 512), 2, (1, 1), 0),
    **{f"b4_{i}": (512, (512, 512), 1, (1, 1), 0) for i in range(1, 6)},
    "b5": (512, (512, 1024), 1, (1, 2), 0),
    "b5_1": (1024, (512, 1024), 1, (2, 2), 0),
    "b5_2": (1024, (512, 1024), 1, (2, 2), 0),
    "b6": (1024, (512, 1024, 2048), 1, (1, 4, 1), 0.3),
    "b7": (2048, (1024, 2048, 4096), 1, (1, 4, 1), 0.5),
}
SUFFIXES = ("2a", "2b1", "2b2")  # of the published names of a unit's convolutions and norms


class Unit(nn.Module):
    """Pre-activation residual unit: BN and ReLU before each convolution.

    Two widths make a pair of 3x3 convolutions, three a bottleneck of 1x1, 3x3, 1x1. Where the
    shape changes, the shortcut projects the first activated map; elsewhere it is the raw input.
    """

    def __init__(
        self,
        inputs: int,
        widths: tuple[int, ...],
        stride: int,
        dilations: tuple[int, ...],
        dropout: float,
    ) -> None:
        super().__init__()
        self.names = SUFFIXES[: len(widths)]
        kernels = (3, 3) if len(widths) == 2 else (1, 3, 1)
        channels = inputs
        for i, (name, width) in enumerate(zip(self.names, widths, strict=True)):
            conv = nn.Conv2d(
                channels,
                width,
                kernels[i],
                stride=stride if i == 0 else 1,
                padding=dilations[i] * (kernels[i] // 2),
                dilation=dilations[i],
                bias=False,
            )
            self.add_module(f"bn_branch{name}", FixedStatsBatchNorm2d(channels))
            self.add_module(f"conv_branch{name}", conv)
            channels = width
        self.conv_branch1 = None
        if stride > 1 or inputs != channels:
            self.conv_branch1 = nn.Conv2d(inputs, channels, 1, stride=stride, bias=False)
        self.dropout = nn.Dropout2d(dropout) if dropout else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = y = x
        for i, name in enumerate(self.names):
            y = F.relu(self.get_submodule(f"bn_branch{name}")(y), inplace=True)
            if i == 0 and self.conv_branch1 is not None:
                shortcut = self.conv_branch1(y)
            if i and self.dropout is not None:
                y = self.dropout(y)
            y = self.get_submodule(f"conv_branch{name}")(y)
        return shortcut + y


class WideResNet38(Backbone):
    """Low features at 1/4 (256 channels, after b3_2), high ones at 1/8 (4096, after bn7).

    Seven stages: conv1a and b2 to b7. The paper freezes the first two. Module names are those
    of the published files.
    """

    low_channels, high_channels, low_stage = 256, 4096, 2

    def __init__(self, *, frozen: int = 2) -> None:
        super().__init__()
        self.conv1a = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        for name, settings in UNITS.items():
            self.add_module(name, Unit(*settings))
        self.bn7 = FixedStatsBatchNorm2d(4096)
        init_kaiming(self)
        self.settle(frozen)

    def stages(self) -> list[list[nn.Module]]:
        stages: list[list[nn.Module]] = [[self.conv1a]]
        for number in range(2, 8):
            names = (n for n in UNITS if n.split("_")[0] == f"b{number}")
            stages.append([self.get_submodule(n) for n in names])
        stages[-1].append(self.bn7)
        return stages

    def units(self, stage: int) -> list[Callable[[Tensor], Tensor]]:
        if stage < 6:
            return super().units(stage)
        return [self.b7, lambda x: F.relu(self.bn7(x), inplace=True)]
