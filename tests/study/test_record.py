from __future__ import annotations

import json

import numpy as np
import pytest

from wsfcn.study.record import MIME, RecordError, read_records, record
from wsfcn.study.sources import NotebookError


def notebook(*pairs):
    """A notebook's JSON with a cell that recorded each pair."""
    data = [{MIME: {"name": name, "value": value}, "text/plain": "x"} for name, value in pairs]
    outputs = [{"output_type": "display_data", "data": item, "metadata": {}} for item in data]
    code = {"cell_type": "code", "source": "", "metadata": {}, "execution_count": 1}
    cells = [code | {"outputs": [output]} for output in outputs]
    text = {"cell_type": "markdown", "source": "", "metadata": {}}
    return {"cells": [text, *cells], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}


def published(monkeypatch, name, value):
    """What record() shows in a kernel."""
    import IPython

    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: shown.append((data, raw)))
    record(name, value)
    return shown


def test_a_record_is_published_with_a_text_to_read(monkeypatch):
    value = {"miou": 0.5, "by class": [1, 2], "note": None}
    [(data, raw)] = published(monkeypatch, "score", value)
    assert raw
    assert data[MIME] == {"name": "score", "value": value}
    assert data["text/plain"] == 'score = {"miou": 0.5, "by class": [1, 2], "note": null}'


def test_a_long_list_is_not_a_wall_of_numbers(monkeypatch):
    [(data, _)] = published(monkeypatch, "curve", list(range(100)))
    assert data["text/plain"] == "curve: 100 entries"
    assert data[MIME]["value"] == list(range(100))
    [(data, _)] = published(monkeypatch, "told", "x" * 100)
    assert data["text/plain"] == f'told = "{"x" * 100}"'


def test_arrays_and_numpy_scalars_become_plain_values(monkeypatch):
    value = {"a": np.float32(0.5), "b": np.arange(3), "c": np.bool_(True), "d": (1, 2)}
    [(data, _)] = published(monkeypatch, "x", value)
    plain = data[MIME]["value"]
    assert json.loads(json.dumps(plain)) == {"a": 0.5, "b": [0, 1, 2], "c": True, "d": [1, 2]}
    assert type(plain["c"]) is bool


def test_outside_a_kernel_nothing_is_shown(capsys):
    record("x", 1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "x: cannot be recorded .*float values"),
        ({"a": [1.0, float("inf")]}, "x: cannot be recorded .*float values"),
        (np.array([0.0, np.nan]), "x: cannot be recorded .*float values"),
        (object(), "x: a object cannot be recorded"),
        ({(1,): 2}, "x: cannot be recorded .*keys must be"),
        ({1, 2}, "x: a set cannot be recorded"),
    ],
)
def test_what_json_cannot_hold_is_refused(value, message):
    with pytest.raises(RecordError, match=message):
        record("x", value)


@pytest.mark.parametrize("name", ["", " ", None, 3])
def test_a_record_needs_a_name(name):
    with pytest.raises(RecordError, match="needs a name"):
        record(name, 1)


def test_records_are_read_in_order_and_the_last_of_a_name_counts(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(notebook(("b", 1), ("a", [2]), ("b", 3))))
    assert list(read_records(path).items()) == [("b", 3), ("a", [2])]
    assert read_records(notebook()) == {}
    path.write_text('{"cells": [')
    with pytest.raises(NotebookError, match=r"a\.ipynb: is not a notebook"):
        read_records(path)
