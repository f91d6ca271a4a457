"""The networks that the package carries: made, scored and written by one command.

`python -m wsfcn.study.shipped` trains what is not in the cache, checks what half precision costs
and writes wsfcn/shipped/*.safetensors, each with its scores in the header. The network for photos
needs `--data DIR`, the folder of its photos.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__, recipes
from ..build import SHIPPED, load, save
from ..data import build as build_data
from ..evaluate import evaluate
from ..features import Remembered
from ..recipes import Recipe
from .trained import trained

# Variants of which the package carries the baseline and FCA.
VARIANTS: dict[str, dict[str, Any]] = {
    "cooccurring": {"name": "lite_scenes/co_occurrence=1.0", "data.scenes.co_occurrence": 1.0},
    "unnormalised": {"name": "lite_scenes/norms=initial", "model.context_norms": "initial"},
}


def scene_networks(base: Recipe | None = None) -> dict[str, Recipe]:
    """Name -> recipe: WS-FCN and the other rows of Table I on scenes; two that were trained where
    every class comes with its own ground, two whose context is not normalised."""
    base = base or recipes.lite_scenes()
    rows = {f"lite-scenes-{row}": recipe for row, recipe in recipes.table1(base).items()}
    rows = {"lite-scenes": base} | {n: r for n, r in rows.items() if r.model != base.model}
    for variant, changes in VARIANTS.items():
        own = recipes.table1(base.change(changes))
        rows |= {f"lite-scenes-{row}-{variant}": own[row] for row in ("baseline", "fca")}
    return rows


def photo_network(data: str) -> Recipe:
    """WS-FCN on the photos of a folder with the lists trainaug_large and val, in bfloat16."""
    return recipes.lite_voc().change({"data.root": data, "train.precision": "bf16-mixed"})


def ship(name: str, recipe: Recipe, folder: Path = SHIPPED, progress: bool = True) -> str:
    """Train, score, write `folder`/name.safetensors; a line that says what half precision cost.

    Raises ValueError, and writes nothing, where it cost 0.1 mIoU or more.
    """
    result = trained(recipe, progress=progress)
    result.model.recipe = recipe.change({"data.root": ""})  # where photos lay helps nobody
    path = folder / f"{name}.safetensors"
    made = {"version": __version__, "score": result.score.to_dict(), "seed": recipe.train.seed}
    part = folder / f".{name}.part.safetensors"
    try:
        save(result.model, part, made, compact=True)
        half = evaluate(Remembered(load(part)), build_data(recipe.data)[1], progress=progress)
        cost = 100 * (result.score.mean_iou - half.mean_iou)
        if cost >= 0.1:
            raise ValueError(f"{name}: half precision costs {cost:.2f} mIoU; not written")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    size = path.stat().st_size / 1e6
    return f"{name}: mIoU {100 * half.mean_iou:.2f} ({-cost:+.3f} by half precision), {size:.2f} MB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the shipped networks."""
    parser = argparse.ArgumentParser(description="Train and write the networks of the package.")
    parser.add_argument("names", nargs="*", help="which; by default all that there are data for")
    parser.add_argument("--data", help="folder of the photos of lite-voc")
    given, known = parser.parse_args(arguments), scene_networks()
    chosen = given.names
    if given.data:
        known["lite-voc"] = photo_network(str(Path(given.data).absolute()))
    elif "lite-voc" in chosen:
        parser.error("lite-voc: needs --data, the folder of its photos")
    if unknown := set(chosen) - set(known):
        parser.error(f"{', '.join(sorted(unknown))}: unknown; known: {', '.join(known)}")
    for name in chosen or known:
        print(ship(name, known[name]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
