"""What every backbone has in common: two feature levels, frozen leading stages, a stem to cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .layers import freeze, freeze_batch_norms

# Hypercolumns are filled up with zeros to sixteens of channels: else the weight gradient of a
# dilated convolution in bfloat16 holds garbage on CPUs (oneDNN of torch 2.13).
SIXTEEN = 16


class Features(NamedTuple):
    """Two feature levels of a backbone.

    low: (B, C_low, ceil(H/4), ceil(W/4)); high: (B, C_high, ceil(H/s), ceil(W/s)), s its stride;
    the last stage's channels first, then those of the backbone's hypercolumn.
    """

    low: Tensor
    high: Tensor


class Backbone(nn.Module):
    """Images (B, 3, H, W), normalised by `mean` and `std` -> Features.

    A backbone is a row of stages. A subclass says which modules belong to each (`stages`) and
    how to run one (`units`), sets `low_channels`, `high_channels`, `stride` and `low_stage`,
    the index of the stage whose output is the low map, and calls `settle` when it is built.
    Batch norms always keep their running statistics and their affine weights are frozen.
    `stack` lets the maps of earlier stages into the high features, where `stage_channels` tells
    how wide they are.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    low_channels: int
    high_channels: int
    stride = 8
    low_stage: int
    stage_channels: tuple[int, ...] = ()
    hypercolumn: tuple[int, ...] = ()
    frozen: int
    checkpointing = False  # recompute each unit in the backward pass instead of keeping its maps

    def stages(self) -> list[list[nn.Module]]:
        """The modules of every stage, in order."""
        raise NotImplementedError

    def units(self, stage: int) -> list[Callable[[Tensor], Tensor]]:
        """What a stage does to the map, step by step."""
        return list(self.stages()[stage])

    def settle(self, frozen: int) -> None:
        """Freeze the batch norms and the first `frozen` stages (at least one)."""
        stages = self.stages()
        if not 1 <= frozen <= len(stages):
            raise ValueError(f"frozen: this backbone has {len(stages)} stages, got {frozen}")
        self.frozen = frozen
        freeze_batch_norms(self)
        for stage in stages[:frozen]:
            freeze(stage)

    def stack(self, hypercolumn: tuple[int, ...]) -> None:
        """Stack the maps of these stages (1 is the first) onto the last one's, at the same stride:
        a hypercolumn (Hariharan et al., CVPR 2015). Deep features know what, earlier ones where.
        """
        possible = range(self.low_stage + 2, len(self.stage_channels))
        if not self.stage_channels:
            raise ValueError("hypercolumn: only an EfficientNet-Lite can have one")
        if any(stage not in possible for stage in hypercolumn):
            allowed = f"{possible[0]} to {possible[-1]}"
            raise ValueError(f"hypercolumn: takes stages {allowed}, got {hypercolumn}")
        self.hypercolumn = tuple(sorted(set(hypercolumn)))
        stacked = sum(self.stage_channels[stage - 1] for stage in self.hypercolumn)
        self.high_channels = -(-(self.stage_channels[-1] + stacked) // SIXTEEN) * SIXTEEN

    def last(self, high: Tensor) -> Tensor:
        """The part of high features that the last stage made."""
        return high[:, : self.stage_channels[-1]] if self.hypercolumn else high

    def forward(self, x: Tensor) -> Features:
        """x: (B, 3, H, W), normalised."""
        return self.rest(self.stem(x))

    def stem(self, x: Tensor) -> Features:
        """The frozen stages, which can be computed once. `low` is only a place holder (the same
        map as `high`) where the stage that gives it comes later."""
        return self._run(Features(x, x), 0, self.frozen)

    def rest(self, features: Features) -> Features:
        """The remaining stages, on what `stem` gave."""
        low, high = self._run(features, self.frozen, len(self.stages()))
        if spare := self.high_channels - high.shape[1]:
            empty = high.new_zeros((len(high), spare, *high.shape[2:]))
            layout = {"memory_format": torch.channels_last}
            high = torch.cat([high.contiguous(**layout), empty.contiguous(**layout)], 1)
        return Features(low, high)

    def _run(self, features: Features, first: int, last: int) -> Features:
        low, x = features
        # What earlier stages gave to the hypercolumn lies behind the map that goes on.
        stacked = [s for s in self.hypercolumn if s <= first]
        kept: list[Tensor] = []
        if stacked:
            widths = [self.stage_channels[s - 1] for s in stacked]
            x, *kept = x.split([x.shape[1] - sum(widths), *widths], 1)
        for stage in range(first, last):
            for unit in self.units(stage):
                if self.checkpointing and torch.is_grad_enabled():
                    x = checkpoint(unit, x, use_reentrant=False)
                else:
                    x = unit(x)
            if stage <= self.low_stage:
                low = x
            if stage + 1 in self.hypercolumn:
                kept.append(x)
        return Features(low, torch.cat([x, *kept], 1) if kept else x)
