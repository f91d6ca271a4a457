"""Where trainings are kept, and which ones are found."""

from __future__ import annotations

import json
import threading
import time

import pytest

from wsfcn import recipes
from wsfcn.study.trained import alone, run_folder, trained

RECIPE = recipes.smoke_scenes().change({"name": "tiny/full"})


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """keep(recipe, name, finished, **changes) leaves a training as an older version may have."""
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path))

    def write(recipe, name, finished=False, drop=()):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        values = recipe.model_dump(mode="json")
        for path in drop:
            group, last = path.split(".")
            del values[group][last]
        (folder / "recipe.json").write_text(json.dumps(values))
        if finished:
            (folder / "score.json").write_text("{}")
        return folder

    return write


def test_a_training_is_found_under_another_name_and_from_an_older_version(keep):
    assert run_folder(RECIPE).name.startswith("tiny-full-")
    torn = keep(RECIPE, "torn")
    (torn / "recipe.json").write_text("{")
    keep(RECIPE.change({"train.epochs": 3}), "other")
    assert not run_folder(RECIPE).exists()
    begun = keep(RECIPE.change({"name": "lite"}), "begun", drop=["weak.before_pamr"])
    assert run_folder(RECIPE) == begun
    finished = keep(RECIPE.change({"name": "x"}), "x-finished", finished=True)
    assert run_folder(RECIPE) == finished
    own = keep(RECIPE, "own")
    own.rename(own.with_name(run_folder(RECIPE.change({"train.seed": 5})).name))
    assert run_folder(RECIPE) == finished


def test_a_changed_default_is_no_old_training(keep, monkeypatch):
    """What a file says counts, whatever a default was when it was written."""
    keep(RECIPE.change({"weak.floor": 0.3}), "old")
    assert not run_folder(RECIPE).exists()
    assert run_folder(RECIPE.change({"weak.floor": 0.3})).name == "old"


@pytest.mark.timeout(300)
def test_a_training_under_another_name_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path))
    small = {"data.train": 8, "data.val": 2, "train.epochs": 1, "train.warmup_epochs": 0}
    recipe = RECIPE.change(small)
    first = trained(recipe, progress=False)
    again = trained(recipe.change({"name": "another"}), progress=False)
    assert again.folder == first.folder and again.score.to_dict() == first.score.to_dict()
    assert len([*(tmp_path / "runs").iterdir()]) == 1


def test_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path))
    order = []

    def other():
        with alone("x"):
            order.append("other")

    with alone("x"):
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
