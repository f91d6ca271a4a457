"""Declarations: what they expand to, what keys follow, what is refused before anything runs."""

from __future__ import annotations

import json

import pytest

from wsfcn import recipes
from wsfcn.settings import SettingsError
from wsfcn.study.experiments import Experiment, Run, Scoring
from wsfcn.study.records import bundle, records_of, write_record
from wsfcn.study.sources import FOLDER

DECLARED = sorted((FOLDER.parent / "experiments").glob("*.yml"))


@pytest.fixture
def declare(tmp_path):
    """declare(text, name) -> the path of a declaration."""

    def write(text, name="mine"):
        path = tmp_path / f"{name}.yml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("path", DECLARED, ids=lambda path: path.stem)
def test_each_declared_experiment_can_be_run(path):
    experiment = Experiment.read(path)
    runs = experiment.runs()
    assert experiment.name == path.stem and experiment.about
    assert len({run.key for run in runs}) == len(runs) > 0
    for run in runs:
        for scoring in run.scores.values():
            scoring.protocol_of(run.recipe)
    small = Experiment.read(path, {"recipe": "smoke_scenes"})
    assert len(small.runs()) == len(runs)


def test_the_tables_of_the_paper_are_declared():
    rows = {e: {run.row for run in Experiment.read(e).runs()} for e in ("table1", "table2")}
    assert rows["table1"] == {*recipes.table1()}
    assert rows["table2"] == {"baseline", *recipes.table2()}
    third = Experiment.read("table3").runs()[0]
    assert [*third.scores] == ["single scale", "flip", "multi-scale", "multi-scale + flip"]
    assert third.scores["multi-scale"].protocol_of(third.recipe).scales == (1.0, 0.5, 1.5, 2.0)
    base = recipes.lite_scenes()
    for run in Experiment.read("table1").runs(["full"], [1]):
        model = recipes.table1(base)[run.row].model
        wanted = base.change({"model": model, "train.seed": 1, "name": run.recipe.name})
        assert run.recipe == wanted


def test_rows_seeds_and_grids_are_multiplied_seed_by_seed(declare):
    path = declare(
        "recipe: smoke_scenes\nseeds: [0, 2]\nparts:\n"
        "  - {rows: [baseline, sf2], grid: {data.scenes.co_occurrence: [0.0, 1.0]}}\n"
        "  - {rows: {slow: {train.epochs: 4}, baseline: {}}, changes: {data.train: 9}}\n"
        "  - {rows: [sf2], grid: {data.scenes.co_occurrence: [1.0]}}\n"
    )
    runs = Experiment.read(path).runs()
    told = [(run.row, run.at.get("data.scenes.co_occurrence"), run.seed) for run in runs]
    one = [("baseline", 0.0), ("sf2", 0.0), ("baseline", 1.0), ("sf2", 1.0)]
    one += [("slow", None), ("baseline", None)]
    assert told == [(*each, seed) for seed in (0, 2) for each in one]
    sf2, slow = runs[3], runs[4]
    assert sf2.recipe.model.fusion == "sf2" and sf2.recipe.data.scenes.co_occurrence == 1
    changed = ("data.scenes.co_occurrence", "model.context")
    assert sf2.changed == changed and slow.changed == ("train.epochs",)
    assert slow.recipe.train.epochs == 4 and slow.recipe.data.train == 9
    assert str(sf2) == "sf2, co_occurrence 1.0, seed 0"
    assert [run.row for run in Experiment.read(path).runs(["sf2"], [2])][:2] == ["baseline", "sf2"]
    with pytest.raises(SettingsError, match="rows: no 'sf3'; did you mean 'sf2'"):
        Experiment.read(path).runs(["sf3"])
    with pytest.raises(SettingsError, match="seeds: mine declares 0, 2, not 1"):
        Experiment.read(path).runs((), [0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: lite_sceens", "no recipe 'lite_sceens'; did you mean 'lite_scenes'"),
        ("recpie: lite_scenes", "mine.yml: recpie: no such setting; did you mean 'recipe'"),
        ("recipe: smoke_scenes\nrows: table4", "rows: 'table4'; known by name: table1, table2"),
        ("recipe: smoke_scenes\nrows: [fca, sf3]", "rows: no 'sf3'; did you mean 'sf2'"),
        ("recipe: smoke_scenes\nrows: {a: {train.epoch: 3}}", "train.epoch: .*mean 'epochs'"),
        ("recipe: smoke_scenes\ngrid: {data.trian: [3]}", "data.trian: .*mean 'train'"),
        ("recipe: smoke_scenes\ngrid: {train.epochs: [0]}", "epochs: .*greater than or equal to 1"),
        ("recipe: smoke_scenes\ngrid: {train.epochs: 3}", "grid.train.epochs: .*got 3"),
        ("recipe: smoke_scenes\nseeds: [x]", r"mine.yml: seeds.0: .*integer.*got 'x'"),
        ("recipe: smoke_scenes\nseeds: []", "mine.yml: seeds: .*at least 1 item"),
        ("recipe: smoke_scenes\nscores: table4", "scores: 'table4'; known by name: table3"),
        ("recipe: smoke_scenes\nscores: {a: {protocol: papre}}", "scores: a: no protocol 'papre'"),
        ("recipe: smoke_scenes\nscores: {a: {data: {vla: 3}}}", "scores: a: vla: .*mean 'val'"),
        ("recipe: smoke_scenes\nnotebook: 01_cams", "mine: give a recipe or a notebook"),
        ("name: mine", "mine: give a recipe or a notebook"),
        ("name: a/b", "mine.yml: name: .*pattern"),
        ("notebook: 01_cam", "01_cam: no such notebook; did you mean '01_cams'"),
        ("notebook: 01_cams\ngrid: {sceens: [8]}", "sceens: no such setting; .*'scenes'"),
        ("notebook: 01_cams\ngrid: {scenes: [0]}", "scenes: .*greater than or equal to 1"),
        ("- 1", "mine.yml: needs lines of 'name: value'"),
        ("a: [", "mine.yml: is not YAML"),
        ("about: &a x\nname: *a", "mine.yml: names values"),
    ],
)
def test_wrong_declarations_name_what_would_be_right(declare, text, message):
    with pytest.raises(Exception, match=message):
        Experiment.read(declare(text)).runs()


def test_an_experiment_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r"tabel1: .*did you mean 'table1'"):
        Experiment.read("tabel1")


def test_a_notebook_is_swept_over_its_parameters(write_notebook, parameters, declare):
    path = write_notebook([parameters("n = 3\nseed = 0\nname = 'a'"), "n"])
    text = f"notebook: {path}\nchanges: {{name: b}}\nseeds: [0, 1]\ngrid: {{n: [1, 2]}}\n"
    runs = Experiment.read(declare(text)).runs()
    assert [(run.at["n"], run.seed) for run in runs] == [(1, 0), (2, 0), (1, 1), (2, 1)]
    assert runs[2].parameters == {"n": 1, "seed": 1, "name": "b"} and runs[0].row == "tiny"
    write_notebook([parameters("n = 3\nseed = 0\nname = 'a'"), "n + 1"])
    assert Experiment.read(declare(text)).runs()[0].key != runs[0].key


def run_of(**changes):
    recipe = recipes.smoke_scenes().change(changes)
    return Run(row="full", seed=0, recipe=recipe, scores={"usual": Scoring()})


def test_a_key_follows_from_the_content_alone():
    first = run_of()
    assert run_of(name="smoke_scenes/full").key == first.key
    photos = {"data.kind": "voc", "data.root": "/here/photos"}
    assert run_of(**photos).key == run_of(**photos | {"data.root": "/there/photos"}).key
    others = [run_of(**{"train.epochs": 3}), first.change({"seed": 1}), first.change({"row": "x"})]
    others += [first.change({"scores": {"usual": Scoring(elsewhere=True)}})]
    assert len({run.key for run in (first, *others)}) == 5
    assert "/here" not in json.dumps(run_of(**photos).told())


def test_a_record_of_an_older_version_has_the_key_of_today(tmp_path):
    run = run_of()
    record = {"key": run.key, "run": run.told(), "scores": {}, "metrics": {}}
    del record["run"]["recipe"]["weak"]["before_pamr"], record["run"]["floor"]
    path = write_record(tmp_path, record)
    assert path.name == run.file
    (read,) = records_of(tmp_path)
    assert read["key"] == run.key
    bundle([read, read | {"metrics": {"x": 1.5}}], tmp_path / "all.json")
    assert len(records_of(tmp_path / "all.json")) == 2
    assert len((tmp_path / "all.json").read_text().splitlines()) == 4


@pytest.mark.parametrize("measures, kept", [(("mIoU", "object missed"), True), (("mIoU",), False)])
def test_a_bundle_keeps_by_image_what_its_tables_ask_for(tmp_path, measures, kept):
    run = run_of()
    score = {"mIoU": 1.0, "counts": {"a": [0, 1, 2]}, "problems": {"a": [1, 2, 3, 4, 5, 6]}}
    record = {"key": run.key, "run": run.told(), "scores": {"x": score}, "metrics": {}}
    bundle([record], tmp_path / "all.json", measures)
    (read,) = records_of(tmp_path / "all.json")
    assert read["scores"]["x"]["counts"] == score["counts"]
    assert ("problems" in read["scores"]["x"]) == kept
    assert "problems" in record["scores"]["x"]


def test_scenes_are_scored_at_home_and_elsewhere():
    recipe = recipes.smoke_scenes().change({"data.val": 2})
    home = Scoring(data={"scenes.co_occurrence": 1.0}).data_of(recipe)
    away = Scoring(data={"scenes.co_occurrence": 1.0}, elsewhere=True).data_of(recipe)
    for i in range(2):
        assert (home[i].mask == away[i].mask).all() and (home[i].image != away[i].image).any()
    photos = recipe.change({"data.kind": "folder", "data.root": "x"})
    with pytest.raises(Exception, match="x"):
        Scoring(elsewhere=True).data_of(photos)


@pytest.mark.parametrize(
    ("rows", "told"),
    [("[full, baseline]", ["baseline"]), ("{mine: {}, other: {train.epochs: 3}}", ["mine"])],
)
def test_the_floor_is_told_once(declare, rows, told):
    runs = Experiment.read(declare(f"recipe: smoke_scenes\nfloor: true\nrows: {rows}\n")).runs()
    assert [run.row for run in runs if run.floor] == told
