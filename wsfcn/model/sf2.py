"""Semantically consistent Feature Fusion, SF2: flow alignment and two streams (section III-C)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Stages, init_kaiming, note, resize


def sampling_grid(flow: Tensor) -> Tensor:
    """Where each pixel of the large map looks: (B, 2, H, W) flow -> (B, H, W, 2) in [-1, 1].

    G(y, x) = (linspace(-1, 1, W)_x, linspace(-1, 1, H)_y) + flow / (W, H): one unit of flow moves
    the sample by 1/W of the normalised width, about half a pixel of the large map.
    """
    height, width = flow.shape[-2:]
    ys = torch.linspace(-1, 1, height, device=flow.device, dtype=flow.dtype)
    xs = torch.linspace(-1, 1, width, device=flow.device, dtype=flow.dtype)
    base = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)
    return base + flow.permute(0, 2, 3, 1) / flow.new_tensor([width, height])


class FlowAlign(nn.Module):
    """Upsample the deep map along a learned flow (eqs. 9-12; Semantic Flow, ECCV 2020).

    low (B, C_low, H, W) and high (B, width, h, w) -> (B, width, H, W). The flow is read off both
    maps, each reduced to `align_width` channels; the warp moves the whole `width`-channel map.
    Stages: flow (B, 2, H, W), channel 0 = x, 1 = y.
    """

    def __init__(self, low: int, width: int, align_width: int) -> None:
        super().__init__()
        self.reduce_high = nn.Conv2d(width, align_width, 1, bias=False)
        self.reduce_low = nn.Conv2d(low, align_width, 1, bias=False)
        self.flow = nn.Conv2d(2 * align_width, 2, 3, padding=1, bias=False)

    def forward(self, low: Tensor, high: Tensor, stages: Stages = None) -> Tensor:
        size = low.shape[-2:]
        reduced = resize(self.reduce_high(high), size, align_corners=False)
        flow = note(stages, "flow", self.flow(torch.cat([reduced, self.reduce_low(low)], 1)))
        return F.grid_sample(high, sampling_grid(flow), padding_mode="zeros", align_corners=True)


FUSE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "multiply": torch.mul,
    "sum": torch.add,
    "concat": lambda h, v: torch.cat([h, v], dim=1),
}


class Unit(nn.Module):
    """ReLU(BN(conv3x3 with bias)); batch statistics in training."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class TwoStreams(nn.Module):
    """Multiply two streams and add the product back to each (eqs. 7, 8).

    low, deep: two maps of one size -> (deep', shallow'), both (B, width, H, W). The eight
    convolutions are those of the released code; the paper shows only product and sums. `fuse`:
    what replaces the product in the rows of Table II, "sum" or "concat" (twice the channels).
    Stages: fused.
    """

    def __init__(self, low: int, deep: int, width: int, fuse: str = "multiply") -> None:
        super().__init__()
        self.fuse = FUSE[fuse]
        inner = 2 * width if fuse == "concat" else width
        self.low1, self.low2 = Unit(low, width), Unit(width, width)
        self.deep1, self.deep2 = Unit(deep, width), Unit(width, width)
        self.low3, self.low4 = Unit(inner, width), Unit(width, width)
        self.deep3, self.deep4 = Unit(inner, width), Unit(width, width)
        init_kaiming(self)

    def forward(self, low: Tensor, deep: Tensor, stages: Stages = None) -> tuple[Tensor, Tensor]:
        h = self.low1(low)
        v = self.deep1(deep)
        fused = note(stages, "fused", self.fuse(self.low2(h), self.deep2(v)))
        shallow = self.low4(self.low3(fused) + h)
        deep = self.deep4(self.deep3(fused) + v)
        return deep, shallow


class SF2(nn.Module):
    """Flow alignment of the deep map to the shallow one, then two-stream fusion.

    low (B, C_low, H, W), context (B, width, h, w) -> (deep, shallow), both (B, width, H, W).
    align_width 0: bilinear upsampling instead of the flow, as in the rivals of Table II.
    Stages: flow (with alignment), aligned, fused.
    """

    def __init__(
        self, low: int, width: int, align_width: int = 128, fuse: str = "multiply"
    ) -> None:
        super().__init__()
        self.align = FlowAlign(low, width, align_width) if align_width else None
        self.streams = TwoStreams(low, width, width, fuse)

    def forward(self, low: Tensor, context: Tensor, stages: Stages = None) -> tuple[Tensor, Tensor]:
        if self.align is not None:
            aligned = self.align(low, context, stages)
        else:
            aligned = resize(context, low.shape[-2:])
        return self.streams(low, note(stages, "aligned", aligned), stages)
