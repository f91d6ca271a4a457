"""The context modules that FCA is compared with (Table II), built to the published sizes.

All take (B, C_in, h, w) to (B, width, h, w), end with BN, ReLU and dropout, and keep the initial
statistics of their batch norms, as the baseline's ASPP does, unless `model.context_norms` says
otherwise. Stages: context.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import PoolBranch, Stages, conv_bn, init_kaiming, note, resize


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the baseline's context (DeepLab, Chen et al. 2018).

    A 1x1 and three dilated 3x3 branches and an image-pool branch, each BN + ReLU, then a 1x1
    embedding.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        rates: tuple[int, ...] = (1, 12, 24, 36),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            conv_bn(inputs, width, 1 if i == 0 else 3, dilation=rate, fixed_stats=True)
            for i, rate in enumerate(rates)
        )
        self.pool = PoolBranch(inputs, width)
        self.embed = conv_bn(width * (len(rates) + 1), width, fixed_stats=True)
        self.dropout = nn.Dropout(dropout)
        init_kaiming(self)

    def forward(self, x: Tensor, stages: Stages = None) -> Tensor:
        parts = [F.relu(branch(x)) for branch in self.branches]
        parts.append(self.pool(x).expand(-1, -1, *x.shape[2:]))
        y = F.relu(self.embed(torch.cat(parts, dim=1)))
        return self.dropout(note(stages, "context", y))


class NonLocal(nn.Module):
    """Every pixel attends to every other (Wang et al., CVPR 2018, embedded Gaussian).

    y = softmax(theta(x)^T phi(x)) g(x), inner width C_in / 2; z = W y + x; then a 1x1 embedding.
    W starts at zero, so that the block starts as the identity (their section 4.1). Attention
    runs in the memory of its inputs where torch has a kernel for it.
    """

    def __init__(self, inputs: int, width: int, *, dropout: float = 0.5) -> None:
        super().__init__()
        inner = inputs // 2
        self.theta, self.phi, self.g = (nn.Conv2d(inputs, inner, 1, bias=False) for _ in range(3))
        self.out = nn.Conv2d(inner, inputs, 1, bias=False)
        self.embed = conv_bn(inputs, width, fixed_stats=True)
        self.dropout = nn.Dropout(dropout)
        init_kaiming(self)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, stages: Stages = None) -> Tensor:
        query, key, value = (
            part(x).flatten(2).transpose(1, 2)[:, None] for part in (self.theta, self.phi, self.g)
        )
        y = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        y = self.out(y[:, 0].transpose(1, 2).unflatten(2, x.shape[2:]))
        return self.dropout(note(stages, "context", F.relu(self.embed(x + y))))


class LargeConv(nn.Module):
    """One dense 7x7 convolution."""

    def __init__(self, inputs: int, width: int, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.embed = conv_bn(inputs, width, 7, fixed_stats=True)
        self.dropout = nn.Dropout(dropout)
        init_kaiming(self)

    def forward(self, x: Tensor, stages: Stages = None) -> Tensor:
        return self.dropout(note(stages, "context", F.relu(self.embed(x))))


class PPM(nn.Module):
    """Pyramid pooling: averages over 1, 2, 3 and 6 bins a side (PSPNet, Zhao et al., CVPR 2017).

    Each is projected to C_in / 4 channels with BN + ReLU, upsampled (corners aligned) and put
    beside the input; a 3x3 convolution embeds all.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        bins: tuple[int, ...] = (1, 2, 3, 6),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.bins, inner = bins, inputs // 4
        self.branches = nn.ModuleList(conv_bn(inputs, inner, fixed_stats=True) for _ in bins)
        self.embed = conv_bn(inputs + len(bins) * inner, width, 3, fixed_stats=True)
        self.dropout = nn.Dropout(dropout)
        init_kaiming(self)

    def forward(self, x: Tensor, stages: Stages = None) -> Tensor:
        parts = [x]
        for bins, branch in zip(self.bins, self.branches, strict=True):
            parts.append(resize(F.relu(branch(F.adaptive_avg_pool2d(x, bins))), x.shape[2:]))
        y = F.relu(self.embed(torch.cat(parts, dim=1)))
        return self.dropout(note(stages, "context", y))
