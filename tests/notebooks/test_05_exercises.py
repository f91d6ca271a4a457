"""The exercises of 05_training: right answers pass, wrong ones are told why, stubs are no crash."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from wsfcn.study import exercises
from wsfcn.study.exercises import RIGHT

SOLUTIONS = Path(__file__).parent / "solutions" / "05_training.py"
ANSWERS = [
    (name, answer)
    for name, answer in runpy.run_path(str(SOLUTIONS)).items()
    if callable(answer) and getattr(answer, "__module__", None) == "<run_path>"
]


@pytest.mark.parametrize(("name", "answer"), ANSWERS, ids=[name for name, _ in ANSWERS])
def test_the_solutions_pass(name, answer):
    assert getattr(exercises, f"check_{name}")(answer) == RIGHT


@pytest.mark.parametrize("name", [name for name, _ in ANSWERS])
def test_stubs_and_crashes_get_a_sentence(name):
    check = getattr(exercises, f"check_{name}")

    def stub(*_):
        return None

    def broken(*_):
        raise KeyError("x")

    assert check(stub) == "Not yet: stub returns nothing."
    assert "broken stops with KeyError" in check(broken)
    assert check(lambda *_: np.zeros((7, 7, 7))) != RIGHT


def iou_without_union(matrix):
    return np.mean(np.diag(matrix) / matrix.sum(1).clip(1))


WRONG = [
    ("size_penalty", lambda s, p, f: (1 - s) ** p * np.log(f), "tenth|must not"),
    ("size_penalty", lambda s, p, f: np.log(f + s), "must not be punished"),
    ("size_penalty", lambda s, p, f: (1 - s) ** 3 * np.log(f + s), "power"),
    ("size_penalty", lambda s, p, f: (1 - s) ** p * np.log(0.01 + s), "floor"),
    ("may_teach", lambda pseudo, labels: True, "lost"),
    ("may_teach", lambda pseudo, labels: len(np.unique(pseudo)) == labels.sum() + 1, "255"),
    ("may_teach", lambda p, y: set(np.flatnonzero(y) + 1) <= set(p.flat), "background"),
    ("precision_and_coverage", lambda p, t: ((p == t).mean(), (p != 255).mean()), "coverage"),
    (
        "precision_and_coverage",
        lambda p, t: ((p == t)[p != 255].mean(), (p != 255).mean()),
        "nobody can say",
    ),
    ("mean_iou", lambda m: np.trace(m) / m.sum(), "union"),
    ("mean_iou", iou_without_union, "union"),
    (
        "mean_iou",
        lambda m: np.mean(np.diag(m) / (m.sum(0) + m.sum(1) - np.diag(m)).clip(1)),
        "nowhere",
    ),
]


@pytest.mark.parametrize(("name", "answer", "reason"), WRONG)
def test_wrong_answers_are_told_why(name, answer, reason):
    said = getattr(exercises, f"check_{name}")(answer)
    assert said != RIGHT
    assert re.search(reason, said), said
