"""The baseline's fusion: a narrow skip and Global Cue Injection (Araslanov & Roth, CVPR 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Stages, conv_bn, init_kaiming, resize


class SkipGCI(nn.Module):
    """Deep map: upsampled context beside a narrow projection of the low features.
    Shallow map: low features modulated by a global cue, the spatial maximum of the deep map.

    low (B, C_low, H, W), context (B, width, h, w) -> (deep, shallow), both (B, width, H, W).
    """

    def __init__(self, low: int, width: int, skip_width: int = 48) -> None:
        super().__init__()
        self.skip = conv_bn(low, skip_width)
        self.fuse = conv_bn(width + skip_width, width, 3)
        self.cue = conv_bn(width, 2 * width)
        self.shallow = nn.Sequential(
            nn.Conv2d(low, width, 1, bias=False), nn.BatchNorm2d(width, affine=False)
        )
        self.out = conv_bn(width, width)
        init_kaiming(self)

    def forward(self, low: Tensor, context: Tensor, stages: Stages = None) -> tuple[Tensor, Tensor]:
        skip = F.relu(self.skip(low))
        context = resize(context, low.shape[-2:])
        deep = F.relu(self.fuse(torch.cat([context, skip], dim=1)))
        scale, shift = F.relu(self.cue(deep)).amax((2, 3), keepdim=True).chunk(2, dim=1)
        shallow = F.relu(self.shallow(low) * (1 + scale) + shift)
        return deep, F.relu(self.out(shallow))
