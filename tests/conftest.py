"""Small networks that several tests share."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn


@dataclass
class ToyOutput:
    """What prediction reads of a network's output."""

    masks: Tensor
    scores: Tensor


class ToyNetwork(nn.Module):
    """Three classes by colour. `ramp` favours blue on the right; without it mirroring commutes."""

    classes = ("red", "green", "blue")
    recipe = None

    def __init__(self, ramp: float = 0.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(6.0))
        self.ramp = ramp

    def normalise(self, images: Tensor) -> Tensor:
        return images - 0.5

    def forward(self, images: Tensor) -> ToyOutput:
        logits = self.gain * (images - images.mean(1, keepdim=True))
        logits[:, 2] += self.ramp * torch.linspace(-1, 1, images.shape[-1])
        logits = torch.cat([torch.ones_like(logits[:, :1]), logits], 1)
        return ToyOutput(logits.softmax(1), 8 * images.amax((2, 3)))


@pytest.fixture
def toy_network() -> type[ToyNetwork]:
    """The class: toy_network() is pointwise, toy_network(ramp=1.0) tells left from right."""
    return ToyNetwork


@pytest.fixture
def tiny_network():
    """A real, untrained network of the smoke recipe, the same in every test."""
    import wsfcn
    from wsfcn import recipes

    with torch.random.fork_rng():
        torch.manual_seed(0)
        recipe = recipes.smoke_scenes().change({"model.pretrained": False})
        return wsfcn.build_model(recipe).eval()
