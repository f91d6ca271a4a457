"""Notebook 03 in its smoke profile, under papermill: records, figures, alt texts, time."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from wsfcn.study.notebooks import run_notebook
from wsfcn.study.sources import read_notebook

NAME = "03_sf2_semantic_flow"
FIGURES = 11


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run_notebook(NAME, {}, tmp_path_factory.mktemp(NAME), profile="smoke", progress=False)


@pytest.fixture(scope="module")
def outputs(done):
    cells = read_notebook(done.path)["cells"]
    return [output for cell in cells for output in cell.get("outputs", ())]


def told(outputs):
    """All words that the notebook has computed."""
    return " ".join(o.get("data", {}).get("text/markdown", "") for o in outputs)


@pytest.mark.timeout(300)
def test_zero_flow_is_bilinear_upsampling_and_a_good_flow_sharpens(done):
    assert done.records["zero_flow_difference"] < 2e-5
    wrong = done.records["toy_wrong"]
    assert wrong["away from the outline"] < 0.6 * wrong["bilinear"]
    assert wrong["the same flow everywhere"] > 2 * wrong["bilinear"]


def test_perfect_maps_lose_thin_parts_first(done):
    perfect = done.records["perfect_maps"]
    coarse, fine = perfect["stride 8"], perfect["stride 4"]
    assert fine["mIoU"] > coarse["mIoU"] > perfect["stride 16"]["mIoU"]
    gained = {name: fine[name] - coarse[name] for name in fine}
    assert gained["thin parts found"] > 3 * gained["mIoU"] > 0
    assert gained["boundary IoU"] > gained["mIoU"]


def test_streams_carry_what_the_text_says(done, outputs):
    skills = {name.split(":")[0]: pair for name, pair in done.records["skills"].items()}
    low, bilinear = skills["L"], skills["context, enlarged bilinearly"]
    assert low[0] > bilinear[0] and low[1] < bilinear[1]  # where; what
    assert abs(skills["context, one shift for all"][0] - bilinear[0]) < 6
    gained = skills["D"][0] - skills["context, one shift for all"][0]
    assert ("So the field does bring something" in told(outputs)) == (gained > 2)
    most = [max(pair[question] for pair in skills.values()) for question in (0, 1)]
    assert ("more than any other map" in told(outputs)) == (skills["deep, after"] == most)


def test_the_bill_is_the_papers(done):
    bill = done.records["bill"]
    assert bill["sum"] - bill["skip + GCI"] == pytest.approx(3.75, abs=0.011)
    assert bill["sum"] == bill["product"]
    assert bill["SF2: flow and product"] - bill["product"] == pytest.approx(0.07, abs=0.011)
    assert bill["concatenation"] - bill["SF2: flow and product"] == pytest.approx(1.11, abs=0.011)


def test_measures_are_those_of_the_roads(done):
    assert done.records["same_as_predict"] == 1
    for row in done.records["measures"].values():
        assert all(0 <= value <= 100 for value in row.values())
    measures = done.records["measures"]
    assert 30 < measures["SF2, FCA"]["mIoU"] < 90
    for effects in done.records["gains"].values():
        assert all(low <= high for _, low, high in effects.values())
    effects = done.records["gains"]["its flow, not none"]
    both = measures["SF2, FCA"]["mIoU"] - measures["flow zero"]["mIoU"]
    assert effects["mIoU"][0] == pytest.approx(both, abs=0.02)


def test_completeness_is_compared_at_an_equal_claim(done, outputs):
    claims = done.records["at_equal_claim"]
    assert all(0 < v < 100 for rows in claims.values() for v in rows.values())
    missed = claims["object missed"]
    assert len(missed) >= 4  # networks that can be made to claim the same
    if {"SF2, ASPP", "skip + GCI, ASPP"} <= {*missed}:
        held = missed["SF2, ASPP"] - missed["skip + GCI, ASPP"]
        plain = done.records["gains"]["SF2, not skip + GCI (ASPP)"]["object missed"][0]
        turned = "turns round" if plain * held < 0 else "stays the same"
        turned = "all but vanishes" if abs(held) < abs(plain) / 4 else turned
        assert f"the first impression {turned}" in told(outputs)


def test_the_gate_is_what_its_formula_says(done):
    gate = done.records["gate"]
    assert gate["from deep"][-1] < 0.1 * gate["from deep"][0]  # 256 tosses: a sixteenth
    assert gate["from test"][-1] == pytest.approx(0.3 * gate["apart"], rel=0.05)
    rates = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    formula = gate["apart"] * np.sqrt(rates / (1 - rates))
    np.testing.assert_allclose(gate["noise"], formula, rtol=0.05)


def test_every_figure_is_there_and_says_what_it_shows(outputs):
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == FIGURES
    for output in pictures:
        assert len(output["metadata"]["image/png"]["alt"]) > 40
        image = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"])))
        assert min(image.size) > 250
        low, high = image.convert("L").getextrema()
        assert high - low > 100  # not an empty sheet


def test_nothing_went_wrong_and_it_takes_its_time(done, outputs):
    assert not [o for o in outputs if o["output_type"] == "error"]
    said = "".join(o["text"] for o in outputs if o.get("name") == "stderr")
    for word in ("Warning", "Error", "Traceback", "Clipping"):
        assert word not in said
    assert done.seconds < 150  # 20 s of work on two free cores; a busy machine takes longer
