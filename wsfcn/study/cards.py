"""The facts in docs/models.md, from the headers of the networks that the package carries.

`python -m wsfcn.study.cards` writes them between the marks of the page: what a network was made
of and what it scored cannot go stale there. What to make of it is written by hand.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from ..build import SHIPPED, load, recipe_in, shipped
from ..files import write_all
from ..model.network import count_parameters
from ..recipes import Recipe
from ..score import Score
from ..weights import WeightsError, read_safetensors

PAGE = Path(__file__).parents[2] / "docs/models.md"
FACTS = re.compile(r"(<!-- facts of ([\w -]+) -->\n).*?(<!-- end of facts -->)", re.DOTALL)
OTHERS = "the others"


def filled(page: str) -> str:
    """The page with the facts of today between its marks: a table for each network that has a
    card, a row for each that has none. Raises WeightsError for a card of no shipped network."""
    named = [name for _, name, _ in FACTS.findall(page)]
    head = ["| name | context, fusion | mIoU | MB | sha256 |", "| :-- | :-- | --: | --: | :-- |"]
    rows = "\n".join([*head, *(_row(name) for name in shipped() if name not in named)])

    def facts(mark: re.Match[str]) -> str:
        return f"{mark[1]}{rows if mark[2] == OTHERS else card(mark[2])}\n{mark[3]}"

    return FACTS.sub(facts, page)


def card(name: str) -> str:
    """The facts of a shipped network as a Markdown table."""
    recipe, classes, made, score, file = _read(name)
    parameters = count_parameters(load(name)) / 1e6
    rates = {"mIoU": score.mean_iou, "PixAcc": score.pixel_accuracy}
    rates |= {"boundary IoU": score.boundary_iou}
    rates |= {f"{size} objects": rate for size, rate in score.size_iou.items()}
    worked = f"longest side {score.size} px; " * (not score.protocol.longest)
    model = recipe.model
    entries = {
        "file": f"`{file.name}`, {_megabytes(file)} MB, sha256 `{_sha256(file)}`",
        "made by": f"wsfcn {made.get('version', '?')}, seed {made.get('seed', '?')}",
        "classes": ", ".join(classes),
        "trained on": _data(recipe),
        "taught by": "exact masks" if recipe.weak.supervision == "masks" else "image labels alone",
        "network": f"{model.backbone}, {model.context}, {model.fusion}; "
        f"{parameters:.2f} M parameters trained",
        "schedule": f"crops of {recipe.augment.crop} px, {recipe.train.epochs} epochs, "
        f"{recipe.train.warmup_epochs} of them warm-up",
        "protocol": f"{score.protocol.describe()}; {worked}{score.images} images",
        "scores, %": ", ".join(f"{n} {100 * v:.1f}" for n, v in rates.items()),
        "IoU by class, %": ", ".join(f"{n} {100 * v:.1f}" for n, v in score.per_class.items()),
    }
    rows = (f"| {title} | {text} |" for title, text in entries.items())
    return "\n".join(["| fact | of the file |", "| :-- | :-- |", *rows])


def _data(recipe: Recipe) -> str:
    data = recipe.data
    if data.kind == "scenes":
        return f"{data.train} emoji scenes of {data.scenes.size} px, seed {data.seed}"
    some = f", {data.train} of them" if data.train else ""
    others = "counts as background" if data.others == "background" else "is left out"
    return (
        f"photos laid out as {data.kind}, list `{data.train_split}`{some}; any other class {others}"
    )


def _row(name: str) -> str:
    recipe, _, _, score, file = _read(name)
    parts = f"{recipe.model.context}, {recipe.model.fusion}"
    return (
        f"| `{name}` | {parts} | {100 * score.mean_iou:.1f} | {_megabytes(file)} "
        f"| `{_sha256(file)}` |"
    )


def _read(name: str) -> tuple[Recipe, tuple[str, ...], dict[str, Any], Score, Path]:
    if name not in shipped():
        raise WeightsError(f"{PAGE}: {name}: no network of this name is shipped")
    file = SHIPPED / f"{name}.safetensors"
    header = read_safetensors(file)[1]
    recipe, classes = recipe_in(header, file)
    made = header["provenance"]
    return recipe, classes, made, Score.from_dict(made["score"]), file


def _megabytes(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.2f}"


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> int:
    """Write the facts into docs/models.md of this checkout."""
    page = filled(PAGE.read_text(encoding="utf-8"))
    print(*write_all(PAGE.parent, {PAGE.name: page.encode()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
