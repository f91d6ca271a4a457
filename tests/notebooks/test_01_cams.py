"""01_cams: it runs, its numbers hold, its figures speak."""

from __future__ import annotations

import resource

import pytest

from wsfcn.study.cam_floor import cam_floor
from wsfcn.study.notebooks import run_notebook
from wsfcn.study.sources import read_notebook
from wsfcn.study.trained import recipe_of

NAME = "01_cams"
CPU_SECONDS = 70  # three times what it took here, training included: other machines are slower


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of its own, so that the CAM classifier is trained from nothing."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSFCN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    """The executed notebook, its run and the CPU seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run_notebook(NAME, {}, tmp_path_factory.mktemp("out"), progress=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return read_notebook(result.path), result, seconds


def outputs(notebook):
    return [o for cell in notebook["cells"] for o in cell.get("outputs", ())]


@pytest.mark.timeout(300)
def test_the_numbers_hold(run):
    _, result, _ = run
    records = result.records
    assert list(records) == [
        "cat_top1",
        "stride_correlation",
        "cam_threshold",
        "cam_grid_ceiling",
        "cam",
        "wsfcn",
        "photos",
    ]
    assert records["cat_top1"] == "Egyptian cat"
    assert records["stride_correlation"] == pytest.approx(0.92, abs=0.03)
    assert records["cam_threshold"] == pytest.approx(0.5, abs=0.16)
    assert records["cam_grid_ceiling"] == pytest.approx(0.886, abs=0.01)
    cam, ours = records["cam"], records["wsfcn"]
    assert cam["mean_iou"] == pytest.approx(0.20, abs=0.04)
    assert 0.25 < cam["object_found"] < 0.95  # the best threshold of eight scenes is not stable
    assert 0.05 < cam["background_claimed"] < 0.6
    assert cam["mean_iou_guessed"] < cam["mean_iou"]
    assert ours["mean_iou"] == pytest.approx(0.57, abs=0.08)
    assert all(0 <= value <= 1 for value in (*cam.values(), *ours.values()))
    photos = records["photos"]
    assert set(photos) == {"cat", "astronaut", "coffee"}
    found = {name: area for name, area in photos["cat"].items() if name != "background"}
    assert max(found, key=found.get) == "cat" and found["cat"] > 0.2  # a face that fills the photo
    assert photos["coffee"]["background"] > 0.5  # none of the six classes is in it


@pytest.mark.timeout(300)
def test_the_cam_is_judged_as_the_package_judges_it(run, cache):
    _, result, _ = run
    floor = cam_floor(recipe_of("smoke"), progress=False)
    threshold, mean_iou = floor.best("image labels given")
    assert result.records["cam_threshold"] == threshold
    assert result.records["cam"]["mean_iou"] == pytest.approx(mean_iou, abs=1e-4)
    guessed = floor.best()[1]
    assert result.records["cam"]["mean_iou_guessed"] == pytest.approx(guessed, abs=1e-4)


@pytest.mark.timeout(300)
def test_every_figure_has_a_text_and_nothing_goes_to_stderr(run):
    notebook, _, _ = run
    figures = [o for o in outputs(notebook) if "image/png" in o.get("data", {})]
    assert len(figures) == 9
    texts = [o["metadata"]["image/png"]["alt"] for o in figures]
    assert all(len(text) > 40 for text in texts)
    assert len(set(texts)) == 9
    assert "Egyptian cat 5" in texts[0]
    noise = [o["text"] for o in outputs(notebook) if o.get("name") == "stderr"]
    assert not noise
    assert not [o for o in outputs(notebook) if o["output_type"] == "error"]


@pytest.mark.timeout(300)
def test_it_is_done_in_time(run):
    _, _, seconds = run
    assert seconds < CPU_SECONDS


@pytest.mark.timeout(300)
def test_a_photo_of_ones_own_takes_the_place_of_the_others(run, cache, tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 900), (200, 90, 30)).save(tmp_path / "own.png")
    values = {"photo": str(tmp_path / "own.png"), "scenes": 2, "shown": 1}
    result = run_notebook(NAME, values, tmp_path / "out", progress=False)
    assert result.records["cat_top1"] == "Egyptian cat"
    figures = [o for o in outputs(read_notebook(result.path)) if "image/png" in o.get("data", {})]
    first, *others = [o["metadata"]["image/png"]["alt"] for o in figures]
    assert "your photo" in first and "coffee" not in first
    assert any("label maps" in text and "your photo" in text for text in others)
    assert set(result.records["photos"]) == {"cat", "your photo", "coffee"}
