"""An executed notebook as HTML for a page: text, code, outputs, figures; no scripts."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbconvert.filters import ansi2html
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from .markdown import Renderer, tex_to_mathml
from .record import MIME
from .sources import read_notebook

PICTURES = ("image/svg+xml", "image/png", "image/jpeg")
WIDGET = "application/vnd.jupyter.widget-view+json"
SOLUTION = "<details><summary>Solution</summary>"
PROGRESS = re.compile(r"\d+%\|.*\|\s*[\d.]+\w?/[\d.]+\w? \[")  # a tqdm bar
ACTIVE = re.compile(r"<script\b.*?</script>|<link\b[^>]*>", re.DOTALL | re.IGNORECASE)
REMOTE = re.compile(  # tags that load something from elsewhere: offline they would stay empty
    r"<(?:img|iframe|video|audio|source|embed|object)\b[^>]*?"
    r"\b(?:src|srcset|data)\s*=\s*[\"']?\s*(?:https?:)?//[^>]*>",
    re.IGNORECASE,
)
CURSOR = re.compile(r"\x1b\[\d*[A-HJKf]")  # ANSI codes that move the cursor, not those of colour


@dataclass(frozen=True)
class Rendered:
    """A notebook ready for a page.

    body: HTML whose ids start with the name. headings: (level, id, HTML). summary: HTML of the
    first paragraph. figure: the bytes of the first picture, PNG or JPEG, with its text `alt`.
    seconds: what the execution took, where known. failed: whether an output is an error.
    """

    name: str
    title: str
    summary: str
    body: str
    headings: tuple[tuple[int, str, str], ...]
    figure: bytes | None
    alt: str
    seconds: float | None
    failed: bool


def render_notebook(path: str | Path, others: Collection[str] = ()) -> Rendered:
    """Render an executed notebook; `others` names the notebooks of the same page.

    Raises NotebookError where it cannot be read.
    """
    path = Path(path)
    notebook = read_notebook(path)
    page = _Page(path, others)
    for cell in _shown(notebook["cells"]):
        page.add(cell)
    body = REMOTE.sub("", "\n".join(page.parts))
    titles = [text for level, _, text in page.renderer.headings if level == 1]
    paragraph = re.search(r"<p>(.*?)</p>", body, re.DOTALL)
    seconds = notebook["metadata"].get("wsfcn", {}).get("seconds")
    return Rendered(
        name=path.stem,
        title=titles[0] if titles else html.escape(path.stem),
        summary=re.sub(r"</?a\b[^>]*>", "", paragraph[1]) if paragraph else "",
        body=body,
        headings=tuple(page.renderer.headings),
        figure=page.figure,
        alt=page.alt,
        seconds=seconds,
        failed=page.failed,
    )


class _Page:
    """The growing HTML of one notebook."""

    def __init__(self, path: Path, others: Collection[str]) -> None:
        self.renderer = Renderer(path.stem, others, str(path.parent))
        self.parts: list[str] = []
        self.figure: bytes | None = None
        self.alt = ""
        self.failed = False

    def add(self, cell: Any) -> None:
        tags = cell["metadata"].get("tags", ())
        if cell["cell_type"] == "markdown":
            inside = self.renderer.render(cell["source"], cell.get("attachments"))
            part = f'<div class="text">{inside}</div>'
        elif cell["cell_type"] == "code":
            part = f'<div class="code">{_code(cell["source"], tags)}{self._outputs(cell)}</div>'
        else:
            return
        if "solution" not in tags:
            self.parts.append(part)
        elif self.parts and self.parts[-1].startswith(SOLUTION):  # one fold for neighbours
            self.parts[-1] = self.parts[-1].removesuffix("</details>") + part + "</details>"
        else:
            self.parts.append(f"{SOLUTION}{part}</details>")

    def _outputs(self, cell: Any) -> str:
        joined, _ = CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, 0)
        return "".join(self._output(output, cell) for output in joined["outputs"])

    def _output(self, output: Any, cell: Any) -> str:
        kind = output["output_type"]
        if kind == "stream":
            text = settle(output["text"])
            return _pre(text, output["name"]) if text.strip() else ""
        if kind == "error":
            self.failed = True
            return _pre("\n".join(output["traceback"]), "error")
        return self._data(output, cell)

    def _data(self, output: Any, cell: Any) -> str:
        data, metadata = output["data"], output["metadata"]
        picture = next((mime for mime in PICTURES if mime in data), None)
        alt = ""
        if picture is not None:
            own = metadata.get(picture, {}).get("alt") or cell["metadata"].get("alt")
            alt = own or self._default_alt()
            if self.figure is None and picture != "image/svg+xml":
                self.figure, self.alt = base64.b64decode(data[picture]), alt
        if MIME in data:
            return _pre(data["text/plain"], "record")
        if "text/html" in data:
            return f'<div class="rich" tabindex="0">{ACTIVE.sub("", data["text/html"])}</div>'
        if picture is not None:
            return _picture(picture, data[picture], metadata.get(picture, {}), alt)
        if WIDGET in data:
            return ""  # a live widget: without its kernel there is only a name to show
        if "text/markdown" in data:
            return f'<div class="text">{self.renderer.render(data["text/markdown"])}</div>'
        if "text/latex" in data:
            return tex_to_mathml(data["text/latex"].strip().strip("$"), block=True)
        return _pre(data["text/plain"], "value") if "text/plain" in data else ""

    def _default_alt(self) -> str:
        if not self.renderer.headings:
            return "Figure"
        text = re.sub(r"<[^>]*>", "", self.renderer.headings[-1][2])
        return f"Figure of the section {html.unescape(text)}"


def _picture(mime: str, content: str, metadata: Any, alt: str) -> str:
    if mime == "image/svg+xml":
        content = base64.b64encode(content.encode()).decode()
    source = f"data:{mime};base64,{''.join(content.split())}"
    sides = "".join(
        f' {side}="{int(metadata[side])}"' for side in ("width", "height") if side in metadata
    )
    return f'<p class="figure"><img src="{source}"{sides} alt="{html.escape(alt)}"></p>'


def settle(text: str) -> str:
    """What a terminal would show in the end: rewritten lines once, progress bars not at all."""
    lines = []
    for line in CURSOR.sub("", text).split("\n"):
        last = next((part for part in reversed(line.split("\r")) if part.strip()), "")
        if not PROGRESS.search(last):
            lines.append(last.rstrip())
    return "\n".join(lines).strip("\n")


def _shown(cells: list[Any]) -> list[Any]:
    """Without empty cells, and with the parameters of the run instead of the defaults."""
    tagged = [set(cell["metadata"].get("tags", ())) for cell in cells]
    given = any("injected-parameters" in tags for tags in tagged)
    hidden = {"remove-cell", "papermill-error-cell-tag"} | ({"parameters"} if given else set())
    shown = zip(cells, tagged, strict=True)
    return [cell for cell, tags in shown if cell["source"].strip() and not tags & hidden]


def _code(source: str, tags: Collection[str]) -> str:
    if "injected-parameters" in tags:
        title = '<p class="note">Parameters of this run</p>'
        return title + _highlight(source.removeprefix("# Parameters\n"))
    code = _highlight(source)
    return f"<details><summary>Code</summary>{code}</details>" if "hide-input" in tags else code


def _highlight(source: str) -> str:
    return str(highlight(source, get_lexer_by_name("ipython3"), HtmlFormatter(cssclass="input")))


def _pre(text: str, kind: str) -> str:
    return f'<pre class="{kind}" tabindex="0">{ansi2html(text)}</pre>'
