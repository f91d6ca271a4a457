"""Browser tests: Chromium, a page that mounts a widget by itself, and a JupyterLab of their own."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
# What is on the page is all there is: the network is off, and the policy forbids to try.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src data:"
)
PAGE = """<!doctype html><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="POLICY"><title>A widget alone</title>
<body style="margin:8px;font-family:sans-serif"><div id="here"></div>
<script type="module">
const told = TOLD, listeners = {};
for (const [name, text] of Object.entries(told.buffers)) {
  told.state[name] = new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}
const model = {
  get: (name) => told.state[name],
  set: (name, value) => {
    told.state[name] = value;
    (listeners[`change:${name}`] ?? []).forEach((run) => run());
  },
  save_changes: () => { window.saved = (window.saved ?? 0) + 1; },
  on: (event, run) => { (listeners[event] ??= []).push(run); },
  off: () => {},
};
const source = URL.createObjectURL(new Blob([told.esm], { type: "text/javascript" }));
window.widget = await import(source);
window.model = model;
await window.widget.default.render({ model, el: document.getElementById("here") });
document.body.dataset.ready = "yes";
</script>"""


def lone_page(widget, path: Path) -> Path:
    """Write a page that mounts an anywidget by a model of its own, with nothing else around."""
    state = {n: widget.trait_values()[n] for n in widget.traits(sync=True) if not n.startswith("_")}
    state = {n: v for n, v in state.items() if n not in ("layout", "tabbable", "tooltip")}
    buffers = {n: base64.b64encode(v).decode() for n, v in state.items() if isinstance(v, bytes)}
    told = {
        "esm": str(widget._esm),
        "buffers": buffers,
        "state": {n: v for n, v in state.items() if n not in buffers},
    }
    text = json.dumps(told).replace("<", "\\u003c")
    path.write_text(PAGE.replace("POLICY", POLICY).replace("TOLD", text), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def save_notebook():
    """save_notebook(path, code, widget) -> a notebook whose one cell shows the widget, if any.

    The widget's state is in the notebook's metadata, as papermill leaves it.
    """
    embed = pytest.importorskip("ipywidgets.embed")
    from nbformat import v4, write

    def save(path, code, widget=None):
        cell = v4.new_code_cell(code)
        about = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = v4.new_notebook(cells=[cell], metadata={"kernelspec": about})
        if widget is not None:
            data, metadata = widget._repr_mimebundle_()
            cell.outputs = [v4.new_output("display_data", data, metadata=metadata)]
            states = embed.dependency_state([widget], drop_defaults=False)
            state = {"version_major": 2, "version_minor": 0, "state": states}
            notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
        write(notebook, path)
        return notebook

    return save


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """open_page(address, offline, width, **context) -> (page, its errors on the console)."""
    contexts = []

    def open_at(address: str, *, offline: bool = True, width: int = 1180, **options):
        viewport = {"width": width, "height": 860}
        context = browser.new_context(offline=offline, viewport=viewport, **options)
        contexts.append(context)
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: m.type == "error" and errors.append(m.text))
        page.goto(address)
        return page, errors

    yield open_at
    for context in contexts:
        context.close()


@pytest.fixture
def mount(open_page, tmp_path):
    """mount(widget, width, color_scheme) -> (page, errors): a widget alone on a page, offline."""

    def alone(widget, **options):
        page, errors = open_page(lone_page(widget, tmp_path / "page.html").as_uri(), **options)
        page.wait_for_selector("body[data-ready]")
        return page, errors

    return alone


@pytest.fixture
def shots(tmp_path) -> Path:
    """Where screenshots go: the folder named by WSFCN_SCREENSHOTS, else a temporary one."""
    folder = Path(os.environ.get("WSFCN_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def within_50_ms(times, name=""):
    """Milliseconds from input events to changed pixels: each must change some, the fastest within
    50. Other processes delay a frame, they never hasten one."""
    assert None not in times, f"{name}: the canvas did not change: {times}"
    assert min(times) < 50 and max(times) < 2000, f"{name}: {times}"


def run_all(page):
    """Run all cells, in JupyterLab or Notebook 7, again where the kernel came too late."""
    from playwright.sync_api import TimeoutError as NotHeard

    idle = page.get_by_text("| Idle")  # JupyterLab's status bar; Notebook 7 has none
    shown = page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    (shown if "/notebooks/" in page.url else idle).first.wait_for(state="attached", timeout=90_000)
    heard = page.locator(".jp-InputPrompt", has_text=re.compile(r"\[(\*|\d+)\]")).first
    for _ in range(6):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        with suppress(NotHeard):
            return heard.wait_for(timeout=15_000)
        if (chooser := page.locator(".jp-Dialog .jp-mod-accept")).count():
            chooser.first.click()  # no kernel yet: take the one of the notebook
    raise TimeoutError("no kernel ran the cells")


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """(folder, address with {} for a notebook's name) of a JupyterLab with nobody's settings.

    Where Notebook 7 is installed the same server has it, at /notebooks/ instead of /doc/tree/.
    """
    pytest.importorskip("jupyterlab")
    root = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    own = {name: str(root / name.lower()) for name in (*homes, "JUPYTERLAB_SETTINGS_DIR")}
    own |= {"JUPYTERLAB_WORKSPACES_DIR": str(root / "workspaces")}
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    notes = root / "jupyterlab_settings_dir" / "@jupyterlab" / "apputils-extension"
    notes.mkdir(parents=True)
    (notes / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--port={port}", "--ip=127.0.0.1", "--IdentityProvider.token=look"]
    command += [f"--notebook-dir={root}"]
    with open(root / "lab.log", "wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | own | {"PYTHONPATH": path}
        )
    try:
        _wait(f"http://127.0.0.1:{port}/api?token=look", server, root / "lab.log")
        yield root, f"http://127.0.0.1:{port}/doc/tree/{{}}?token=look"
    finally:
        server.terminate()
        server.wait(20)


def _wait(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
    raise TimeoutError(log.read_text())
