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
from .pool import own_cores
from .recipes import Recipe, Train


def steps_of(settings: Train, count: int) -> int:
    """Steps an epoch with so many images; a last incomplete batch is dropped."""
    return max(count // settings.batch_size, settings.epoch_steps)


def epoch_order(count: int, seed: int, epoch: int, length: int = 0) -> np.ndarray:
    """The order of an epoch, depends on (seed, epoch) alone: a permutation of the images, or as
    many as make `length`."""
    generator = np.random.default_rng([seed, epoch, 0x0DE5])
    times = max(1, -(-length // count))
    return np.concatenate([generator.permutation(count) for _ in range(times)])


def worker_count(asked: int, processes: int = 1) -> int:
    """Loaders of each of the processes on this machine: `asked`, or for -1 a core each, at most 8,
    one core of each process being left to itself."""
    if asked >= 0:
        return asked
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    return min(8, max(0, own_cores() // local - 1))


class Batch(NamedTuple):
    """inputs: normalised images (B, 3, H, W), or cached Features; image in [0, 1] for PAMR.

    rows: the places of the images in the data set. masks: the true ones (B, crop, crop) uint8,
    where they teach.
    """

    inputs: Tensor | Features
    image: Tensor
    labels: Tensor
    rows: np.ndarray
    masks: Tensor | None = None

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

    The order is the epoch's.
    """
    settings, world, rank = recipe.train, fabric.world_size, fabric.global_rank
    steps = steps_of(settings, len(data))
    length = steps * settings.batch_size
    order = epoch_order(len(data), settings.seed, epoch, length)
    rows = order[:length].reshape(steps * settings.accumulate, world, -1)
    rows = rows[start * settings.accumulate :, rank]
    taught = recipe.weak.supervision == "masks"
    if cache is not None:
        view = epoch % settings.views
        drawn = Views(data, recipe.augment, recipe.data.seed, view, masks=True)
        for row in rows:
            found = fabric.to_device(cache.batch(view, row))
            masks = cache.masks(drawn, row) if taught else None
            features = Features(found.low, found.high)
            yield Batch(features, found.image, found.labels, row, fabric.to_device(masks))
        return
    loader = torch.utils.data.DataLoader(
        Views(data, recipe.augment, settings.seed, epoch, masks=taught),
        batch_sampler=rows.tolist(),
        num_workers=worker_count(settings.workers, world),
        pin_memory=fabric.device.type == "cuda",  # or the copy would wait for the device
        generator=torch.Generator(),  # or the loader draws from the one that dropout and gate use
        worker_init_fn=stop.ignore,
    )
    for row, item in zip(rows, loader, strict=True):
        images, labels, *masks = fabric.to_device(item)
        yield Batch(model.normalise(images), images, labels, row, *masks)
