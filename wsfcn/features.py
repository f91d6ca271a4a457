"""Features of the frozen stages of a backbone, computed once and kept on disk.

They depend on data, augmentation and backbone alone, so on two cores every seed and every
ablation row can share what would be a good part of each training step.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset
from tqdm.auto import tqdm

from .data.sample import DataError, Dataset
from .data.transforms import augment, pixels_needed, rng, to_tensor
from .files import PART, check_output_folder, replacing
from .model.backbone import Features
from .model.layers import resize
from .model.network import Network, Output
from .recipes import Augment, Recipe
from .stop import ignore
from .weights import read_safetensors, write_safetensors

FORMAT = 2
SECONDS = 10  # of work that a stop may cost
WORTH_A_PROCESS = 256  # images


def cache_folder() -> Path:
    """Where features are kept: $WSFCN_CACHE, else ~/.cache/wsfcn."""
    return Path(os.environ.get("WSFCN_CACHE") or Path.home() / ".cache" / "wsfcn")


class Views(TorchDataset):
    """Augmented views of a data set: view v of image i depends on (seed, v, i) alone.

    Items are (image (3, crop, crop) in [0, 1], labels (K,)), and with masks=True the true mask
    (crop, crop) uint8 as well.
    """

    def __init__(
        self, dataset: Dataset, settings: Augment, seed: int, view: int, masks: bool = False
    ) -> None:
        if hasattr(dataset, "reduced"):  # photos; scenes have one size
            dataset = dataset.reduced(pixels_needed(settings))
        self.dataset, self.settings, self.seed, self.view = dataset, settings, seed, view
        self.masks = masks

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        sample = self.dataset[index]
        if self.masks and sample.mask is None:
            raise DataError(f"{sample.id}: has no mask, which weak.supervision = masks needs")
        mask = sample.mask if self.masks else None
        image, mask = augment(sample.image, self.settings, rng(self.seed, self.view, index), mask)
        item = to_tensor(image), torch.from_numpy(sample.labels)
        return item if mask is None else (*item, torch.from_numpy(mask))


class FeatureBatch(NamedTuple):
    """Cached features of a batch; image is the view at the size of the low features."""

    low: Tensor
    high: Tensor
    image: Tensor
    labels: Tensor


class FeatureCache:
    """Features of `views` augmented views of every training image, float16, memory-mapped."""

    NAMES = ("low", "high", "image", "labels")

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self._masks: dict[tuple[int, int], Tensor] = {}
        self.arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in self.NAMES]

    def batch(self, view: int, indices: np.ndarray) -> FeatureBatch:
        """Features of the given images in one view, as float32."""
        rows = view * self.count + indices
        low, high, image, labels = (
            torch.from_numpy(a[rows].astype(np.float32)) for a in self.arrays
        )
        # Maps are stored channels last, the layout that convolutions on a CPU want.
        low, high, image = (t.permute(0, 3, 1, 2) for t in (low, high, image))
        return FeatureBatch(low, high, image, labels)

    def masks(self, views: Views, rows: np.ndarray) -> Tensor:
        """The true masks (B, crop, crop) of the same view, each drawn once a training."""
        keys = [(views.view, row) for row in rows.tolist()]
        for view, row in keys:
            if (view, row) not in self._masks:
                self._masks[view, row] = views[row][2]
        return torch.stack([self._masks[key] for key in keys])


def _key(recipe: Recipe, dataset: Dataset) -> str:
    # Only what the features depend on, so that seeds and ablation rows find the same cache.
    facts = {
        "format": FORMAT,
        "data": recipe.data.model_dump(mode="json", exclude_defaults=True),
        "augment": recipe.augment.model_dump(mode="json", exclude_defaults=True),
        "backbone": [recipe.model.backbone, recipe.model.pretrained, recipe.model.frozen],
        "views": recipe.train.views,
    }
    if recipe.model.hypercolumn:
        facts["hypercolumn"] = recipe.model.hypercolumn
    if hasattr(dataset, "fingerprint"):  # files change, scenes do not
        facts |= {"files": dataset.fingerprint(), "least": pixels_needed(recipe.augment)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def cached_features(
    model: Network, recipe: Recipe, dataset: Dataset, *, progress: bool = True
) -> FeatureCache:
    """The cache of a recipe's training features; computed on first use, by one process at a time.

    One that was stopped is gone on with. Augmentation is keyed by (data.seed, view, index): runs
    of other training seeds share it.
    """
    folder = cache_folder() / "features" / _key(recipe, dataset)
    if not folder.is_dir():
        try:
            check_output_folder(folder.parent).mkdir(parents=True, exist_ok=True)
        except (PermissionError, NotADirectoryError) as error:
            raise type(error)(f"{error}; features are kept where WSFCN_CACHE says") from None
        part = folder.with_name(f".{folder.name}{PART}")
        lock = folder.with_name(f".{folder.name}.lock")
        with open(lock, "w") as file:
            with suppress(OSError):  # a network disk without locks
                fcntl.flock(file, fcntl.LOCK_EX)  # waits for a process that computes the same
            if not folder.is_dir():
                part.mkdir(exist_ok=True)
                _compute(part, model, recipe, dataset, progress)
                part.rename(folder)
            lock.unlink(missing_ok=True)
    return FeatureCache(folder, len(dataset))


class Remembered(nn.Module):
    """A network whose frozen stages keep on disk what they make of an image.

    What is scored after every epoch, and by every row of a table, goes through them once. Images
    and stages are told by their content, so that no one has to say which belong together. For a
    CPU: a GPU computes faster than it reads.

    recall: for a network that no longer changes, so many bytes of its outputs stay in memory, for
    protocols that look at the same views.
    """

    def __init__(self, network: Network, recall: int = 0) -> None:
        super().__init__()
        self._room, self._outputs = recall, dict[str, Output]()
        self.network = network
        self.classes, self.recipe = network.classes, network.recipe
        stages = network.backbone.stages()[: network.backbone.frozen]
        state = nn.ModuleList(chain(*stages)).state_dict().values()
        told = hashlib.sha256(repr(network.backbone).encode())
        if network.backbone.hypercolumn:
            told.update(repr(network.backbone.hypercolumn).encode())
        for tensor in state:
            told.update(tensor.cpu().numpy().tobytes())
        self.folder = cache_folder() / "stems" / told.hexdigest()[:16]

    def normalise(self, images: Tensor) -> Tensor:
        """As the network's."""
        return self.network.normalise(images)

    def forward(self, images: Tensor) -> Output:
        """As the network's, without intermediate maps."""
        if images.device.type != "cpu":
            return self.network(images)
        key = _content(images)
        if key in self._outputs:
            return self._outputs[key]
        stems = [self._stem(image[None]) for image in images]
        stem = Features(*(torch.cat(maps) for maps in zip(*stems, strict=True)))
        output: Output = self.network.finish(stem, images.shape[-2:])
        size = output.logits.nbytes + output.probabilities.nbytes
        if size <= self._room:
            self._room -= size
            self._outputs[key] = output
        return output

    def _stem(self, image: Tensor) -> Features:
        path = self.folder / f"{_content(image)[:32]}.safetensors"
        if path.exists():
            kept, _ = read_safetensors(path)
        else:
            stem = self.network.backbone.stem(image.contiguous(memory_format=torch.channels_last))
            kept = stem._asdict()
            self.folder.mkdir(parents=True, exist_ok=True)
            write_safetensors(path, kept, {})
        layout = {"memory_format": torch.channels_last}
        return Features(*(kept[name].contiguous(**layout) for name in Features._fields))


def _content(images: Tensor) -> str:
    return hashlib.sha256(repr(images.shape).encode() + images.numpy().tobytes()).hexdigest()


@torch.inference_mode()
def _compute(part: Path, model: Network, recipe: Recipe, dataset: Dataset, progress: bool) -> None:
    """Fill the folder from the first image on that an earlier process has not come to."""
    count, views = len(dataset), recipe.train.views
    note = part / "done.json"
    done = json.loads(note.read_text()) if note.exists() else 0
    model.backbone.eval()
    files = [part / f"{name}.npy" for name in FeatureCache.NAMES]
    arrays = [np.lib.format.open_memmap(file, "r+") for file in files] if done else []
    saved = time.perf_counter()

    def save() -> None:
        for array in arrays:
            array.flush()
        with replacing(note) as temporary:
            temporary.write_text(json.dumps(done))

    bar = tqdm(total=views * count, initial=done, desc="features", unit="img", disable=not progress)
    with bar:
        for view in range(done // count, views):
            loader = torch.utils.data.DataLoader(
                Views(dataset, recipe.augment, recipe.data.seed, view),
                batch_size=16,
                sampler=range(done % count, count),
                num_workers=int(count >= WORTH_A_PROCESS),  # draws while the network runs
                generator=torch.Generator(),  # leaves the training's generator alone
                worker_init_fn=ignore,
            )
            for images, labels in loader:
                images = images.to(model.device)
                pixels = model.normalise(images).contiguous(memory_format=torch.channels_last)
                found = model.backbone.stem(pixels)
                small = resize(images, found.low.shape[-2:])
                maps = (t.permute(0, 2, 3, 1) for t in (found.low, found.high, small))
                values = [t.cpu().numpy() for t in (*maps, labels)]
                if not arrays:
                    arrays += [
                        np.lib.format.open_memmap(
                            file, "w+", np.float16, (views * count, *value.shape[1:])
                        )
                        for file, value in zip(files, values, strict=True)
                    ]
                for array, value in zip(arrays, values, strict=True):
                    array[done : done + len(labels)] = value
                done += len(labels)
                bar.update(len(labels))
                if time.perf_counter() - saved > SECONDS:
                    save()
                    saved = time.perf_counter()
    save()
