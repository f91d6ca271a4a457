"""Notebook 05 in its smoke profile, under papermill: records, figures, alt texts, time."""

from __future__ import annotations

import base64
import io
import resource

import pytest
from PIL import Image

from wsfcn.study.export import render_notebook
from wsfcn.study.notebooks import run_notebook
from wsfcn.study.sources import read_notebook

FIGURES = 11
CPU_SECONDS = 60  # 20 s of work here; other machines are slower


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """The executed notebook and its CPU time; its training is kept in a folder of this test."""
    folder = tmp_path_factory.mktemp("05_training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSFCN_CACHE", str(folder / "cache"))
        before = cpu_seconds()
        run = run_notebook("05_training", {}, folder, profile="smoke", progress=False)
        return run, cpu_seconds() - before


@pytest.fixture(scope="module")
def done(timed):
    return timed[0]


@pytest.fixture(scope="module")
def outputs(done):
    cells = read_notebook(done.path)["cells"]
    return [output for cell in cells for output in cell.get("outputs", ())]


@pytest.mark.timeout(300)
def test_it_records_a_training(done):
    records = done.records
    # Six steps: next to ln 2 / 2, where a fresh network starts, and already below it.
    assert 0.15 < records["last_classification_loss"] < records["first_classification_loss"] < 0.6
    assert records["mask_loss"] >= 0
    assert 0 <= records["gate_share"] <= 1
    assert 0 < records["mean_iou"] < 0.5
    assert 0 < records["pixel_accuracy"] < 1  # after six steps the masks mean nothing yet
    assert "flip" in records["protocol"]
    assert set(records["mean_iou_by_protocol"]) >= {"no flip", "flip", "flip, labels given"}
    assert all(0 < value < 100 for value in records["mean_iou_by_protocol"].values())


def test_it_takes_its_time(timed):
    assert timed[1] < CPU_SECONDS


def test_every_figure_is_there_and_says_what_it_shows(outputs):
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == FIGURES
    for output in pictures:
        alt = output["metadata"]["image/png"]["alt"]
        assert len(alt) > 40
        image = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"])))
        assert min(image.size) > 250
        low, high = image.convert("L").getextrema()
        assert high - low > 100  # not an empty sheet


def test_the_monitor_leaves_its_last_state_alone(outputs):
    views = [o for o in outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
    assert len(views) == 1
    alt = views[0]["metadata"]["image/png"]["alt"]
    assert "One scene: after epoch 2" in alt and "over 2 epochs" in alt


def test_nothing_went_wrong(outputs):
    assert not [o for o in outputs if o["output_type"] == "error"]
    said = "".join(o["text"] for o in outputs if o.get("name") == "stderr")
    for word in ("Warning", "Error", "Traceback"):
        assert word not in said


def test_open_exercises_say_so(outputs):
    said = "".join(o["text"] for o in outputs if o.get("name") == "stdout")
    assert said.count("Not yet") == 4


def test_formulas_become_mathml(done):
    page = render_notebook(done.path)
    assert page.body.count("<math ") > 10
    assert 'class="tex"' not in page.body and not page.failed
    assert page.title.startswith("5 · From image labels to masks")
