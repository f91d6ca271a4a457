"""The CAM explorer alone on a page, offline: what a reader of an exported notebook has."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest

from wsfcn.data.sample import VOC_CLASSES
from wsfcn.metrics import ConfusionMatrix

from .conftest import within_50_ms

explorer = pytest.importorskip("wsfcn.show.explorer")
Explorer, Maps, Picture, State, View = (
    getattr(explorer, name) for name in ("Explorer", "Maps", "Picture", "State", "View")
)
STAGES = ("image", "cam", "fca", "sf2", "gate", "pamr", "crf", "truth")
MASKS = ("cam", "gate", "pamr", "crf")

# Moves a control and waits for the frame in which the canvas differs: milliseconds, or null.
MEASURE = """async ([selector, value]) => {
  const canvas = document.querySelector(".wsx canvas"), context = canvas.getContext("2d");
  const look = () => context.getImageData(0, 0, canvas.width, canvas.height).data;
  const before = look(), target = document.querySelector(selector);
  let started;
  if (selector === ".wsx canvas") {
    const box = canvas.getBoundingClientRect(), [x, y] = value;
    const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
    started = performance.now();
    canvas.dispatchEvent(new PointerEvent("pointerdown", { ...at, pointerId: 1 }));
  } else if (target.type === "radio") {
    started = performance.now();
    target.click();
  } else {
    target.value = value;
    started = performance.now();
    target.dispatchEvent(new Event(target.type === "range" ? "input" : "change"));
  }
  for (;;) {
    const now = await new Promise((shown) => requestAnimationFrame(() => shown(performance.now())));
    if (look().some((v, i) => v !== before[i])) {
      canvas.dispatchEvent(new PointerEvent("pointerup", { pointerId: 1 }));
      return now - started;
    }
    if (now - started > 2000) return null;
  }
}"""


def smooth(rng, channels, height, width):
    coarse = rng.normal(0, 2, (channels, 8, 8))
    rows, columns = (np.linspace(0, 7, n) for n in (height, width))
    return explorer.resize(
        explorer.torch.from_numpy(coarse)[None], (len(rows), len(columns))
    ).numpy()[0]


def dense(rng, channels, height, width):
    values = np.exp(smooth(rng, channels, height, width))
    return values / values.sum(0)


@pytest.fixture(scope="session")
def grand():
    """500 x 375 pixels, every class everywhere."""
    rng = np.random.default_rng(0)
    image = (255 * dense(rng, 3, 375, 500)).transpose(1, 2, 0).astype(np.uint8)
    masks = dense(rng, 21, 94, 125)
    maps = {n: Maps.of_classes(masks) for n in ("gate", "deep", "shallow")}
    maps["cam"] = Maps.of_classes(masks[1:] / masks[1:].max((1, 2), keepdims=True), 1)
    maps["crf"] = Maps.of_classes(dense(rng, 21, 375, 500))
    maps["fca"] = Maps.of_classes(dense(rng, 2, 47, 63)[:1])
    maps["sf2"] = Maps.signed(explorer.torch.from_numpy(smooth(rng, 2, 94, 125)))
    truth = dense(rng, 21, 375, 500).argmax(0).astype(np.uint8)
    truth[:4] = 255
    scores = np.linspace(0.9, 0.2, 20).astype(np.float32)
    picture = Picture("grand", image, scores, maps, np.arange(20) < 4, truth)
    return State(VOC_CLASSES, (picture,))


@pytest.fixture(scope="session")
def real():
    """Two scenes and a photo, seen by the network of the package."""
    from skimage.data import chelsea

    import wsfcn

    network = wsfcn.load("lite-scenes")
    scenes = wsfcn.data.build(network.recipe.data)[1]
    blank = np.zeros(20, np.float32)
    photo = scenes[0]._replace(id="cat", image=chelsea(), labels=blank, mask=None)
    return explorer.explore(network, [scenes[0], scenes[1], photo])


@pytest.fixture(scope="session")
def photographs():
    """Two photos of scikit-image, seen by the network for photos."""
    from skimage.data import astronaut, chelsea

    import wsfcn

    photos = {"cat": chelsea(), "astronaut": astronaut()}
    return explorer.explore(wsfcn.load("lite-voc"), photos)


@pytest.fixture
def mounted(mount):
    """mounted(state, width, scheme, **view) -> (page, errors)."""

    def one(state, width=1180, scheme="light", **view):
        return mount(Explorer(state, **view), width=width, color_scheme=scheme)

    return one


def look(page, **view):
    """Set the view from outside and wait until it is drawn."""
    page.evaluate(
        """async (view) => {
          window.model.set("view", { ...window.model.get("view"), ...view });
          for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
        }""",
        view,
    )


def text(page, selector):
    return page.locator(f".wsx {selector}").inner_text()


def test_the_canvas_answers_within_50_ms(mounted, grand):
    page, errors = mounted(grand, curtain=0.25, left="before", threshold=0.1, opacity=0.5)
    page.wait_for_selector('.wsx[data-prepared="yes"]')  # PAMR's steps, between events

    def row(title):
        page.evaluate(
            """(title) => {
              const rows = [...document.querySelectorAll(".wsx .row")];
              const row = rows.find((row) => row.innerText.startsWith(title));
              row.querySelector("input, select").dataset.test = title;
            }""",
            title,
        )
        return f'.wsx [data-test="{title}"]'

    radios = page.locator(".wsx fieldset input")
    for i, stage in enumerate(STAGES):
        radios.nth(i).evaluate("(input, stage) => { input.dataset.stage = stage; }", stage)
    classes = '.wsx select[aria-label="Class"]'
    moves = {
        "threshold": [(row("Threshold"), 0.1 + 0.01 * i) for i in range(1, 8)],
        "background": [(row("Background"), 1 + 0.25 * i) for i in range(1, 8)],
        "opacity": [(row("Opacity"), 0.5 + 0.05 * i) for i in range(1, 8)],
        "curtain": [(row("Curtain"), 0.25 + 0.05 * i) for i in range(1, 8)],
        "class": [(classes, i) for i in (3, 5, 7, 9, 11, 13, 0)],
        "pixel": [(".wsx canvas", [0.8, 0.1 + 0.1 * i]) for i in range(7)],
        "stage": [
            (f'.wsx [data-stage="{s}"]', None) for s in (*STAGES[:4], "crf", "truth", "pamr")
        ],
        "step": [(row("PAMR"), i) for i in (9, 8, 7, 6, 5, 4, 3)],
    }
    medians = {}
    for name, steps in moves.items():
        times = [page.evaluate(MEASURE, list(step)) for step in steps]
        within_50_ms(times, name)
        medians[name] = round(statistics.median(times), 1)
    print("median ms from the event to the changed frame:", medians)
    assert max(medians.values()) < 50, medians
    assert not errors


def test_it_computes_what_the_package_computes(mounted, real):
    page, errors = mounted(real)
    settings = ((0, "guessed", 0.3, 1, 10), (1, "given", 0.2, 3, 4), (0, "all", 0.05, 0.5, 1))
    names = ("picture", "allowed", "threshold", "exponent", "step")
    for stage, values in itertools.product(MASKS, settings):
        view = View(stage=stage, **dict(zip(names, values, strict=True)))
        found, mean, each = page.evaluate(
            """async (view) => {
              const bytes = await window.widget.inflate(window.model.get("data"));
              const scene = new window.widget.Scene(window.model.get("meta"), view.picture, bytes);
              if (view.stage === "pamr") scene.refined(view.step);
              const curve = scene.curve(view), at = Math.round(100 * view.threshold);
              const each = Array.from(curve.each[at], (v) => Number.isNaN(v) ? -1 : v);
              return [Array.from(scene.labels(view)), curve.mean[at], each];
            }""",
            view.model_dump(mode="json"),
        )
        wanted = real.labels(view)
        found = np.array(found, np.uint8).reshape(wanted.shape)
        assert (found == wanted).mean() > 0.998, view
        counts = ConfusionMatrix(21)
        counts.update(found, real.pictures[view.picture].truth)
        assert mean == pytest.approx(counts.mean_iou, abs=1e-9)
        assert np.allclose(np.nan_to_num(counts.iou(), nan=-1), each)
    assert not errors


def test_every_stage_shows(mounted, real, shots):
    page, errors = mounted(real, curtain=0.3)
    seen = set()
    for stage in STAGES:
        look(page, stage=stage)
        page.wait_for_timeout(450)
        assert page.locator(".wsx fieldset input:checked").count() == 1
        told = page.locator(".wsx canvas").get_attribute("aria-label")
        assert told.startswith("val-0-000000, ")
        seen.add(page.locator(".wsx canvas").evaluate("(canvas) => canvas.toDataURL()"))
        page.locator(".wsx").screenshot(path=shots / f"explorer_{stage}.png")
    assert len(seen) == len(STAGES) and not errors


@pytest.mark.parametrize("place", [0, 1])
def test_photos_have_the_classes_and_stages_of_their_network(mounted, photographs, shots, place):
    picture = photographs.pictures[place]
    kind = photographs.classes[picture.scores.argmax()]
    page, errors = mounted(photographs, picture=place, stage="cam")
    seen = page.locator(".wsx fieldset input:enabled").count()
    assert seen == len(STAGES) - 1  # a photo has no exact mask
    listed = page.locator('.wsx select[aria-label="Class"] option').all_inner_texts()
    assert len(listed) == 1 + len(photographs.classes) and f"1: {kind}, score" in listed[1]
    for stage in STAGES[:-1]:
        look(page, stage=stage)
        page.wait_for_timeout(450)
        page.locator(".wsx").screenshot(path=shots / f"explorer_{picture.name}_{stage}.png")
    for stage in MASKS:
        view = View(picture=place, stage=stage, step=6, threshold=0.1)
        found = page.evaluate(
            """async (view) => {
              const bytes = await window.widget.inflate(window.model.get("data"));
              const scene = new window.widget.Scene(window.model.get("meta"), view.picture, bytes);
              if (view.stage === "pamr") scene.refined(view.step);
              return Array.from(scene.labels(view));
            }""",
            view.model_dump(mode="json"),
        )
        wanted = photographs.labels(view)
        assert (np.reshape(found, wanted.shape) == wanted).mean() > 0.998, stage
    assert not errors


def test_the_keyboard_reaches_everything(mounted, real):
    page, errors = mounted(real, stage="image")
    page.locator(".wsx canvas").focus()
    press = page.keyboard.press
    for title in ("CAM", "FCA attention", "SF2 flow", "Gate", "PAMR", "CRF", "Ground truth"):
        press("ArrowRight")
        page.wait_for_timeout(30)
        assert page.locator(".wsx fieldset label:has(input:checked)").inner_text() == title
    press("ArrowLeft")
    press("ArrowLeft")
    press("ArrowUp")
    for key in (",", ",", "1", "Shift+ArrowDown", "Shift+ArrowDown", "c"):
        press(key)
    page.wait_for_timeout(700)
    view = page.evaluate("window.model.get('view')")
    person = VOC_CLASSES.index("person") + 1
    wanted = {"stage": "pamr", "threshold": 0.31, "step": 8, "shown": person, "curtain": 0}
    assert {name: view[name] for name in wanted} == wanted
    assert view["pixel"] == [68, 64] and "IoU of person" in text(page, ".score")
    press("]")
    press("Escape")
    press("0")
    page.wait_for_timeout(400)
    assert page.evaluate("[window.model.get('view').shown, window.model.get('view').pixel]") == [
        0,
        None,
    ]
    assert page.evaluate("window.saved") < 12  # not at every key
    assert not errors


def test_a_reader_without_eyes_hears_the_score(mounted, real):
    page, errors = mounted(real)
    for role, count in (("combobox", 5), ("slider", 4), ("radio", 8), ("status", 1)):
        assert page.locator(".wsx").get_by_role(role).count() == count
    unnamed = """[...document.querySelectorAll(".wsx :is(input, select)")].filter((control) =>
      !control.getAttribute("aria-label") && !control.labels[0]?.innerText.trim()).length"""
    assert page.evaluate(unnamed) == 0
    page.get_by_role("slider", name="Threshold").fill("0.9")
    page.wait_for_timeout(600)
    told = page.get_by_role("status").inner_text()
    assert told.startswith("mIoU ") and text(page, ".score b") in told
    assert told in page.get_by_role("img").first.get_attribute("aria-label")
    look(page, picture=2, stage="gate")
    assert text(page, ".score b") == "\u2013" and "no ground truth" in text(page, ".best")
    assert not errors


def test_a_pixel_tells_scores_affinities_and_flow(mounted, real, shots):
    page, errors = mounted(real, stage="pamr")
    box = page.locator(".wsx canvas").bounding_box()
    page.mouse.click(box["x"] + 0.52 * box["width"], box["y"] + 0.45 * box["height"])
    page.wait_for_selector(".wsx table")
    cells = page.locator(".wsx td").all_inner_texts()
    assert len(cells) == 32 and sum(map(float, cells)) == pytest.approx(100, abs=3)
    row, column = 57, 66
    picture = real.pictures[0]
    image = explorer.to_tensor(picture.image)[None]
    weights = explorer.PAMR(dilations=real.dilations).affinities(explorer.resize(image, (32, 32)))[
        0
    ]
    wanted = weights[:, round(row * 31 / 127), round(column * 31 / 127)].numpy()
    assert np.allclose(np.array(cells, float) / 100, wanted, atol=0.006)
    assert "sampled" in text(page, ".inspector") and "Pixel 66 across, 57 down" in text(page, "h4")
    page.locator(".wsx").screenshot(path=shots / "explorer_pixel.png")
    page.get_by_title("Forget the pixel").click()
    page.wait_for_timeout(60)
    assert page.locator(".wsx table").count() == 0 and not errors


def test_the_curtain_is_dragged(mounted, real):
    page, errors = mounted(real, curtain=0.5)
    box = page.locator(".wsx canvas").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], middle, steps=4)
    page.mouse.up()
    page.wait_for_timeout(450)
    view = page.evaluate("window.model.get('view')")
    assert view["curtain"] == pytest.approx(0.8, abs=0.01) and view["pixel"] is None
    assert not errors


def test_names_are_text(mounted, grand):
    evil = "<img src=x onerror=alert(1)>"
    named = State((evil, *VOC_CLASSES[1:]), (explorer.Picture(evil, *_rest(grand.pictures[0])),))
    page, errors = mounted(named, shown=1)
    assert evil in text(page, "select >> nth=0") and evil in text(page, ".legend")
    assert page.locator(".wsx img").count() == 0 and not errors


def _rest(picture):
    return picture.image, picture.scores, picture.maps, picture.labels, picture.truth


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_600_px(mounted, real, shots, scheme):
    page, errors = mounted(real, width=600, scheme=scheme, picture=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 600
    page.locator(".wsx").screenshot(path=shots / f"explorer_narrow_{scheme}.png")
    assert not errors


def test_it_lives_on_the_exported_page(open_page, save_notebook, real, shots, tmp_path):
    from wsfcn.study.page import build_page

    notebook = tmp_path / "01_one.ipynb"
    save_notebook(notebook, "explorer", Explorer(real, stage="gate"))
    index = build_page(tmp_path / "page", [notebook], title="Course")
    page, errors = open_page(index.as_uri() + "#01_one")
    canvas = page.locator(".wsx canvas")
    canvas.wait_for()
    before = canvas.evaluate("(canvas) => canvas.toDataURL()")
    page.get_by_role("slider", name="Threshold").fill("0.95")
    page.get_by_role("radio", name="PAMR").check(force=True)
    canvas.click(position={"x": 300, "y": 200})
    page.locator(".wsx table").wait_for()
    canvas.press("1")
    page.wait_for_timeout(200)
    assert canvas.evaluate("(canvas) => canvas.toDataURL()") != before
    page.locator(".wsx").screenshot(path=shots / "explorer_exported.png")
    assert not errors
