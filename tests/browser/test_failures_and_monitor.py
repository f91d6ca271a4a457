"""Failure browser and training monitor alone on a page, offline, and the monitor in JupyterLab."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from .conftest import run_all

pytest.importorskip("anywidget")

from wsfcn.data.sample import VOC_CLASSES, Sample
from wsfcn.recipes import Train
from wsfcn.show.failure_browser import FailureBrowser, Wall
from wsfcn.show.monitor import Monitor
from wsfcn.study.failures import CAUSES, diagnose

ODD = (*VOC_CLASSES[:-1], "<img src=x onerror=alert(1)>")
COLOUR = """([selector, x, y]) => {
  const canvas = document.querySelector(selector);
  return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
}"""

IN_SHADOW = COLOUR.replace(
    "document.querySelector(selector)",
    "document.querySelector('.explorer > div').shadowRoot.querySelector(selector)",
)


def case_of(number, wanted, predicted, side):
    truth = np.zeros((96, 96), np.uint8)
    truth[20 : 20 + side, 20 : 20 + side] = wanted
    prediction = np.where(truth > 0, predicted, 0).astype(np.uint8)
    if number % 3 == 0:
        prediction[70:90, 70:90] = wanted  # claimed far from the object
    image = np.full((96, 96, 3), (60, 120, 40), np.uint8)
    sample = Sample(f"scene-{number}", image, np.zeros(20, np.float32), truth)
    return diagnose(sample, prediction, ODD, "meadow")


CASES = [case_of(n, 1 + n, [0, 20, 1 + n, 0][n % 4], [9, 40, 30][n % 3]) for n in range(14)]


@pytest.fixture
def wall(mount):
    browser = FailureBrowser(CASES)
    page, errors = mount(browser)
    yield browser.wall, page
    assert not errors


def test_lists_show_what_the_state_chooses(wall, shots):
    state, page = wall
    lists = page.locator(".wsf select")
    thumbs = page.locator(".wsf .wall button")
    assert thumbs.count() == len(CASES)
    for cause in CAUSES:
        lists.nth(0).select_option(cause)
        names = [t.get_attribute("aria-label").split(":")[0] for t in thumbs.all()]
        assert names == [state.cases[i].sample.id for i in state.choose(cause)]
    lists.nth(0).select_option("")
    lists.nth(2).select_option("under 3 % of the image")
    assert thumbs.count() == len(state.choose(size="under 3 % of the image")) > 0
    lists.nth(1).select_option(ODD[-1])  # a name is a text, whatever is in it
    page.screenshot(path=shots / "failures_list.png")
    lists.nth(0).select_option("co-occurring background")
    lists.nth(2).select_option("over 12 %")
    assert page.locator(".wsf output").inner_text() == "no such image"


def test_keys_walk_over_the_wall_and_the_case_says_why(wall, shots):
    state, page = wall
    page.locator(".wsf .wall button").first.focus()
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 13)):
        page.keyboard.press(key)
        current = page.locator(".wsf [aria-current]")
        assert current.count() == 1 and page.evaluate("document.activeElement.tabIndex") == 0
        case = state.cases[place]
        assert page.locator(".wsf h4").inner_text().startswith(f"{case.sample.id}: mIoU")
        assert f"image {place + 1} of 14" in page.locator(".wsf output").inner_text()
    page.keyboard.press("Home")
    first = state.cases[0]
    lines = page.locator(".wsf .why li").all_inner_texts()
    assert [line.split(" (")[0].split("\n")[0].strip() for line in lines] == [*first.why]
    assert page.locator(".wsf img").count() == 0  # no name became an element
    page.screenshot(path=shots / "failures_keys.png")
    page.keyboard.press("c")
    assert "small object" in page.locator(".wsf output").inner_text()
    assert page.get_by_role("button", name="Next").is_enabled()


def test_errors_have_the_colour_of_their_cause(wall):
    state, page = wall
    place = next(i for i, c in enumerate(state.cases) if c.main == "missing class")
    page.locator(".wsf .wall button").nth(place).click()
    grey = page.evaluate(COLOUR, [".four figure:nth-child(4) canvas", 2, 2])
    assert max(grey) - min(grey) <= 1
    red, green, blue = page.evaluate(COLOUR, [".four figure:nth-child(4) canvas", 30, 30])
    assert red > 180 and green < 120 and blue < 40  # vermilion


def finished():
    """A monitor as it is in a saved notebook."""
    rows = [{"epoch": e / 4, "classification_loss": 2 / (4 + e)} for e in range(1, 13)]
    rows += [{"epoch": e, "mean_iou": 0.1 * e, "pixel_accuracy": 0.8} for e in (1, 2, 3)]
    masks = np.zeros((2, 16, 16), np.uint8)
    masks[:, 4:12, 4:12] = 8
    frames = np.stack([masks * 0, masks // 2, masks])
    film = SimpleNamespace(images=np.full((2, 16, 16, 3), 90, np.uint8), masks=masks, frames=frames)

    def training(**hooks):
        return SimpleNamespace(rows=rows, score="mIoU 30.00 (3 images)")

    monitor = Monitor(training, lambda: film, Train(epochs=3, warmup_epochs=1), ODD)
    monitor.run()
    return monitor


def test_the_monitor_shows_the_last_state_without_a_kernel(mount, shots):
    page, errors = mount(finished())
    for name in ("Stop", "Resume"):
        assert page.get_by_role("button", name=name).is_disabled()
    assert page.locator(".wsm .said").inner_text() == "Finished: mIoU 30.00"
    labels = [s.get_attribute("aria-label") for s in page.locator(".wsm svg").all()]
    assert labels[0].endswith("now 0.125") and "mIoU now 30 %" in labels[2]
    mask = ".wsm tr:nth-child(2) canvas"
    last = page.evaluate(COLOUR, [mask, 8, 8])
    page.locator(".wsm input").focus()
    page.keyboard.press("Home")
    assert "1 of 3" in page.locator(".wsm .film output").inner_text()
    assert page.evaluate(COLOUR, [mask, 8, 8]) != last
    page.screenshot(path=shots / "monitor.png")
    assert not errors


def test_both_live_on_the_exported_page(open_page, save_notebook, shots, tmp_path):
    from wsfcn.study.page import build_page

    paths = tmp_path / "01_wall.ipynb", tmp_path / "02_monitor.ipynb"
    for path, widget in zip(paths, (FailureBrowser(CASES), finished()), strict=True):
        save_notebook(path, "shown", widget)
    page, errors = open_page(build_page(tmp_path / "page", paths, title="Course").as_uri())
    page.evaluate("location.hash = '#01_wall'")
    thumb = page.locator(".wsf .wall button").nth(2)
    thumb.click()
    assert "image 3 of 14" in page.locator(".wsf output").inner_text()
    assert page.locator(".wsf select").first.locator("option").all_inner_texts()[1:] == [*CAUSES]
    shown = Wall.of(CASES, 48).cases
    missing = next(i for i, case in enumerate(shown) if case.main == "missing class")
    page.locator(".wsf .wall button").nth(missing).click()
    red, green, blue = page.evaluate(IN_SHADOW, [".four figure:nth-child(4) canvas", 30, 30])
    assert red > 180 and green < 120 and blue < 40  # vermilion, as in the list of causes
    page.screenshot(path=shots / "failures_exported.png")
    page.evaluate("location.hash = '#02_monitor'")
    page.locator(".wsm input").fill("1")
    assert "1 of 3" in page.locator(".wsm .film output").inner_text()
    assert not errors


TRAINING = """import time
from types import SimpleNamespace
import numpy as np
from wsfcn.recipes import Train
from wsfcn.show.monitor import Monitor
kept = []
def training(on_epoch, on_step, progress):
    rows = list(kept)
    for epoch in range(len(kept), 3):
        for step in range(20 * epoch, 20 * epoch + 20):
            time.sleep(0.1)
            on_step(step + 1, rows + [{"epoch": step / 20, "classification_loss": 1 / (step + 1)}])
        kept.append({"epoch": epoch + 1, "mean_iou": 0.2 * epoch, "pixel_accuracy": 0.5})
        rows = list(kept)
        on_epoch(epoch + 1, None, rows)
    return SimpleNamespace(rows=rows, score="mIoU 40.00 (1 image)")
def film():
    if not kept:
        raise FileNotFoundError
    one = np.full((1, 16, 16), 3, np.uint8)
    return SimpleNamespace(images=np.zeros((1, 16, 16, 3), np.uint8), masks=one,
                           frames=np.stack([one] * len(kept)))
monitor = Monitor(training, film, Train(epochs=3, warmup_epochs=1), ["a", "b", "c"])
monitor.run()"""


@pytest.mark.timeout(240)
def test_buttons_stop_and_resume_a_training_in_jupyterlab(lab, open_page, save_notebook, shots):
    folder, address = lab
    save_notebook(folder / "monitor.ipynb", TRAINING)
    page, errors = open_page(address.format("monitor.ipynb"), offline=False)
    run_all(page)
    page.locator(".wsm").wait_for(timeout=60_000)
    said = page.locator(".wsm .said")
    page.wait_for_function("document.querySelector('.wsm .said').textContent.includes('epoch 1')")
    page.screenshot(path=shots / "monitor_lab_running.png")
    page.get_by_role("button", name="Stop", exact=True).last.click()
    page.locator(".wsm .said", has_text="Stopped at step").wait_for(timeout=10_000)
    page.get_by_text("Stopped at step").last.wait_for()  # one line under the cell, no traceback
    assert "Traceback" not in page.locator(".jp-OutputArea").first.inner_text()
    page.screenshot(path=shots / "monitor_lab_stopped.png")
    page.get_by_role("button", name="Resume").last.click()
    page.locator(".wsm .said", has_text="Finished: mIoU 40.00").wait_for(timeout=30_000)
    assert "40 %" in said.last.evaluate("e => e.closest('.wsm').innerText")
    page.screenshot(path=shots / "monitor_lab_finished.png")
    assert not [e for e in errors if "Failed to load resource" not in e]
