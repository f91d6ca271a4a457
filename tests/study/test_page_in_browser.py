"""Pages and their explorers in a real browser, offline. Needs Chromium; skipped without one."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat import v4
from PIL import Image

from wsfcn.study.notebooks import run_notebook
from wsfcn.study.page import Picture, Score, build_page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    buffer = io.BytesIO()
    teal = Image.new("RGB", (900, 300), "teal")
    teal.save(buffer, "PNG")
    picture = {"image/png": base64.b64encode(buffer.getvalue()).decode()}
    outputs = [v4.new_output("display_data", picture)]
    remote = {"text/html": '<img src="https://example.org/a.png" alt="x"><script>boom()</script>'}
    long = "x = " + " + ".join(map(str, range(200)))
    cells = [
        v4.new_markdown_cell("# First\n\nText with $\\frac{a}{b}$.\n\n## Part one"),
        v4.new_code_cell("plot()", outputs=outputs),
        v4.new_code_cell(long, outputs=[v4.new_output("display_data", remote)]),
        v4.new_markdown_cell("## Part two\n\nText."),
    ]
    paths = []
    for name, content in {"01_one": cells, "02_two": [v4.new_markdown_cell("# Second")]}.items():
        paths.append(folder / f"{name}.ipynb")
        nbformat.write(v4.new_notebook(cells=content), paths[-1])
    pictures = [Picture(teal, "A teal box", "A caption")]
    return build_page(
        folder, paths, title="Course", scores=[Score("mIoU", "61 %")], pictures=pictures
    )


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, page_file):
    """open_page(hash, width) -> the page in a browser without a network, and its requests."""
    contexts = []

    def open_at(place: str = "", width: int = 1280, file: Path = page_file, **options):
        view = {"width": width, "height": 800}
        context = browser.new_context(offline=True, viewport=view, **options)
        contexts.append(context)
        page, requests = context.new_page(), []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri() + place)
        return page, requests

    yield open_at
    for context in contexts:
        context.close()


def test_it_shows_offline_and_asks_for_nothing(open_page, page_file):
    page, requests = open_page("#01_one")
    page.wait_for_timeout(200)
    assert {url.split(":")[0] for url in requests} <= {"file", "data"}
    assert [url.split("#")[0] for url in requests if url.startswith("file:")] == [
        page_file.as_uri()
    ]
    own = page.locator("img[src^='data:']")
    widths = own.evaluate_all("all => all.map(image => image.naturalWidth)")
    assert len(widths) == 3 and min(widths) > 0
    assert page.locator("[id='01_one'] math mfrac").is_visible()


def test_a_request_that_slips_in_is_forbidden(open_page):
    page, _ = open_page()
    failed = []
    page.on("requestfailed", lambda request: failed.append(request.failure))
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://example.org'}))")
    page.wait_for_timeout(200)
    assert failed == ["csp"]


def test_the_address_chooses_what_is_shown(open_page):
    page, _ = open_page()
    first, second = page.locator("[id='01_one']"), page.locator("[id='02_two']")
    assert page.locator("h1").is_visible() and not first.is_visible()
    page.get_by_role("link", name="First").click()
    assert first.is_visible() and not second.is_visible() and not page.locator("h1").is_visible()
    page.get_by_role("link", name="Part two").click()
    assert first.is_visible() and page.get_by_role("heading", name="Part two").is_visible()
    page.get_by_role("link", name="Next: Second").click()
    assert second.is_visible() and not first.is_visible()
    page.go_back()
    assert first.is_visible()
    page.get_by_role("link", name="Overview").first.click()
    assert page.locator("h1").is_visible() and not first.is_visible()
    page.locator(".hero").get_by_role("link", name="Masks").click()
    assert page.locator("h1").is_visible()


def test_it_can_be_read_by_keyboard(open_page):
    page, _ = open_page()
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert reached[:5] == ["Scores", "Masks", "Notebooks", "First", "Second"]
    page.locator("a", has_text="Second").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("[id='02_two']").is_visible()


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("place", ["", "#01_one"])
def test_nothing_is_wider_than_the_window(open_page, width, place):
    page, _ = open_page(place, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


EXPLORER = """\
import base64
import anywidget, traitlets

class Counter(anywidget.AnyWidget):
    n = traitlets.Int(3).tag(sync=True)
    data = traitlets.Bytes(bytes([1, 7])).tag(sync=True)
    _css = "button { color: rgb(1, 2, 3); }"
    _esm = '''
    export default {
      initialize({ model }) { model.set("ready", "ready"); },
      render({ model, el }) {
        const button = document.createElement("button");
        const told = () => [model.get("n"), model.get("data").getUint8(1), model.get("ready")];
        const draw = () => { button.textContent = told().join(" "); };
        model.on("change:n", draw);
        button.onclick = () => { model.set("n", model.get("n") + 1); model.save_changes(); };
        draw();
        el.append(button);
      },
    };'''

    def _repr_mimebundle_(self, **options):
        data, metadata = super()._repr_mimebundle_(**options)
        return data | {"image/png": PNG}, metadata | {"image/png": {"alt": "still"}}

class Broken(Counter):
    _esm = "export default { render() { throw new Error('broken'); } };"

"""


@pytest.fixture(scope="module")
def alive(tmp_path_factory):
    """Pages of an executed notebook with two explorers: in one file, and apart."""
    folder = tmp_path_factory.mktemp("alive")
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), "teal").save(buffer, "PNG")
    picture = f"PNG = {base64.b64encode(buffer.getvalue()).decode()!r}\n"
    cells = [
        v4.new_markdown_cell("# Alive"),
        v4.new_code_cell("n = 3", metadata={"tags": ["parameters"]}),
        v4.new_code_cell(picture + EXPLORER + "display(Counter())\nBroken()"),
    ]
    nbformat.write(v4.new_notebook(cells=cells), folder / "alive.ipynb")
    done = run_notebook(folder / "alive.ipynb", {}, folder / "out", progress=False).path
    one = build_page(folder / "one", [done], title="One")
    build_page(folder / "apart", [done], title="Apart", apart=True)
    return [(one, "#alive"), (folder / "apart" / "alive.html", "")]


@pytest.mark.parametrize("which", [0, 1], ids=["one file", "apart"])
def test_explorers_live_without_a_kernel_and_a_broken_one_leaves_its_picture(
    open_page, alive, which
):
    file, place = alive[which]
    page, requests = open_page(place, file=file)
    button = page.get_by_role("button")
    button.wait_for()
    assert button.text_content() == "3 7 ready"
    button.click()
    assert button.text_content() == "4 7 ready"
    assert button.evaluate("b => getComputedStyle(b).color") == "rgb(1, 2, 3)"
    assert page.locator(".explorer").count() == 2
    assert page.locator(".explorer.live").count() == 1
    still = page.locator(".explorer img")
    assert still.count() == 1 and still.is_visible()
    assert {url.split(":")[0] for url in requests} <= {"file", "data", "blob"}


def test_where_no_script_runs_the_pictures_stand(open_page, alive):
    page, _ = open_page(file=alive[1][0], java_script_enabled=False)
    stills = page.get_by_alt_text("still")
    assert stills.count() == 2 and stills.first.is_visible()


def test_a_script_that_slips_in_is_forbidden(open_page, alive):
    page, _ = open_page(file=alive[1][0])
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), "
        "{textContent: 'window.slipped = 1'}))"
    )
    assert page.evaluate("window.slipped") is None
