"""Flexible Context Aggregation: FCA = MCLM + SRM (WS-FCN section III-B, Figure 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import PoolBranch, Stages, conv_bn, init_kaiming, note


class StripConv(nn.Module):
    """Two crossed strip convolutions: k x k context for 2 k weights a channel pair, not k^2.

    f_k = C_{1xk}(C_{kx1}(X)) + C_{kx1}(C_{1xk}(X))  (eq. 1), no bias, no activation, zero
    padding that keeps the size. (B, C_in, h, w) -> (B, width, h, w).
    """

    def __init__(self, inputs: int, width: int, length: int, dilation: int) -> None:
        super().__init__()
        pad = dilation * (length - 1) // 2

        def strip(channels: int, vertical: bool) -> nn.Conv2d:
            kernel, padding = ((length, 1), (pad, 0)) if vertical else ((1, length), (0, pad))
            return nn.Conv2d(
                channels, width, kernel, padding=padding, dilation=dilation, bias=False
            )

        self.column_first = strip(inputs, True)
        self.column_second = strip(width, False)
        self.row_first = strip(inputs, False)
        self.row_second = strip(width, True)

    def forward(self, x: Tensor) -> Tensor:
        return self.column_second(self.column_first(x)) + self.row_second(self.row_first(x))


class ChannelAttention(nn.Module):
    """a = sigmoid(W2 ReLU(W1 avg f) + W2 ReLU(W1 max f))  (eq. 2): (B, C, h, w) -> (B, C, 1, 1).

    W1 narrows the channels by `reduction`.
    """

    def __init__(self, width: int, reduction: int = 1) -> None:
        super().__init__()
        inner = max(1, width // reduction)
        self.squeeze = nn.Conv2d(width, inner, 1, bias=False)
        self.excite = nn.Conv2d(inner, width, 1, bias=False)

    def forward(self, f: Tensor) -> Tensor:
        pooled = (f.mean((2, 3), keepdim=True), f.amax((2, 3), keepdim=True))
        return torch.sigmoid(sum(self.excite(F.relu(self.squeeze(p))) for p in pooled))


class SRM(nn.Module):
    """Spatial recalibration: s = sigmoid(conv3x3[mean_c E; max_c E]), Y = E + s E  (eqs. 5, 6)."""

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, e: Tensor, stages: Stages = None) -> Tensor:
        pooled = torch.cat([e.mean(1, keepdim=True), e.amax(1, keepdim=True)], dim=1)
        attention = note(stages, "spatial_attention", torch.sigmoid(self.conv(pooled)))
        return e + attention * e


class FCA(nn.Module):
    """Strips of several lengths, channel attention, embedding, and (unless MCLM only) the SRM.

    (B, C_in, h, w) -> (B, width, h, w) at the same resolution. Batch norms keep their initial
    statistics unless `model.context_norms` says otherwise. The defaults are those of the released
    code: one channel attention serves every branch, no ReLU after the embedding, a 3x3 SRM.
    `private_attention` gives each branch its own, with a reduction by 4, which has as many weights
    for four branches; `embedding_relu` and
    `srm_kernel` = 7 are what the paper's text and CBAM have.
    Stages: strips (B, branches, width, h, w), channel_attention (B, branches, width),
    embedding, spatial_attention (B, 1, h, w), context.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        lengths: tuple[int, ...] = (1, 3, 5, 7),
        dilations: tuple[int, ...] = (1, 12, 24, 36),
        spatial: bool = True,
        dropout: float = 0.5,
        private_attention: bool = False,
        embedding_relu: bool = False,
        srm_kernel: int = 3,
    ) -> None:
        super().__init__()
        self.strips = nn.ModuleList(
            StripConv(inputs, width, k, d) for k, d in zip(lengths, dilations, strict=True)
        )
        self.attention = (
            nn.ModuleList(ChannelAttention(width, 4) for _ in lengths)
            if private_attention
            else ChannelAttention(width)
        )
        self.pool = PoolBranch(inputs, width)
        self.embed = conv_bn(width * (len(lengths) + 1), width, fixed_stats=True)
        self.embedding_relu = embedding_relu
        self.srm = SRM(srm_kernel) if spatial else None
        self.dropout = nn.Dropout(dropout)
        init_kaiming(self)

    def forward(self, x: Tensor, stages: Stages = None) -> Tensor:
        branches = [strip(x) for strip in self.strips]
        shared = isinstance(self.attention, ChannelAttention)
        modules = [self.attention] * len(branches) if shared else self.attention
        attentions = [module(f) for module, f in zip(modules, branches, strict=True)]
        if stages is not None:
            stages["strips"] = torch.stack(branches, 1)
            stages["channel_attention"] = torch.stack(attentions, 1).flatten(2)
        parts = [a * f for a, f in zip(attentions, branches, strict=True)]
        parts.append(self.pool(x).expand(-1, -1, *x.shape[2:]))
        e = self.embed(torch.cat(parts, dim=1))
        e = note(stages, "embedding", F.relu(e) if self.embedding_relu else e)
        y = self.srm(e, stages) if self.srm is not None else e
        return self.dropout(note(stages, "context", y))
