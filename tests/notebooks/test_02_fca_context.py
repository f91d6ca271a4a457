"""Notebook 02 in its smoke profile, under papermill: records, figures, alt texts, time."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from wsfcn.build import SHIPPED
from wsfcn.study.notebooks import run_notebook
from wsfcn.study.sources import read_notebook
from wsfcn.weights import read_safetensors

FIGURES = 10


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("02_fca_context")
    return run_notebook("02_fca_context", {}, folder, profile="smoke", progress=False)


@pytest.fixture(scope="module")
def outputs(done):
    cells = read_notebook(done.path)["cells"]
    return [output for cell in cells for output in cell.get("outputs", ())]


def told(outputs):
    """All words that the notebook has computed."""
    return " ".join(o.get("data", {}).get("text/markdown", "") for o in outputs)


@pytest.mark.timeout(300)
def test_the_strips_read_square_lattices(done):
    records = done.records
    assert records["cells_read"] == [1, 9, 25, 49]
    radius = records["half_radius_cells"]
    assert radius["before FCA"] == radius["k = 1"] == 0  # a single cell
    assert 0 < radius["k = 3"] < radius["k = 5"] < radius["k = 7"] < 68  # px; its outermost: 68
    assert 0 < radius["after FCA"] < radius["k = 7"]


def test_what_the_attentions_do_is_measured_and_said(done, outputs):
    records, said = done.records, told(outputs)
    assert 0.5 < records["attention"]["settled"] <= 1
    assert f"{records['attention']['settled']:.0%} of the values lie below" in said
    moved = records["labels_that_change"]
    assert moved.pop("as trained") == 0 and min(moved.values()) >= 0
    assert all(0 <= value <= 1 for value in records["srm"].values())
    attentions = max(moved["no SRM"], moved["attention fixed"])
    hardly = attentions < min(v for n, v in moved.items() if "without k" in n) / 2
    assert ("the attentions hardly do" in said) == hardly


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


def test_the_ground_names_what_was_always_at_home(done, outputs):
    named, measures = done.records["named_by_ground"], done.records["measures"]
    assert max(done.records["empty_claimed"].values()) < 5
    for context in ("ASPP", "FCA"):
        assert named[f"{context}, mixed"] < named[f"{context}, always home"]
        found = measures["away: objects found"]
        assert found[f"{context}, always home"] < found[f"{context}, mixed"]
    low, high = done.records["cure"]["home: background claimed"][1:]
    claims = "*more* background" if low > 0 else "*less*" if high < 0 else "about as much"
    assert f"FCA in place of ASPP claims {claims}" in told(outputs)


def test_normalisation_brings_the_context_down_to_the_skip(done, outputs):
    loud, reached = done.records["context_to_skip"], done.records["norms"]
    for context in ("ASPP", "FCA"):
        assert 0 < loud[f"{context}, normalised"] < 2 < loud[f"{context}, unnormalised"]
        assert reached[f"{context}, unnormalised"] < reached[f"{context}, normalised"]
    assert loud["FCA, unnormalised"] > 5 * loud["ASPP, unnormalised"]
    normalisation = done.records["normalisation"]
    change, low, high = normalisation["change"]
    gaps = [reached[f"FCA, {n}"] - reached[f"ASPP, {n}"] for n in ("unnormalised", "normalised")]
    assert change == pytest.approx(gaps[1] - gaps[0], abs=0.1)
    lost = normalisation["unnormalised"][2] < 0 < low
    assert ("was for want of normalisation" in told(outputs)) == lost
    assert ("may be chance. And normalisation" in told(outputs)) == (low <= 0 <= high)


def test_our_table_1_is_that_of_the_shipped_networks(done):
    files = {
        "baseline (ASPP)": "lite-scenes-baseline",
        "+ MCLM": "lite-scenes-mclm",
        "+ MCLM + SRM = FCA": "lite-scenes-fca",
        "+ SF2": "lite-scenes-sf2",
        "+ FCA + SF2 = WS-FCN": "lite-scenes",
    }
    table = done.records["table1"]
    assert {*table} == {*files}
    for row, file in files.items():
        score = read_safetensors(SHIPPED / f"{file}.safetensors")[1]["provenance"]["score"]
        assert table[row] == pytest.approx(100 * score["mean_iou"], abs=0.006)


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
