"""Tables: numbers and words of their cells, in every form; a live one."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from wsfcn.cli import main
from wsfcn.settings import SettingsError
from wsfcn.show.figures import ShownFigure
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


def test_the_command_makes_tables_of_folders_files_and_bundles(folder, tmp_path, capsys):
    assert main(["table", str(folder), "--bundle", str(tmp_path / "all.json")]) == 0
    printed = capsys.readouterr().out
    assert "+2.52 to +7.48, above 0" in printed
    assert main(["table", str(tmp_path / "all.json"), "--out", str(tmp_path / "t.md")]) == 0
    assert (tmp_path / "t.md").read_text() == printed and not capsys.readouterr().out
    two = [str(path) for path in folder.glob("*s0-*.json")]
    assert main(["table", *two, "--format", "csv", "--baseline", "sf2"]) == 0
    assert len(pd.read_csv(io.StringIO(capsys.readouterr().out))) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{}", "--baseline", "fca"], "baseline: no row 'fca'; known: baseline, sf2"),
        (["{}", "--along", "size"], "along: 'size' is no axis of these records; known: row, score"),
        (["{}", "--measures", "mIou"], "measures: 'mIou' is in no record"),
        (["{}", "--scores", "uusal"], "there are no records"),
        (["{}/none.json"], "none.json: No such file or directory"),
        (["{}/bad.json"], "bad.json: holds no records of an experiment"),
        (["tabel1"], "tabel1: no such experiment; did you mean 'table1'"),
        (["{}", "--format", "word"], "--format"),
    ],
)
def test_wrong_arguments_of_the_command_are_one_line(folder, capsys, arguments, words):
    (folder / "bad.json").write_text("{}")
    assert main(["table", *(text.format(folder) for text in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_picture_has_the_gains_or_the_measures_along_the_grid(folder, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(ShownFigure, "savefig", lambda figure, *a, **k: drawn.append(figure))
    assert main(["table", str(folder), "--picture", str(tmp_path / "new" / "gains.png")]) == 0
    assert "sf2 +5.0" in drawn[0].alt and "o_dd <x> +0.0" in drawn[0].alt
    grid = {"train.learning_rate": (0.1, 0.2)}
    rows = {"baseline": {}, "sf2": {"model.width": 8}}
    scores = {"near": {}, "far": {"protocol": {"flip": False}}}
    made = {"name": "grid", "recipe": "smoke_scenes", "rows": rows, "grid": grid, "scores": scores}
    for run in Experiment(**made, seeds=(0, 1)).runs():
        record = record_of(run, 10 * run.at["train.learning_rate"] + run.seed)
        usual = record["scores"]["usual"]
        record["scores"] = {"near": usual, "far": usual | {"mIoU": usual["mIoU"] - 7}}
        write_record(tmp_path / "grid", record)
    assert main(["table", str(tmp_path / "grid"), "--picture", str(tmp_path / "grid.png")]) == 0
    assert "near, mIoU, sf2: 0.1 51.5, 0.2 52.5" in drawn[1].alt
    assert "far, mIoU, baseline: 0.1 44.5, 0.2 45.5" in drawn[1].alt
    assert [axes.get_title() for axes in drawn[1].axes] == ["mIoU, near", "mIoU, far"]
    [axes, _] = drawn[1].axes
    ends = (
        axes.containers[0].lines[1][0].get_ydata()[0],
        axes.containers[0].lines[1][1].get_ydata()[0],
    )
    assert ends == pytest.approx((51.5 - 6.353, 51.5 + 6.353), abs=1e-3)


def test_the_sweep_command_lists_its_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "two_problems", "--rows", "fca", "--seeds", "1", "--dry"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "baseline, co_occurrence 0.0, seed 1",
        "baseline, co_occurrence 0.5, seed 1",
        "baseline, co_occurrence 1.0, seed 1",
        "fca, co_occurrence 0.0, seed 1",
        "fca, co_occurrence 1.0, seed 1",
        "5 runs",
    ]
    for arguments, words in (
        (["table1", "--rows", "fcb"], "rows: no 'fcb'; did you mean 'fca'?"),
        (["table1", "--recipe", "lite_sceens"], "did you mean 'lite_scenes'"),
        (["table1_photos"], "data.root: nothing; voc needs the folder of its photos (--data)"),
        (["table1_photos", "--data", "none"], "none'; voc needs the folder of its photos"),
        (["table1", "--seeds", "x"], "--seeds"),
    ):
        assert main(["sweep", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert not [*tmp_path.iterdir()]
