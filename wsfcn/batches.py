"""The batches of a training: which images, in which order, from where."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from . import stop
from .data.sample import Dataset
from .features import FeatureCache, Views
from .model.backbone import Features
from .model.network import Network, Output
from .recipes import Recipe


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of an epoch; depends on (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch, 0x0DE5]).permutation(count)


def worker_count(asked: int, processes: int = 1) -> int:
    """Loaders of each of the processes on this machine: `asked`, or for -1 a core each, at most 8,
    one core of each process being left to itself."""
    if asked >= 0:
        return asked
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return min(8, max(0, cores // local - 1))


class Batch(NamedTuple):
    """inputs: normalised images (B, 3, H, W), or cached Features; image in [0, 1] for PAMR.

    rows: the places of the images in the data set.
    """

    inputs: Tensor | Features
    image: Tensor
    labels: Tensor
    rows: np.ndarray

    def forward(self, wrapped: torch.nn.Module, crop: int) -> Output:
        """What a network, as Fabric has wrapped it, makes of the inputs."""
        if isinstance(self.inputs, Features):
            return wrapped.finish(self.inputs, (crop,) * 2)
        return wrapped(self.inputs)


def batches(
    fabric: Fabric,
    model: Network,
    data: Dataset,
    cache: FeatureCache | None,
    recipe: Recipe,
    epoch: int,
    start: int = 0,
) -> Iterator[Batch]:
    """This process's parts of an epoch's batches from step `start` on, `train.accumulate` a step.

    The order is the epoch's; a last incomplete batch is dropped.
    """
    settings, world, rank = recipe.train, fabric.world_size, fabric.global_rank
    order = epoch_order(len(data), settings.seed, epoch)
    steps = len(order) // settings.batch_size
    rows = order[: steps * settings.batch_size].reshape(steps * settings.accumulate, world, -1)
    rows = rows[start * settings.accumulate :, rank]
    if cache is not None:
        view = epoch % settings.views
        for row in rows:
            found = fabric.to_device(cache.batch(view, row))
            yield Batch(Features(found.low, found.high), found.image, found.labels, row)
        return
    loader = torch.utils.data.DataLoader(
        Views(data, recipe.augment, settings.seed, epoch),
        batch_sampler=rows.tolist(),
        num_workers=worker_count(settings.workers, world),
        pin_memory=fabric.device.type == "cuda",  # or the copy would wait for the device
        generator=torch.Generator(),  # or the loader draws from the one that dropout and gate use
        worker_init_fn=stop.ignore,
    )
    for row, (images, labels) in zip(rows, loader, strict=True):
        images, labels = fabric.to_device((images, labels))
        yield Batch(model.normalise(images), images, labels, row)
