"""The course page in a real browser, offline. Needs Chromium; skipped where there is none."""

from __future__ import annotations

import base64
import io
import shutil

import nbformat
import pytest
from nbformat import v4
from PIL import Image

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

    def open_at(place: str = "", width: int = 1280):
        context = browser.new_context(offline=True, viewport={"width": width, "height": 800})
        contexts.append(context)
        page, requests = context.new_page(), []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri() + place)
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
