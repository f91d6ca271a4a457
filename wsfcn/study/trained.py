"""The network that the notebooks look at: trained once a recipe, then read back."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import recipes
from ..data import build as build_data
from ..data.sample import Dataset
from ..features import cache_folder
from ..files import check_output_folder, write_all
from ..model.network import Network
from ..predict import predict
from ..recipes import Recipe
from ..train import EpochHook, StepHook, TrainingResult, train

PROFILES = {"smoke": recipes.smoke_scenes, "laptop": recipes.lite_scenes}


def recipe_of(profile: str, seed: int = 0) -> Recipe:
    """The scenes recipe of a profile ("smoke" or "laptop") with a training seed."""
    if profile not in PROFILES:
        raise ValueError(f"profile: {profile!r} has no scenes recipe; known: {', '.join(PROFILES)}")
    return PROFILES[profile]().change({"train.seed": seed})


@dataclass(frozen=True)
class Film:
    """How the masks of a few validation images changed, epoch by epoch.

    images: (n, H, W, 3) uint8; masks: (n, H, W) uint8, exact; frames: (epochs, n, H, W) uint8
    label maps by one scale without flip.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    frames: NDArray[np.uint8]


def run_folder(recipe: Recipe) -> Path:
    """Where the training of a recipe is kept: a folder of the cache, named by its content.

    A folder that holds the same recipe under another name counts, as does one of an older version
    whose recipes had fewer settings: what it does not say is at its default.
    """
    runs = cache_folder() / "runs"
    key = hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()[:12]
    folder = runs / f"{recipe.name.replace('/', '-')}-{key}"
    if not folder.is_dir():
        found = sorted(file.parent for file in runs.glob("*/recipe.json"))
        for other in sorted(found, key=lambda place: not (place / "score.json").exists()):
            saved = _recipe_in(other)
            if saved is not None and saved.model_copy(update={"name": recipe.name}) == recipe:
                return other
    return folder


def _recipe_in(folder: Path) -> Recipe | None:
    """The recipe of a training, read with the settings of today."""
    try:
        return Recipe(**json.loads((folder / "recipe.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def alone(name: str) -> Iterator[None]:
    """One process at a time does what is named so; the others wait."""
    locks = check_output_folder(cache_folder() / "locks")
    locks.mkdir(parents=True, exist_ok=True)
    with open(locks / name, "w") as file:  # released by the system, also if the process is killed
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def trained(
    recipe: Recipe,
    *,
    on_epoch: EpochHook | None = None,
    on_step: StepHook | None = None,
    filmed: int = 6,
    progress: bool = True,
) -> TrainingResult:
    """Train a recipe, go on where a training was cut off, or read a finished one back.

    The masks of the first `filmed` validation images are kept for `film`, if they are of one size.
    """
    folder = run_folder(recipe)
    recipe = _recipe_in(folder) or recipe  # perhaps under another name

    def after(epoch: int, model: Network, rows: list[dict[str, Any]]) -> None:
        _expose(folder, epoch, model, datasets[1], filmed)
        if on_epoch is not None:
            on_epoch(epoch, model, rows)

    datasets = build_data(recipe.data)
    with alone(folder.name):
        return train(
            recipe,
            folder,
            datasets=datasets,
            resume=True,
            on_epoch=after,
            on_step=on_step,
            progress=progress,
        )


def film(recipe: Recipe) -> Film:
    """The frames kept by `trained`. Raises FileNotFoundError where the recipe was not trained."""
    paths = sorted((run_folder(recipe) / "film").glob("epoch-*.npy"))
    if not paths:
        raise FileNotFoundError(f"{run_folder(recipe)}: no frames; call trained(recipe) first")
    frames = np.stack([np.load(p) for p in paths])
    val = build_data(recipe.data)[1]
    samples = [val[i] for i in range(frames.shape[1])]
    masks = [s.mask for s in samples if s.mask is not None]
    return Film(np.stack([s.image for s in samples]), np.stack(masks), frames)


def _expose(folder: Path, epoch: int, model: Network, val: Dataset, count: int) -> None:
    images = [val[i].image for i in range(min(count, len(val)))]
    if len({image.shape for image in images}) != 1:
        return  # photos of several sizes make no film
    quick = model.recipe.protocol.change({"name": "film", "flip": False, "scales": (1.0,)})
    frame = np.stack([s.labels for s in predict(model, images, quick)])
    buffer = io.BytesIO()
    np.save(buffer, frame)
    write_all(folder / "film", {f"epoch-{epoch:03d}.npy": buffer.getvalue()})
