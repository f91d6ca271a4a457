"""Tables of records: means with intervals, effects, the paper's numbers; as text or live."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from ..settings import SettingsError
from .ablations import AXES, PAPER, PAPER_TABLE3, Lines, effects, frame, groups, read
from .experiments import Experiment

FORMS = ("markdown", "latex", "html", "csv")
HOME = Path("runs") / "experiments"


def table(
    lines: Lines,
    *,
    measures: Sequence[str] = (),
    along: str = "row",
    baseline: str = "",
    form: str = "markdown",
) -> str:
    """All tables of some lines: for each group its means, and the effects on each measure.

    along: the axis whose values are the rows of a table; see `ablations.groups`, also for the
    errors. baseline: the row that gains count from. measures: by default mIoU, where there is any.
    form: one of FORMS; csv is the tidy frame.
    """
    if not lines:
        raise SettingsError("there are no records to make a table of")
    parts = groups(lines, along)
    if form == "csv":
        return frame(lines).to_csv(index=False)
    known = dict.fromkeys(str(line[along]) for line in lines)
    if baseline and baseline not in known:
        raise SettingsError(f"baseline: no {along} {baseline!r}; known: {', '.join(known)}")
    measures = measures or ("mIoU",) * any("mIoU" in line for line in lines)
    if unknown := [m for m in measures if not any(m in line for line in lines)]:
        raise SettingsError(f"measures: {unknown[0]!r} is in no record")
    texts = []
    for place, members in parts.items():
        first = members[0]
        about = [place, str(first["protocol"]), str(first["data"]).split(",")[0]]
        if (versions := len({line.get("code", "") for line in members})) > 1:
            about.append(f"made by {versions} versions of the package")
        texts.append(_caption("; ".join(filter(None, about)), form))
        texts += [_written(_effects(members, m, along, baseline), form) for m in measures]
        texts.append(_written(_means(members, along, measures), form))
    return "\n\n".join(texts)


def _effects(lines: Lines, measure: str, along: str, baseline: str) -> pd.DataFrame:
    """The effects as texts."""
    found = effects(lines, baseline, measure, along)
    shown = pd.DataFrame({"seeds": found["seeds"].astype(str)})
    spread = found["sd"].map(lambda v: "" if np.isnan(v) else f" ± {v:.2f}")
    shown[measure] = found[measure].map("{:.2f}".format) + spread
    shown["95 %"] = [_ends(a, b, "") for a, b in found[["low", "high"]].to_numpy()]
    if "gain" not in found:
        return shown
    shown["gain"] = found["gain"].map(_signed)
    for kind in ("seeds", "images"):
        if f"{kind} low" in found:
            ends = found[[f"{kind} low", f"{kind} high"]].to_numpy()
            shown[f"95 % over {kind}"] = [_ends(a, b, "+") for a, b in ends]
    if found["paper"].notna().any():
        paper = PAPER | PAPER_TABLE3
        shown["paper"] = [f"{paper[row][0]:.2f}" if row in paper else "" for row in shown.index]
        shown["paper's gain"] = found["paper"].map(_signed)
    return shown


def _means(lines: Lines, along: str, shown: Sequence[str]) -> pd.DataFrame:
    """Means over the seeds of all other numbers as texts."""
    values = frame(lines)
    own = {*AXES, "seed", *shown, *(name for line in lines for name in line.get("at", ()))}
    numbers = values.drop(columns=[n for n in values if n in own]).select_dtypes("number")
    means = numbers.groupby(values[along].map(str), sort=False).mean().dropna(axis=1, how="all")
    return means.rename_axis(None).map(lambda v: "" if np.isnan(v) else f"{v:.2f}")


def _signed(value: float) -> str:
    return "" if np.isnan(value) else f"{value:+.2f}"


def _ends(low: float, high: float, sign: str) -> str:
    """An interval; of a gain also where it lies."""
    if np.isnan(low):
        return ""
    where = "above 0" if low > 0 else "below 0" if high < 0 else "contains 0"
    return f"{low:{sign}.2f} to {high:{sign}.2f}" + (f", {where}" if sign else "")


def _caption(text: str, form: str) -> str:
    return {"latex": f"% {text}", "html": f"<p>{escape(text)}</p>"}.get(form, text)


def _written(shown: pd.DataFrame, form: str) -> str:
    shown = shown.fillna("")
    if form == "latex":
        return shown.to_latex(escape=True)
    if form == "html":
        return shown.to_html()
    if form != "markdown":
        raise SettingsError(f"form: {form!r}; known: {', '.join(FORMS)}")
    cells = shown.reset_index(names="")
    lines = [cells.columns, ["---"] * len(cells.columns), *cells.to_numpy()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def live(experiment: Experiment, folder: str | Path = "", every: float = 10.0) -> None:
    """In a notebook: the table of a sweep that runs elsewhere, drawn anew until it is complete."""
    from IPython.display import HTML, display

    folder = Path(folder or HOME / experiment.name)
    wanted, place = len(experiment.runs()), display(HTML(""), display_id=True)
    while True:
        lines = read(folder)
        done = len({(str(line["at"]), line["row"], line["seed"]) for line in lines})
        there = experiment.baseline in {str(line.get(experiment.along)) for line in lines}
        shown = experiment if there else experiment.change({"baseline": ""})
        text = table_of(shown, lines, "html") if lines else ""
        place.update(HTML(f"<p>{done} of {wanted} runs</p>{text}"))
        if done >= wanted:
            return
        time.sleep(every)


def table_of(experiment: Experiment, lines: Lines, form: str = "markdown") -> str:
    """The tables that an experiment declares."""
    return table(
        lines,
        measures=experiment.measures,
        along=experiment.along,
        baseline=experiment.baseline,
        form=form,
    )
