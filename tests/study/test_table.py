"""Tables: numbers and words of their cells, in every form; a live one."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from wsfcn.settings import SettingsError
from wsfcn.study import table as module
from wsfcn.study.experiments import Experiment
from wsfcn.study.records import write_record
from wsfcn.study.table import table, table_of

PROTOCOL = "single: scales 1; no flip; class filter 0.1; no CRF"


def record_of(run, value):
    """A record whose images all have the same score."""
    counts = {f"{i}": [0, 50, 50, 1, int(value), 50] for i in range(4)}
    score = {"mIoU": 50 + value, "PixAcc": 80.0, "protocol": PROTOCOL, "classes": 2}
    score |= {"data": "4 images, 00", "counts": counts, "problems": {}}
    metrics = {"parameters, M": 0.5, "minutes": 2.0 + run.seed}
    about = {"seconds": {"whole": 9.0}, "code": {"package": "abc"}}
    return {
        "key": run.key,
        "run": run.told(),
        "scores": {"usual": score},
        "metrics": metrics,
    } | about


@pytest.fixture
def experiment():
    values = {"name": "tiny", "recipe": "smoke_scenes", "rows": ("baseline", "sf2", "odd")}
    rows = {"baseline": {}, "sf2": {"model.width": 8}, "o_dd <x>": {"model.width": 24}}
    return Experiment(**values | {"rows": rows, "seeds": (0, 1, 2), "scores": {"usual": {}}})


@pytest.fixture
def folder(experiment, tmp_path):
    scores = {"baseline": (10, 11, 12), "sf2": (14, 16, 18), "o_dd <x>": (10, 12, 11)}
    for run in experiment.runs():
        write_record(tmp_path, record_of(run, scores[run.row][run.seed]))
    return tmp_path


def test_a_table_says_means_gains_intervals_and_the_papers(experiment, folder):
    text = table_of(experiment, module.read(folder))
    caption, effects, means = text.split("\n\n")
    assert caption == f"score usual; {PROTOCOL}; 4 images"
    head, _, *rows = effects.splitlines()
    names = [cell.strip() for cell in head.strip("|").split("|")]
    cells = {}
    for row in rows:
        first, *others = (cell.strip() for cell in row.strip("|").split("|"))
        cells[first] = dict(zip(names[1:], others, strict=True))
    assert [*cells] == ["baseline", "sf2", "o_dd <x>"]
    assert cells["baseline"]["mIoU"] == "61.00 ± 1.00" and cells["baseline"]["gain"] == ""
    assert cells["baseline"]["95 %"] == "58.52 to 63.48"
    assert cells["sf2"]["gain"] == "+5.00" and cells["sf2"]["paper's gain"] == "+1.07"
    assert cells["sf2"]["95 % over seeds"] == "+2.52 to +7.48, above 0"
    assert cells["sf2"]["95 % over images"] == "+5.00 to +5.00, above 0"
    assert cells["o_dd <x>"]["95 % over seeds"] == "-2.48 to +2.48, contains 0"
    assert cells["o_dd <x>"]["paper"] == "" and cells["sf2"]["paper"] == "59.45"
    assert "| baseline | 0.50 | 3.00 | 80.00 |" in means and "minutes" in means


def test_every_form_holds_the_same_and_is_safe(experiment, folder):
    lines = module.read(folder)
    latex, html = (table_of(experiment, lines, form) for form in ("latex", "html"))
    assert r"\begin{tabular}" in latex and r"o\_dd" in latex and "+2.52 to +7.48" in latex
    assert latex.startswith("% score usual")
    assert "<table" in html and "o_dd &lt;x&gt;" in html and "o_dd <x>" not in html
    tidy = pd.read_csv(io.StringIO(table_of(experiment, lines, "csv")))
    assert len(tidy) == 9 and {"row", "seed", "score", "mIoU", "minutes"} <= {*tidy}
    assert tidy.groupby("row")["mIoU"].mean()["sf2"] == 66
    assert "counts" not in tidy and "made" not in tidy


def test_what_cannot_stand_together_is_refused_and_named(experiment, folder):
    lines = module.read(folder)
    other = [line | {"protocol": "with flip", "row": "x"} for line in lines[:1]]
    with pytest.raises(
        SettingsError, match=r"protocol: the records have .*no flip.* and with flip"
    ):
        table([*lines, *other])
    with pytest.raises(SettingsError, match="data: the records have 4 images, 00 and 5 images"):
        table([*lines, lines[0] | {"data": "5 images", "row": "x"}])
    with pytest.raises(SettingsError, match="baseline: no row 'fca'; known: baseline, sf2"):
        table(lines, baseline="fca")
    with pytest.raises(SettingsError, match="measures: 'mIuO' is in no record"):
        table(lines, measures=("mIuO",))
    with pytest.raises(SettingsError, match="no records"):
        table([])


def test_versions_of_the_package_are_counted(experiment, folder):
    lines = module.read(folder)
    assert "versions" not in table(lines)
    assert "made by 2 versions of the package" in table([lines[0] | {"code": "other"}, *lines[1:]])


def test_labels_that_are_given_are_not_beside_the_papers(experiment, folder):
    given = [line | {"protocol": "labels: image labels given"} for line in module.read(folder)]
    assert "paper" not in table(given)


def test_a_live_table_is_drawn_until_it_is_complete(experiment, folder, monkeypatch):
    files = sorted(folder.iterdir())
    away = {file: file.read_bytes() for file in files[4:]}
    for file in away:
        file.unlink()
    shown = []

    class Place:
        def update(self, html):
            shown.append(html.data)

    def sleep(_):
        for file, content in [*away.items()][: 3 * len(shown)]:
            file.write_bytes(content)

    monkeypatch.setattr("IPython.display.display", lambda *_, **__: Place())
    monkeypatch.setattr(module.time, "sleep", sleep)
    module.live(experiment, folder)
    assert [text.split(" runs")[0] for text in shown] == ["<p>4 of 9", "<p>7 of 9", "<p>9 of 9"]
    assert all("<table" in text for text in shown)
    np.testing.assert_equal(len(module.read(folder)), 9)
