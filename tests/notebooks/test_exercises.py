"""The exercises of every notebook: solved they are right, unsolved they say what is missing.

Exercise cells stand on the imports of their notebook alone, so nothing else of it runs here.
"""

from __future__ import annotations

import ast

import numpy as np
import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager

from wsfcn.study import pairs
from wsfcn.study.exercises import judge
from wsfcn.study.sources import FOLDER

TEXTS = sorted((FOLDER / "src").glob("*.py"))


def said(cells, capsys):
    """What the exercise cells print, each a line."""
    capsys.readouterr()
    space = {}
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse(TransformerManager().transform_cell(cell["source"]))
        if "exercise" not in cell["metadata"].get("tags", ()):
            tree.body = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        exec(compile(tree, "cell", "exec"), space)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("text", TEXTS, ids=[text.stem for text in TEXTS])
def test_solved_is_right_and_unsolved_is_not_yet(text, capsys):
    solved = pairs.cells(text.read_text(), solved=True)
    unsolved = pairs.cells(text.read_text())
    exercises = [c for c in unsolved if "exercise" in c["metadata"].get("tags", ())]
    assert len(exercises) >= 3
    assert all(pairs.OPEN in cell["source"] and "judge(" in cell["source"] for cell in exercises)
    assert said(solved, capsys) == ["Right."] * len(exercises)
    answers = said(unsolved, capsys)
    assert len(answers) == len(exercises)
    assert all(answer.startswith("Not yet: ") for answer in answers), answers


@pytest.mark.parametrize("text", TEXTS, ids=[text.stem for text in TEXTS])
def test_cells_are_short(text):
    cells = pairs.cells(text.read_text())
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    longest = max(code, key=lambda source: source.count("\n"))
    assert longest.count("\n") < 25, longest


HALF = np.array([0.5, 1.0])
CASES = [
    (lambda x: x / 2, (2.0,), 1, "Right."),
    (lambda x: x, (2.0,), 1, "Not yet: the hint"),
    (lambda x: None, (2.0,), 1, "Not yet: <lambda> returns nothing."),
    (lambda x: ..., (2.0,), 1, "Not yet: <lambda> returns nothing."),
    (lambda x: 1 / 0, 2.0, 1, "Not yet: <lambda> stops with ZeroDivisionError: division by zero"),
    (lambda: 1, (2.0,), 1, "Not yet: <lambda> stops with TypeError"),
    (lambda x: torch.tensor([0.50001, 1]), 2.0, HALF, "Right."),
    (lambda x: [0.5, 1], 2.0, HALF, "Right."),
    (lambda x: np.float32(float("nan")), 2.0, 1, "Not yet: the hint"),
    (lambda x: HALF[None], 2.0, HALF, "Not yet: the shape is (1, 2); (2,) is asked for."),
    (lambda x: HALF, 2.0, 1, "Not yet: one number is asked for, this has shape (2,)."),
    (lambda x: (1, HALF), 2.0, (True, torch.from_numpy(HALF)), "Right."),
    (lambda x: HALF, 2.0, (0.5, 1), "Right."),
    (lambda x: 3, 2.0, (0.5, 1), "Not yet: 2 values are asked for."),
    (lambda x: "text", 2.0, 1, "Not yet: the hint"),
    (lambda x: "text", 2.0, "text", "Right."),
    (lambda x: torch.ones(2, requires_grad=True), 2.0, np.ones(2, np.uint8), "Right."),
    (lambda x: x, 2.0, lambda value: value > 1, "Right."),
    (lambda x: x, 2.0, lambda value: value[0] > 1, "Not yet: the hint"),
]


@pytest.mark.parametrize(("answer", "inputs", "wanted", "sentence"), CASES)
def test_the_judge_says_what_it_sees(answer, inputs, wanted, sentence, capsys):
    judge(answer, (inputs, wanted, "the hint"))
    assert capsys.readouterr().out.startswith(sentence)


def test_the_first_case_that_fails_speaks_and_inputs_are_copies(capsys):
    values = np.zeros(2)

    def spoil(array):
        array += 1
        return array.sum()

    judge(spoil, ((values,), 2, "a"), ((values,), 3, "b"), ((values,), 4, "c"))
    assert capsys.readouterr().out == "Not yet: b\n"
    assert not values.any()
