"""The floor that weak supervision must beat: thresholded CAMs of a classifier.

A linear classifier on the pooled features of the pretrained backbone, trained on the same images
and image labels as WS-FCN; its class activation maps, cut at the one threshold that scores best
against the exact masks. That choice needs masks, so it flatters the CAM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..build import build_model
from ..data import build as build_data
from ..data import scored
from ..data.sample import Dataset, Sample
from ..data.transforms import to_tensor
from ..evaluate import ConfusionMatrix
from ..features import cache_folder, cached_features
from ..model.backbone import Features
from ..model.network import Network
from ..predict import shrunk, working_size
from ..recipes import Recipe
from ..weak.cam import cam_to_labels, class_activation_maps
from ..weights import read_safetensors, write_safetensors

THRESHOLDS = tuple(np.round(np.arange(0.1, 0.96, 0.05), 2).tolist())


@dataclass(frozen=True)
class CamFloor:
    """A CAM classifier and its mIoU on the validation images for every threshold.

    classifier: Linear(C, K) on standardised pooled features, folded into plain weights.
    curves: "class filter" (classes with a probability above one half) and "image labels given";
    each a tuple of mIoU along THRESHOLDS.
    """

    network: Network
    classifier: nn.Linear
    curves: dict[str, tuple[float, ...]]

    def best(self, curve: str = "class filter") -> tuple[float, float]:
        """(threshold, mIoU) at the maximum of a curve."""
        at = int(np.nanargmax(self.curves[curve]))
        return THRESHOLDS[at], self.curves[curve][at]

    @torch.inference_mode()
    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [0, 1] -> CAMs (B, K, h, w) in [0, 1], probabilities (B, K)."""
        pixels = self.network.normalise(images).contiguous(memory_format=torch.channels_last)
        features = self.network.backbone.last(self.network.backbone(pixels).high)
        scores = self.classifier(features.mean((2, 3)))
        return class_activation_maps(features, self.classifier.weight), scores.sigmoid()


def cam_floor(recipe: Recipe, *, epochs: int = 40, progress: bool = True) -> CamFloor:
    """Train the classifier on a recipe's training images and score its CAMs on its val images.

    The recipe's views and training seed are used; classifier and curves are kept in the cache.
    """
    facts = recipe.change({"name": "cam_floor"}).model_dump_json() + str((epochs, THRESHOLDS))
    key = hashlib.sha256(facts.encode()).hexdigest()[:16]
    path = cache_folder() / "cam_floors" / f"{key}.safetensors"
    train, val = build_data(recipe.data)
    if path.exists():
        tensors, header = read_safetensors(path)
        classifier = nn.Linear(*reversed(tensors["weight"].shape)).requires_grad_(False)
        classifier.load_state_dict(tensors)
        curves = {name: tuple(values) for name, values in header["curves"].items()}
        return CamFloor(build_model(recipe, train.classes).eval(), classifier, curves)
    val = scored(val)
    torch.manual_seed(recipe.train.seed)
    network = build_model(recipe, train.classes).eval()
    pooled, labels = _pooled(network, recipe, train, progress)
    classifier = _fit(pooled, labels, epochs)
    floor = CamFloor(network, classifier, {})
    names = ("class filter", "image labels given")
    matrices = {n: [ConfusionMatrix(len(val.classes) + 1) for _ in THRESHOLDS] for n in names}
    size = working_size(network, None)
    for samples in _alike(val, 16):
        images = torch.stack([to_tensor(shrunk(s.image, size)) for s in samples])
        cams, probabilities = floor.maps(images)
        given = torch.stack([torch.from_numpy(s.labels) for s in samples])
        truth = np.stack([s.mask for s in samples if s.mask is not None])
        for name, kept in zip(names, (probabilities > 0.5, given > 0), strict=True):
            for threshold, matrix in zip(THRESHOLDS, matrices[name], strict=True):
                found = cam_to_labels(cams, threshold, truth.shape[1:], kept.float())
                matrix.update(found.numpy(), truth)
    floor.curves.update({n: tuple(m.mean_iou for m in row) for n, row in matrices.items()})
    write_safetensors(path, classifier.state_dict(), {"curves": floor.curves})
    return floor


def _alike(data: Dataset, most: int) -> Iterator[list[Sample]]:
    """Samples of equal size that follow one another, at most so many at a time."""
    samples = (data[index] for index in range(len(data)))
    for _, same in groupby(samples, key=lambda sample: sample.image.shape):
        while batch := list(islice(same, most)):
            yield batch


@torch.inference_mode()
def _pooled(
    network: Network, recipe: Recipe, train: Dataset, progress: bool
) -> tuple[Tensor, Tensor]:
    """Mean features (n, C) and labels (n, K) of every view of every training image."""
    recipe = recipe.change({"train.views": max(1, recipe.train.views)})
    cache = cached_features(network, recipe, train, progress=progress)
    pooled, labels = [], []
    for view in range(recipe.train.views):
        for rows in np.split(np.arange(len(train)), range(64, len(train), 64)):
            batch = cache.batch(view, rows)
            high = network.backbone.rest(Features(batch.low, batch.high)).high
            pooled.append(network.backbone.last(high).mean((2, 3)))
            labels.append(batch.labels)
    return torch.cat(pooled), torch.cat(labels)


def _fit(pooled: Tensor, labels: Tensor, epochs: int) -> nn.Linear:
    pooled, labels = pooled.clone(), labels.clone()  # inference tensors cannot train anything
    mean, std = pooled.mean(0), pooled.std(0) + 1e-3
    inputs = (pooled - mean) / std
    classifier = nn.Linear(inputs.shape[1], labels.shape[1])
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(64):
            loss = F.binary_cross_entropy_with_logits(classifier(inputs[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():  # fold the standardisation into the weights
        classifier.weight.div_(std)
        classifier.bias.sub_(classifier.weight @ mean)
    return classifier.requires_grad_(False)
