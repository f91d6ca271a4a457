"""The CAM explorer in a real JupyterLab: with its kernel, and from a saved notebook without."""

from __future__ import annotations

import pytest

from .conftest import run_all, within_50_ms

pytest.importorskip("ipywidgets")
CODE = """import wsfcn
from wsfcn.show.explorer import Explorer, explore
network = wsfcn.load("lite-scenes")
scenes = wsfcn.data.build(network.recipe.data)[1]
explorer = Explorer(explore(network, [scenes[0], scenes[1]]), curtain=0.5)
explorer"""
CANVAS = ".wsx canvas"

# Does something and waits for the frame in which the canvas differs: milliseconds, or null.
CHANGED = """async (act) => {
  const canvas = document.querySelector(".wsx canvas"), context = canvas.getContext("2d");
  const look = () => context.getImageData(0, 0, canvas.width, canvas.height).data;
  const before = look(), started = performance.now();
  new Function("canvas", act)(canvas);
  for (;;) {
    const now = await new Promise((shown) => requestAnimationFrame(() => shown(performance.now())));
    if (look().some((v, i) => v !== before[i])) return now - started;
    if (now - started > 2000) return null;
  }
}"""
SLIDE = """const rows = [...document.querySelectorAll(".wsx .row")];
const input = rows.find((row) => row.innerText.startsWith("%s")).querySelector("input");
input.value = %s;
input.dispatchEvent(new Event("input"));"""


# What JupyterLab and Notebook 7 complain about themselves, also with nothing of ours on the page.
THEIRS = (
    "Failed to load resource",
    "reading 'schema'",
    "Command 'filebrowser:open-path' not registered",
    "Comm not found for comm id",
)


def quiet(errors):
    return [e for e in errors if not any(known in e for known in THEIRS)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("frontend", ["doc/tree", "notebooks"], ids=["jupyterlab", "notebook7"])
def test_it_lives_in_jupyterlab_and_notebook_7(lab, open_page, save_notebook, shots, frontend):
    if frontend == "notebooks":
        pytest.importorskip("notebook")
    folder, address = lab
    name = f"live_{frontend[:3]}.ipynb"
    save_notebook(folder / name, CODE)
    page, errors = open_page(address.replace("doc/tree", frontend).format(name), offline=False)
    run_all(page)
    page.wait_for_selector(CANVAS, timeout=120_000)
    page.wait_for_selector('.wsx[data-prepared="yes"]')
    assert page.locator(".jp-OutputArea-output img").count() == 0, (
        "the PNG is for places without us"
    )
    times = [page.evaluate(CHANGED, SLIDE % ("Threshold", t)) for t in (0.5, 0.9, 0.95, 0.99, 0.3)]
    within_50_ms(times)
    within_50_ms([page.evaluate(CHANGED, SLIDE % ("Curtain", c)) for c in (0.4, 0.3, 0.2, 0.1)])
    page.get_by_role("radio", name="PAMR").check(force=True)
    page.wait_for_timeout(100)
    within_50_ms([page.evaluate(CHANGED, SLIDE % ("PAMR", step)) for step in (4, 3, 2, 1, 0)])
    box = page.locator(CANVAS).bounding_box()
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"])
    page.wait_for_selector(".wsx table")
    # Keys are ours where the explorer has the focus: JupyterLab changes neither cell nor mode.
    for key in ("ArrowRight", "1", "ArrowUp", "c"):
        page.keyboard.press(key)
    page.wait_for_timeout(800)
    assert page.locator(".wsx fieldset label:has(input:checked)").inner_text() == "CRF"
    assert page.locator(".jp-Cell").count() == 1 and page.locator(".jp-CodeCell").count() == 1
    page.locator(".wsx").screenshot(path=shots / f"lab_{frontend[:3]}.png")
    assert not quiet(errors)


@pytest.mark.timeout(240)
def test_it_lives_in_a_saved_notebook_without_its_kernel(lab, open_page, save_notebook, shots):
    import wsfcn
    from wsfcn.show.explorer import Explorer, explore

    folder, address = lab
    network = wsfcn.load("lite-scenes")
    scenes = wsfcn.data.build(network.recipe.data)[1]
    widget = Explorer(explore(network, [scenes[0]]), stage="gate")
    notebook = save_notebook(folder / "saved.ipynb", CODE, widget)
    sign(notebook, folder)
    page, errors = open_page(address.format("saved.ipynb"), offline=False)
    page.wait_for_selector(CANVAS, timeout=90_000)
    page.wait_for_selector('.wsx[data-prepared="yes"]')
    times = [page.evaluate(CHANGED, SLIDE % ("Threshold", t)) for t in (0.9, 0.95, 0.99)]
    assert None not in times
    page.locator(".wsx").screenshot(path=shots / "lab_saved.png")
    assert not quiet(errors)


def sign(notebook, folder):
    from nbformat.sign import NotebookNotary

    notary = NotebookNotary(data_dir=str(folder / "jupyter_data_dir"))
    notary.sign(notebook)
    notary.store.close()
