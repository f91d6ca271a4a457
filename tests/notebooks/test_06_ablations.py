"""Notebook 06 in its smoke profile: records, figures, and the same on a folder of photos."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from wsfcn.build import load
from wsfcn.data import build_split
from wsfcn.study import ablations
from wsfcn.study.notebooks import run_notebook
from wsfcn.study.params import PAPER
from wsfcn.study.sources import FOLDER, read_notebook

FIGURES = 9
SCORES = FOLDER.parent / "docs" / "scores" / "table1.json"


def outputs_of(run):
    return [o for cell in read_notebook(run.path)["cells"] for o in cell.get("outputs", ())]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("06_ablations")
    return run_notebook("06_ablations", {}, folder, profile="smoke", progress=False)


@pytest.fixture(scope="module")
def on_photos(tmp_path_factory):
    """The notebook on a tree laid out like VOC: three scenes as JPEGs of different sizes."""
    home = tmp_path_factory.mktemp("photos")
    for name in ("JPEGImages", "SegmentationClass", "ImageSets"):
        (home / name).mkdir()
    scenes = build_split(load("lite-scenes").recipe.data, "val")
    for i in range(3):
        box = (0, 0, 128, 128 - 16 * i)
        Image.fromarray(scenes[i].image).crop(box).save(home / f"JPEGImages/p{i}.jpg", quality=95)
        Image.fromarray(scenes[i].mask).crop(box).save(home / f"SegmentationClass/p{i}.png")
    (home / "ImageSets" / "val.txt").write_text("p0\np1\np2\n")
    given = {"data": str(home), "networks": ["lite-scenes-sf2", "lite-scenes"], "scored": 3}
    return run_notebook("06_ablations", given, home / "out", profile="smoke", progress=False)


@pytest.mark.timeout(300)
def test_the_gains_are_those_of_the_shipped_scores(done):
    records = done.records
    if not SCORES.is_file():
        assert records["source"] == "live" and {*records["seeds"].values()} == {1}
        return
    runs = ablations.read(SCORES, score="as trained")
    assert records["source"] == "records"
    scores = {(run["row"], run["seed"]): run["mIoU"] for run in runs}
    assert {row for row, _ in scores} - {"baseline"} == {*records["gains"]}
    for row, gain in records["gains"].items():
        seeds = [s for r, s in scores if r == row and ("baseline", s) in scores]
        assert records["seeds"][row] >= len(seeds) > 0
        wanted = np.mean([scores[row, s] - scores["baseline", s] for s in seeds])
        assert gain == pytest.approx(wanted, abs=0.002)
        low, high = records["gain_over_images"][row]
        assert low < gain < high and high - low < 12
    assert 0.05 < records["sd"] < 4


def test_pairing_narrows_the_bootstrap(done):
    unpaired, paired = done.records["paired_width"]
    assert 0 < paired < 0.9 * unpaired


def test_live_scores_are_those_of_four_scenes(done):
    live = done.records["mean_iou_live"]
    assert {"baseline", "fca", "sf2", "full"} <= {*live}
    assert all(15 < value < 90 for value in live.values())
    by_protocol = done.records["by_protocol"]
    for row in ("baseline", "full"):
        assert by_protocol[row]["as trained"] == live[row]
        assert by_protocol[row]["labels given"] > live[row] - 3
    looks = done.records["table3"]
    assert {*looks} == {*ablations.PAPER_TABLE3} and len({*looks.values()}) == 4


def test_the_bill_is_the_papers(done):
    for rows in PAPER.values():
        for row, (_, millions) in rows.items():
            assert done.records["parameters"][row] == pytest.approx(millions, abs=0.005)


def test_labels_given_raise_every_network(done):
    for found, given in done.records["labels_given"].values():
        assert 0 < given - found < 25


def test_every_figure_is_there_and_says_what_it_shows(done):
    pictures = [o for o in outputs_of(done) if "image/png" in o.get("data", {})]
    assert len(pictures) == FIGURES
    for output in pictures:
        assert len(output["metadata"]["image/png"]["alt"]) > 40
        image = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"])))
        low, high = image.convert("L").getextrema()
        assert min(image.size) > 250 and high - low > 100


def test_it_takes_its_time_and_nothing_went_wrong(done):
    # 20 s of work after 10 s of imports; a busy machine stretches the clock, not this
    assert 5 < done.records["processor_seconds"] < 60
    assert not [o for o in outputs_of(done) if o["output_type"] == "error"]
    said = "".join(o["text"] for o in outputs_of(done) if o.get("name") == "stderr")
    assert not [word for word in ("Warning", "Error", "Traceback") if word in said]


@pytest.mark.timeout(300)
def test_it_runs_on_photos_and_says_that_there_is_no_spread(on_photos):
    records = on_photos.records
    assert records["source"] == "live" and records["seeds"] == {"sf2": 1, "lite-scenes": 1}
    assert records["gains"].keys() == {"lite-scenes"}
    low, high = records["gain_over_images"]["lite-scenes"]
    assert low <= records["gains"]["lite-scenes"] <= high
    told = [o["data"].get("text/markdown", "") for o in outputs_of(on_photos) if "data" in o]
    assert any("No scores over seeds here" in text and "split val" in text for text in told)
    assert len([o for o in outputs_of(on_photos) if "image/png" in o.get("data", {})]) == FIGURES
