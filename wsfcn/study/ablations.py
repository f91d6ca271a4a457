"""Ablations over seeds: rows trained and scored, effects with intervals, the paper's beside them.

`python -m wsfcn.study.ablations --table 1 --seeds 0 1 2 --out docs/scores/table1.json` trains what
is not in the cache, scores what is not in the file, and prints tables of Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from .. import recipes
from ..data import build_split, scored
from ..data.check import layout_of
from ..data.sample import Dataset
from ..evaluate import evaluate, segmented
from ..files import write_all
from ..metrics import Tally
from ..model.network import Network, count_parameters
from ..predict import settled
from ..protocols import Protocol
from ..recipes import Data, Recipe
from ..settings import SettingsError
from .cam_floor import cam_floor
from .provenance import environment
from .trained import run_folder, trained

# The paper's mIoU and PixAcc on VOC 2012 val, Tables I to III; I and II share rows.
PAPER = {
    "baseline": (58.38, 87.58),
    "mclm": (59.71, 88.41),
    "fca": (60.13, 88.55),
    "sf2": (59.45, 89.00),
    "full": (60.68, 89.32),
    "non_local": (53.82, 86.12),
    "large_conv": (54.85, 86.95),
    "ppm": (56.32, 87.30),
    "sum": (56.45, 87.78),
    "concat": (55.20, 87.10),
    "multiply": (57.11, 87.91),
}
PAPER_TABLE3 = {
    "single scale": (59.92, 89.14),
    "flip": (60.68, 89.32),
    "multi-scale": (61.13, 89.41),
    "multi-scale + flip": (61.57, 89.54),
}
# mIoU with classes found by the network, and with image labels given: Table IV, and for the
# baseline what its own authors publish.
PAPER_LABELS = {
    "no CRF": {"baseline": (59.70, 63.4), "full": (61.57, 64.02)},
    "with CRF": {"baseline": (62.70, 65.3), "full": (63.23, 65.02)},
}
Runs = Sequence[Mapping[str, Any]]
Values = NDArray[np.float64]


def rows_of(table: int, base: Recipe) -> dict[str, Recipe]:
    """The rows of Table I or II, baseline first."""
    first = recipes.table1(base)
    return first if table == 1 else {"baseline": first["baseline"]} | recipes.table2(base)


def photos(folder: str | Path, model: Network) -> Dataset:
    """The validation photos with masks of a folder, in any layout that `data` reads."""
    kind = layout_of(Path(folder))
    labels = "csv" if kind == "folder" else "masks"
    settings = Data(kind=kind, root=str(folder), labels=labels, classes=model.classes, val=0)
    return scored(build_split(settings, "val"))


def measure(
    model: Network,
    data: Dataset,
    protocol: Protocol | None = None,
    limit: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Rates in percent, None where there are none, the protocol, and `counts`.

    counts: image -> [class, hits, union, class, ...] in pixels, of all classes that occur in it.
    """
    split = str(getattr(data, "split", ""))
    protocol = settled((protocol or model.recipe.protocol).change({"split": split}))
    tally, counts = Tally(len(model.classes) + 1), {}
    options: dict[str, Any] = {"limit": limit, "progress": progress, "masks": True}
    for sample, found in segmented(model, data, protocol, **options):
        before = tally.confusion.matrix.copy()
        tally.update(found.labels, np.asarray(sample.mask))
        own = tally.confusion.matrix - before
        hits = own.diagonal()
        union = own.sum(0) + own.sum(1) - hits
        seen = np.flatnonzero(union)
        counts[sample.id] = np.stack([seen, hits[seen], union[seen]], 1).ravel().tolist()
    whole = tally.confusion
    rates = {"mIoU": whole.mean_iou, "PixAcc": whole.pixel_accuracy}
    rates |= {"boundary IoU": tally.boundary_iou} | tally.size_iou
    values = {name: None if np.isnan(v) else round(100 * v, 4) for name, v in rates.items()}
    about = {"protocol": protocol.describe(), "classes": len(model.classes) + 1}
    return {**values, **about, "counts": dict(sorted(counts.items()))}


def sweep(
    base: Recipe,
    rows: Mapping[str, Recipe],
    seeds: Sequence[int],
    out: Path,
    finished: bool = False,
    floor: bool = False,
) -> dict[str, Any]:
    """Train (or read back) and score every row and seed; `out` is written after each.

    What `out` has is not done again. finished: leave out what is not trained yet. floor: also the
    best-threshold CAM of each seed. Raises SettingsError where `out` was made with other data,
    another protocol or other settings than `base`, naming them.
    """
    told = base.change({"train.seed": 0, "data.root": Path(base.data.root).name})
    about = {"recipe": told.model_dump(mode="json"), "environment": environment()}
    records: dict[str, Any] = {"about": about, "floor": {}, "runs": []}
    if out.exists():
        records = read(out)
        kept, own = (pd.json_normalize(a["recipe"]).iloc[0] for a in (records["about"], about))
        if reasons := [
            f"{n}: {kept.get(n)} and {own[n]}" for n in own.index if kept.get(n) != own[n]
        ]:
            raise SettingsError(f"{out}: was made differently: {'; '.join(reasons)}")
    there = {(run["row"], run["seed"]) for run in records["runs"]}
    given = base.protocol.change({"name": "labels given", "image_labels": True})
    for seed in seeds:
        for row, recipe in rows.items():
            recipe = recipe.change({"train.seed": seed})
            same = recipe.change({"name": base.name}) if recipe.model == base.model else recipe
            done = [r for r in (recipe, same) if (run_folder(r) / "score.json").exists()]
            if (row, seed) in there or (finished and not done):
                continue
            recipe = (done or [recipe])[0]  # the full network may be there under the base's name
            result = trained(recipe)
            val = scored(build_split(recipe.data, "val"))
            cost = {
                "parameters, M": count_parameters(result.model) / 1e6,
                "minutes": round(sum(r.get("seconds", 0) for r in result.rows) / 60, 4),
                "labels given": round(100 * evaluate(result.model, val, given).mean_iou, 4),
            }
            run = {"row": row, "seed": seed, **cost, **measure(result.model, val, progress=True)}
            records["runs"].append(run)
            _write(out, records)
        if floor and str(seed) not in records["floor"]:
            cam = cam_floor(base.change({"train.seed": seed}))
            records["floor"][str(seed)] = {c: round(100 * cam.best(c)[1], 4) for c in cam.curves}
            _write(out, records)
    return records


def _write(out: Path, records: Mapping[str, Any]) -> None:
    records["runs"].sort(key=lambda run: (run["seed"], [*PAPER].index(run["row"])))
    text = json.dumps(records, separators=(",", ":")).replace('{"row"', '\n{"row"')
    write_all(out.parent, {out.name: f"{text}\n".encode()})


def read(path: str | Path) -> dict[str, Any]:
    """The records of `sweep`. ValueError where the file holds something else."""
    try:
        records: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        _ = records["about"]["recipe"], records["floor"], [r["counts"] for r in records["runs"]]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: holds no records of ablations ({error})") from None
    return records


def frame(runs: Runs) -> pd.DataFrame:
    """Tidy, a line a run. SettingsError where they differ in protocol, classes or images."""
    for name, kinds in (
        ("protocol", {r["protocol"] for r in runs}),
        ("classes", {r["classes"] for r in runs}),
        ("images", {f"{len(r['counts'])} from {min(r['counts'])}" for r in runs}),
    ):
        if len(kinds) > 1:
            raise SettingsError(f"{name}: the runs have {' and '.join(map(str, kinds))}")
    kept = [
        {k: v for k, v in run.items() if k not in ("protocol", "classes", "counts")} for run in runs
    ]
    return pd.DataFrame(kept)


def gains(table: pd.DataFrame, column: str = "mIoU", baseline: str = "baseline") -> pd.DataFrame:
    """Row by seed: what a row scores above the baseline of the same seed, in points."""
    wide = table.pivot(index="row", columns="seed", values=column).reindex(table["row"].unique())
    return wide.drop(index=baseline) - wide.loc[baseline]


def interval(values: Sequence[float] | Values, level: float = 0.95) -> tuple[float, float, float]:
    """Mean, and the ends of Student's t interval; NaN ends for fewer than two values."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, np.nan, np.nan
    reach = stats.t.ppf(0.5 + level / 2, count - 1) * np.std(values, ddof=1) / count**0.5
    return mean, mean - reach, mean + reach


def counts_of(run: Mapping[str, Any]) -> Values:
    """(images, 2, N) of a run: hits and unions by class."""
    whole = np.zeros((len(run["counts"]), 2, run["classes"]))
    for image, found in zip(whole, run["counts"].values(), strict=True):
        image[:, found[::3]] = found[1::3], found[2::3]
    return whole


def mean_iou(counts: Values) -> Values:
    """mIoU in percent of summed counts (..., 2, N), over the classes that occur."""
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * np.nanmean(counts[..., 0, :] / counts[..., 1, :], -1))


def resampled(runs: Runs, draws: int = 1000, seed: int = 0) -> Values:
    """(draws,) mIoU in percent, mean of the runs, each on as many images drawn with replacement.

    Equal seeds draw equal images: the difference of two results is a paired bootstrap.
    """
    images = len(runs[0]["counts"])
    share = np.full(images, 1 / images)
    weights = np.random.default_rng(seed).multinomial(images, share, draws).astype(float)
    return np.mean([mean_iou(np.tensordot(weights, counts_of(r), 1)) for r in runs], axis=0)


def effects(runs: Runs, baseline: str = "baseline") -> pd.DataFrame:
    """By row: mIoU over seeds, gain over the baseline, its 95 % intervals over seeds (Student's
    t, paired by seed) and over images (paired bootstrap), the paper's gain."""
    table = frame(runs)
    gained, result = gains(table, baseline=baseline), {}
    for row, scores in table.groupby("row", sort=False)["mIoU"]:
        line = {"seeds": len(scores), "mIoU": scores.mean(), "sd": scores.std()}
        if row != baseline:
            both = gained.loc[row].dropna()
            line |= dict(zip(("gain", "seeds low", "seeds high"), interval(both), strict=True))
            rows = [
                [r for r in runs if r["row"] == n and r["seed"] in both] for n in (row, baseline)
            ]
            ends = np.percentile(resampled(rows[0]) - resampled(rows[1]), [2.5, 97.5])
            line |= {"images low": ends[0], "images high": ends[1]}
            line["paper"] = (
                PAPER[row][0] - PAPER[baseline][0] if {row, baseline} <= {*PAPER} else np.nan
            )
        result[row] = line
    return pd.DataFrame.from_dict(result, orient="index")


def markdown(records: Mapping[str, Any]) -> str:
    """Rows with their intervals, then every run, then the CAM of each seed."""
    table = frame(records["runs"])
    means = table.groupby("row")[["PixAcc", "boundary IoU", "labels given", "parameters, M"]].mean()
    tables = [effects(records["runs"]).join(means), table.set_index("row")]
    tables += [pd.DataFrame(records["floor"]).T] * bool(records["floor"])
    texts = [records["runs"][0]["protocol"]]
    for values in tables:
        shown = values.map(lambda v: f"{v:.2f}" if isinstance(v, float) else str(v)).reset_index()
        lines = [shown.columns, ["---"] * len(shown.columns), *shown.to_numpy()]
        texts.append("\n".join(f"| {' | '.join(line)} |".replace("nan", "") for line in lines))
    return "\n\n".join(texts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, score, print."""
    parser = argparse.ArgumentParser(prog="python -m wsfcn.study.ablations", description=__doc__)
    parser.add_argument("--table", type=int, choices=(1, 2), default=1)
    parser.add_argument("--rows", nargs="+", help="only these rows and the baseline")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default="lite_scenes", help="a function of wsfcn.recipes")
    parser.add_argument("--changes", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--finished", action="store_true", help="train nothing")
    parser.add_argument("--floor", action="store_true", help="also the best-threshold CAM")
    parser.add_argument("--out", type=Path, required=True, help="the records, JSON")
    options = parser.parse_args(arguments)
    base = getattr(recipes, options.recipe)()
    for text in options.changes:
        name, _, value = text.partition("=")
        short = f"{base.name}/{name.split('.')[-1]}={value.removesuffix('.0')}"
        base = base.change({"name": short, name: json.loads(value)})
    rows = rows_of(options.table, base)
    if unknown := {*(options.rows or ())} - {*rows}:
        parser.error(f"--rows: {', '.join(sorted(unknown))} unknown; known: {', '.join(rows)}")
    wanted = {"baseline", *(options.rows or rows)}
    rows = {n: r for n, r in rows.items() if n in wanted}
    records = sweep(base, rows, options.seeds, options.out, options.finished, options.floor)
    print(markdown(records) if records["runs"] else "nothing is trained yet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
