"""A recipe over several seeds: trained network, image labels given, best-threshold CAM.

`python -m wsfcn.study.seeds --seeds 0 1 2` trains what is not in the cache yet and prints the
table of docs/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

from ..build import load
from ..data import build as build_data
from ..evaluate import evaluate
from ..protocols import given_image_labels
from .cam_floor import cam_floor
from .trained import recipe_of, run_folder, trained

COLUMNS = (
    "WS-FCN mIoU",
    "WS-FCN PixAcc",
    "WS-FCN mIoU, labels given",
    "best CAM mIoU",
    "best CAM mIoU, labels given",
)


def seeds_table(profile: str, seeds: Sequence[int], progress: bool = True) -> str:
    """A Markdown table in percent, one row a seed, then mean and standard deviation."""
    rows = []
    for seed in seeds:
        recipe = recipe_of(profile, seed)
        score = trained(recipe, progress=progress).score
        model = load(run_folder(recipe) / "model.safetensors")
        given = evaluate(model, build_data(recipe.data)[1], given_image_labels(), progress=progress)
        floor = cam_floor(recipe, progress=progress)
        values = (
            score.mean_iou,
            score.pixel_accuracy,
            given.mean_iou,
            floor.best("class filter")[1],
            floor.best("image labels given")[1],
        )
        rows.append([100 * v for v in values])
    lines = [f"| seed | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [_line(str(seed), row) for seed, row in zip(seeds, rows, strict=True)]
    columns = list(zip(*rows, strict=True))
    lines.append(_line("mean", [statistics.fmean(c) for c in columns]))
    if len(rows) > 1:
        lines.append(_line("sd", [statistics.stdev(c) for c in columns]))
    return "\n".join(lines)


def _line(name: str, values: Sequence[float]) -> str:
    return f"| {name} | {' | '.join(f'{v:.1f}' for v in values)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of a profile over seeds."""
    parser = argparse.ArgumentParser(description="Train and score a recipe over several seeds.")
    parser.add_argument("--profile", default="laptop", choices=("smoke", "laptop"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(arguments)
    print(seeds_table(options.profile, options.seeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
