"""What records say: effects with intervals over seeds and over images, the paper's beside them.

A line is one network under one protocol on one set of images, as `read` makes it of records:
`row`, `seed`, `score`, the settings of a grid, the measures, `protocol`, `classes`, `data`, and
the sums by image (see `measures.measure`). The columns of AXES and of the grid are its axes; an
effect is a difference along one of them while all others stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from ..data import build_split, scored
from ..data.check import layout_of
from ..data.sample import Dataset
from ..model.network import Network
from ..recipes import Data
from ..settings import SettingsError
from .measures import PROBLEMS
from .measures import measure as measure
from .records import records_of

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
AXES = ("row", "score")
BY_IMAGE = ("mIoU", *PROBLEMS)
"""Measures that are sums over images, so that images can be drawn again."""
_NO_COLUMN = ("at", "made", "changed", "protocol", "classes", "data", "counts", "problems", "code")
Line = Mapping[str, Any]
Lines = Sequence[Line]
Values = NDArray[np.float64]


def photos(folder: str | Path, model: Network) -> Dataset:
    """The validation photos with masks of a folder, in any layout that `data` reads."""
    kind = layout_of(Path(folder))
    labels = "csv" if kind == "folder" else "masks"
    made: dict[str, Any] = {"classes": model.classes, "others": model.recipe.data.others}
    settings = Data(kind=kind, root=str(folder), labels=labels, val=0, **made)
    return scored(build_split(settings, "val"))


def read(*paths: str | Path, score: str | None = None) -> list[dict[str, Any]]:
    """The lines of records: files of records or bundles, or folders of them; of one score if named.

    The rows of the paper come in its order. Raises ValueError where a file holds no records.
    """
    records = {record["key"]: record for path in paths for record in records_of(path)}
    lines = [line for record in records.values() for line in lines_of(record)]
    if score is not None:
        lines = [line for line in lines if line["score"] == score]
    known = [*PAPER, *PAPER_TABLE3]

    def place(line: Line) -> list[Any]:
        ranks = [known.index(line[a]) if line[a] in known else len(known) for a in AXES]
        numbers = [isinstance(v, (int, float)) for v in line["at"].values()]
        point = zip(numbers, line["at"].values(), strict=True)
        return [*ranks, [(n, v if n else 0, str(v)) for n, v in point], line["seed"]]

    return sorted(lines, key=place)


def lines_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each score of a record; of a notebook one, with its numbers."""
    run, code = record["run"], record.get("code", {}).get("package", "")
    made = pd.json_normalize(run["recipe"] or {"notebook": run["notebook"]}).iloc[0].to_dict()
    made = {k: v for k, v in made.items() if k not in ("name", "train.seed")}
    own = {"row": run["row"], "seed": run["seed"], "at": run["at"], **run["at"]}
    own |= {**record["metrics"], "made": made, "changed": run["changed"], "code": code}
    nothing = {"": {"protocol": "", "classes": 0, "data": "", "counts": {}, "problems": {}}}
    return [{**own, "score": n, **score} for n, score in (record["scores"] or nothing).items()]


def groups(lines: Lines, along: str = "row") -> dict[str, list[Line]]:
    """The lines that differ along one axis and in seed alone, by what the other axes say.

    Raises SettingsError where those of a group differ in anything else: protocol (unless along
    "score"), classes, images, settings of the recipe; or where one is there twice.
    """
    axes = dict.fromkeys([*AXES, *(name for line in lines for name in line.get("at", ()))])
    if along not in axes:
        raise SettingsError(
            f"along: {along!r} is no axis of these records; known: {', '.join(axes)}"
        )
    found: dict[str, list[Line]] = {}
    for line in lines:
        there = {axis: line[axis] for axis in axes if axis != along and line.get(axis, "") != ""}
        place = ", ".join(f"{axis.split('.')[-1]} {value}" for axis, value in there.items())
        found.setdefault(place, []).append(line)
    for place, members in found.items():
        _check_alike(members, along, place)
    return found


def _check_alike(lines: Lines, along: str, place: str) -> None:
    where = f"{place}: " if place else ""
    for name in ("protocol", "classes", "data"):
        kinds = dict.fromkeys(str(line[name]) for line in lines)
        if len(kinds) > 1 and (name, along) != ("protocol", "score"):
            raise SettingsError(
                f"{where}{name}: the records have {' and '.join(kinds)}; one table holds one"
            )
    free = {name for line in lines for name in line.get("changed", ())}
    first = lines[0].get("made", {})
    for line in lines:
        made = line.get("made", first)
        if differing := [
            f"{n} {first.get(n)} and {made.get(n)}"
            for n in sorted({*first, *made} - free)
            if first.get(n) != made.get(n)
        ]:
            raise SettingsError(f"{where}made with other settings: {'; '.join(differing)}")
    places = [(str(line.get(along, "")), line["seed"]) for line in lines]
    if twice := [p for p in places if places.count(p) > 1]:
        raise SettingsError(f"{where}{twice[0][0]}, seed {twice[0][1]}: there are two records")


def frame(lines: Lines) -> pd.DataFrame:
    """Tidy, a line a run and score. SettingsError as `groups` where lines cannot stand together."""
    groups([{"score": "", **line} for line in lines])
    return pd.DataFrame([{k: v for k, v in line.items() if k not in _NO_COLUMN} for line in lines])


def gains(
    table: pd.DataFrame, column: str = "mIoU", baseline: str = "baseline", along: str = "row"
) -> pd.DataFrame:
    """Row by seed: what a row scores above the baseline of the same seed, in points."""
    wide = table.pivot(index=along, columns="seed", values=column).reindex(table[along].unique())
    return wide.drop(index=baseline) - wide.loc[baseline]


def interval(values: Sequence[float] | Values, level: float = 0.95) -> tuple[float, float, float]:
    """Mean, and the ends of Student's t interval; NaN ends for fewer than two values."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, np.nan, np.nan
    reach = stats.t.ppf(0.5 + level / 2, count - 1) * np.std(values, ddof=1) / count**0.5
    return mean, mean - reach, mean + reach


def counts_of(line: Line, measure: str = "mIoU") -> Values:
    """(images, 2, N): numerators and denominators of a measure of BY_IMAGE; N classes, or 1."""
    if measure != "mIoU":
        at = 2 * PROBLEMS.index(measure)
        return np.array([[sums[at : at + 2]] for sums in line["problems"].values()]).swapaxes(1, 2)
    whole = np.zeros((len(line["counts"]), 2, line["classes"]))
    for image, found in zip(whole, line["counts"].values(), strict=True):
        image[:, found[::3]] = found[1::3], found[2::3]
    return whole


def mean_iou(counts: Values) -> Values:
    """Percent, of summed counts (..., 2, N); the mean over the classes that occur."""
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * np.nanmean(counts[..., 0, :] / counts[..., 1, :], -1))


def resampled(lines: Lines, draws: int = 1000, seed: int = 0, measure: str = "mIoU") -> Values:
    """(draws,) a measure in percent, mean of the lines, on as many images drawn with replacement.

    Equal seeds draw equal images: the difference of two results is a paired bootstrap.
    """
    counts = [counts_of(line, measure) for line in lines]
    images = len(counts[0])
    share = np.full(images, 1 / images)
    weights = np.random.default_rng(seed).multinomial(images, share, draws).astype(float)
    return np.mean([mean_iou(np.tensordot(weights, c, 1)) for c in counts], axis=0)


def effects(
    lines: Lines, baseline: str = "", measure: str = "mIoU", along: str = "row"
) -> pd.DataFrame:
    """By row of one group: the measure over seeds with its 95 % interval, the gain over the
    baseline, its 95 % intervals over seeds (Student's t, paired by seed) and over images (paired
    bootstrap), the paper's gain.

    baseline: by default the row "baseline", or else the first; where the group has none of this
    name there are no gains. Values of a grid count as texts.
    """
    lines = [{**line, along: str(line[along])} for line in lines]
    names = list(dict.fromkeys(line[along] for line in lines))
    baseline = baseline or ("baseline" if "baseline" in names else names[0])
    values = pd.DataFrame({k: [line.get(k) for line in lines] for k in (along, "seed", measure)})
    values = values.dropna(subset=measure)
    there = baseline in set(values[along])
    gained, result = gains(values, measure, baseline, along) if there else None, {}
    paper, given = PAPER | PAPER_TABLE3, "image labels given" in lines[0]["protocol"]
    for name, scores in values.groupby(along, sort=False)[measure]:
        mean, low, high = interval(scores)
        told = {"seeds": len(scores), measure: mean, "sd": scores.std(), "low": low, "high": high}
        if gained is not None and name != baseline:
            both = gained.loc[name].dropna()
            told |= dict(zip(("gain", "seeds low", "seeds high"), interval(both), strict=True))
            sums = "counts" if measure == "mIoU" else "problems"  # a bundle may lack the latter
            if measure in BY_IMAGE and len(both) and all(line.get(sums) for line in lines):
                pair = [
                    resampled(
                        [x for x in lines if x[along] == n and x["seed"] in both], measure=measure
                    )
                    for n in (name, baseline)
                ]
                ends = np.percentile(pair[0] - pair[1], [2.5, 97.5])
                told |= {"images low": ends[0], "images high": ends[1]}
            known = measure == "mIoU" and not given and {name, baseline} <= {*paper}
            told["paper"] = paper[name][0] - paper[baseline][0] if known else np.nan
        result[name] = told
    return pd.DataFrame.from_dict(result, orient="index")
