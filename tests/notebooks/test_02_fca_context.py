"""Notebook 02 in its smoke profile, under papermill: records, figures, alt texts, time."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from wsfcn.study.notebooks import run_notebook
from wsfcn.study.sources import read_notebook

FIGURES = 9


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("02_fca_context")
    return run_notebook("02_fca_context", {}, folder, profile="smoke", progress=False)


@pytest.fixture(scope="module")
def outputs(done):
    cells = read_notebook(done.path)["cells"]
    return [output for cell in cells for output in cell.get("outputs", ())]


@pytest.mark.timeout(300)
def test_the_strips_read_square_lattices(done):
    records = done.records
    assert records["cells_read"] == [1, 9, 25, 49]
    radius = records["half_radius_cells"]
    assert radius["before FCA"] == radius["k = 1"] == 0  # a single cell
    assert 0 < radius["k = 3"] < radius["k = 5"] < radius["k = 7"] < 68  # px; its outermost: 68
    assert 0 < radius["after FCA"] < radius["k = 7"]


def test_the_attentions_of_the_shipped_network_hardly_work(done):
    records = done.records
    assert records["attention"]["settled"] == pytest.approx(0.95, abs=0.04)
    assert records["attention"]["same"] == pytest.approx(0.97, abs=0.03)
    assert records["srm"]["objects"] < records["srm"]["background"] < records["srm"]["rim"] / 2
    moved = records["labels_that_change"]
    assert moved["as trained"] == 0
    assert moved["no SRM"] < 1 and moved["attention fixed"] < 1.5
    assert min(value for name, value in moved.items() if "without k" in name) > 1.5


def test_the_bill_is_the_papers(done):
    millions = {"ASPP": 137.10, "non-local": 140.97, "7 x 7": 157.75, "PPM": 142.03, "FCA": 143.52}
    assert done.records["parameters"] == millions | {"dense FCA": 89.59}


def test_outer_taps_never_train(done):
    assert done.records["dead"]["weights"] == 13_369_344
    assert done.records["dead"]["left"] == pytest.approx(0.30, abs=0.01)
    assert 10 < done.records["dead_at_test"] < 50


def test_co_occurrence_is_measured_with_intervals(done):
    records, measures = done.records, done.records["measures"]
    assert len(measures) == 6
    for rows in measures.values():
        assert len(rows) == 4
        assert all(0 <= value <= 100 for value in rows.values())
    differences = {
        "knob": ("ASPP, always home", "ASPP, mixed"),
        "cure": ("FCA, always home", "ASPP, always home"),
    }
    for record, (one, other) in differences.items():
        for measure, (value, low, high) in records[record].items():
            assert low <= value <= high
            assert value == pytest.approx(
                measures[measure][one] - measures[measure][other], abs=0.1
            )


def test_the_ground_names_what_was_always_at_home(done):
    assert set(done.records["empty_claimed"].values()) == {0.0}
    named, measures = done.records["named_by_ground"], done.records["measures"]
    for context in ("ASPP", "FCA"):
        assert named[f"{context}, mixed"] < 10 < named[f"{context}, always home"]
        found = measures["away: objects found"]
        assert found[f"{context}, always home"] < found[f"{context}, mixed"] - 15


def test_fca_drowns_the_skip(done):
    loud = done.records["context_to_skip"]
    assert max(loud["ASPP, mixed"], loud["ASPP, always home"]) < 5
    assert min(loud["FCA, mixed"], loud["FCA, always home"]) > 20


def test_our_table_1_is_that_of_the_shipped_networks(done):
    table = done.records["table1"]
    assert len(table) == 5
    assert table["baseline (ASPP)"] == pytest.approx(54.2, abs=0.5)
    assert table["+ MCLM + SRM = FCA"] < table["baseline (ASPP)"]


def test_it_takes_its_time(done):
    assert done.seconds < 150  # 20 s of work on two free cores; a busy machine takes longer


def test_every_figure_is_there_and_says_what_it_shows(outputs):
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == FIGURES
    for output in pictures:
        assert len(output["metadata"]["image/png"]["alt"]) > 60
        image = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"])))
        assert min(image.size) > 250
        assert np.asarray(image.convert("L")).std() > 10  # not an empty sheet


def test_nothing_went_wrong(outputs):
    assert not [o for o in outputs if o["output_type"] == "error"]
    said = "".join(o["text"] for o in outputs if o.get("name") == "stderr")
    for word in ("Warning", "Error", "Traceback"):
        assert word not in said
