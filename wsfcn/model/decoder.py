"""From two streams to class logits: the stochastic gate and the decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import init_kaiming


class StochasticGate(nn.Module):
    """Mix the deep and the shallow map element by element (baseline, CVPR 2020).

    Training: r ~ Bernoulli(1 - rate), x = r (deep - rate shallow) / (1 - rate) + (1 - r) shallow,
    whose expectation is the deep map. Evaluation: (1 - rate) deep + rate shallow. The two differ;
    so do those of the released code, which published figures rest on. matched=True evaluates with
    the expectation, the deep map alone.
    """

    def __init__(self, rate: float = 0.3, matched: bool = False) -> None:
        super().__init__()
        self.rate, self.matched = rate, matched

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        if not self.training:
            if self.matched:
                return deep
            return (1 - self.rate) * deep + self.rate * shallow
        keep = torch.rand_like(deep) >= self.rate
        return torch.where(keep, (deep - self.rate * shallow) / max(1e-8, 1 - self.rate), shallow)


class Decoder(nn.Sequential):
    """Two 3x3 convolutions with batch norm and dropout, then a 1x1 classifier without background.

    (B, width, H, W) -> (B, K, H, W).
    """

    def __init__(self, width: int, classes: int, dropout: tuple[float, float] = (0.5, 0.1)) -> None:
        layers: list[nn.Module] = []
        for rate in dropout:
            layers += [
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Dropout(rate),
            ]
        classifier = nn.Conv2d(width, classes, 1)
        bias = classifier.bias.detach().clone()  # keeps the library's default initialisation
        super().__init__(*layers, classifier)
        init_kaiming(self)
        with torch.no_grad():
            classifier.bias.copy_(bias)


def with_background(logits: Tensor) -> Tensor:
    """Prepend the constant background logit 1: (B, K, H, W) -> (B, K + 1, H, W)."""
    return F.pad(logits, (0, 0, 0, 0, 1, 0), value=1.0)
