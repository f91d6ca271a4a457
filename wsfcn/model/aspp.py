"""Atrous spatial pyramid pooling: the context module of the baseline."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import PoolBranch, Stages, conv_bn, init_kaiming, note


class ASPP(nn.Module):
    """ASPP as in DeepLab (Chen et al. 2018) and the single-stage baseline (CVPR 2020).

    A 1x1 and three dilated 3x3 branches and an image-pool branch, each BN + ReLU, then a 1x1
    embedding with BN + ReLU. (B, C_in, h, w) -> (B, width, h, w). Batch norms keep their
    initial statistics.
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
