"""An executed notebook as HTML that needs nothing from outside, by nbconvert.

Formulas become MathML, explorers carry their script and state, links within the course lead to
their place on the page.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from jinja2 import pass_context
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from traitlets.config import Config

from .sources import read_notebook

TEMPLATES = Path(__file__).parent / "templates"
STATE = "application/vnd.jupyter.widget-state+json"
# Environments that the converter does not know, and what browsers no longer know of MathML.
TEX_NAMES = (("{aligned}", "{align*}"), ("{split}", "{align*}"), ("{gathered}", "{align*}"))
MATHML_NAMES = (
    ('"negativethinmathspace"', '"-0.167em"'),
    ('"negativemediummathspace"', '"-0.222em"'),
    ('columnalign="left"', 'style="text-align:left"'),
    ('columnalign="right"', 'style="text-align:right"'),
)
FUNCTION = re.compile(r"<m([io])>(arg|cos|det|dim|exp|inf|lim|log|max|min|Pr|sin|sup|tanh?)</m\1>")


@dataclass(frozen=True)
class Rendered:
    """A notebook ready for a page.

    body: HTML whose ids start with the name. headings: (level, id, HTML). summary: HTML of the
    first paragraph. figure: the bytes of the first picture, PNG or JPEG, with its text `alt`.
    seconds: what the execution took, where known. failed: whether an output is an error. alive:
    whether an explorer needs its script.
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
    alive: bool


def render_notebook(
    path: str | Path,
    others: Collection[str] = (),
    address: Callable[[str, str], str] = lambda name, place: f"#{place or name}",
) -> Rendered:
    """Render an executed notebook; raises NotebookError where it cannot be read.

    others: the notebooks that links may lead to. address: (name, id within it or "") -> link.
    """
    path = Path(path)
    notebook: Any = read_notebook(path)
    resources = {"metadata": {"path": str(path.parent), "name": path.stem}}
    source, _ = _exporter(notebook).from_notebook_node(notebook, resources)
    soup = BeautifulSoup(source, "html.parser")
    headings = _settled(soup, path.stem, others, address)
    figure, alt = _figure(notebook)
    first = soup.p.decode_contents() if soup.p else ""
    return Rendered(
        name=path.stem,
        title=next((text for level, _, text in headings if level == 1), html.escape(path.stem)),
        summary=re.sub(r"</?a\b[^>]*>", "", first),
        body=str(soup),
        headings=tuple(headings),
        figure=figure,
        alt=alt,
        seconds=notebook["metadata"].get("wsfcn", {}).get("seconds"),
        failed=any(o["output_type"] == "error" for _, o in _outputs(notebook)),
        alive=soup.select_one(".explorer") is not None,
    )


def _exporter(notebook: Any) -> HTMLExporter:
    tags = {tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", ())}
    hidden = {"remove-cell", "papermill-error-cell-tag"}
    if "injected-parameters" in tags:  # the parameters of the run instead of the defaults
        hidden.add("parameters")
    config = Config(
        TagRemovePreprocessor={"enabled": True, "remove_cell_tags": hidden},
        RegexRemovePreprocessor={"enabled": True, "patterns": [r"\s*\Z"]},
        CoalesceStreamsPreprocessor={"enabled": True},
    )
    exporter = HTMLExporter(
        config=config,
        template_name="notebook",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    exporter.register_filter("markdown2html", _markdown)
    exporter.register_filter("mathml", lambda tex: tex_to_mathml(tex.strip().strip("$"), True))
    exporter.register_filter("explorer", _explorer)
    return exporter


def _outputs(notebook: Any) -> Iterator[tuple[Any, Any]]:
    return ((cell, output) for cell in notebook["cells"] for output in cell.get("outputs", ()))


def _figure(notebook: Any) -> tuple[bytes | None, str]:
    """The first picture among the outputs, and its text."""
    for cell, output in _outputs(notebook):
        for kind in ("image/png", "image/jpeg"):
            if kind in output.get("data", {}):
                alt = output["metadata"].get(kind, {}).get("alt") or cell["metadata"].get("alt")
                return base64.b64decode(output["data"][kind]), alt or "A figure"
    return None, ""


def _explorer(model_id: str, notebook: Any) -> dict[str, Any] | None:
    """What an explorer needs without a kernel; None where the notebook has not stored it."""
    stored = notebook["metadata"].get("widgets", {}).get(STATE, {}).get("state", {}).get(model_id)
    state = dict(stored["state"]) if stored else {}
    esm, css = state.pop("_esm", None), state.pop("_css", "")
    if not esm:
        return None
    return {
        "id": model_id,
        "esm": esm,
        "css": css,
        "state": state,
        "buffers": stored.get("buffers", []),
    }


def _settled(
    soup: BeautifulSoup, name: str, others: Collection[str], address: Callable[[str, str], str]
) -> list[tuple[int, str, str]]:
    """Make the parts fit among others; returns the headings as (level, id, HTML).

    Headings get ids that start with the notebook's name and go one level down, for the page has
    the first for itself. What would run or be fetched goes: offline it would stay empty.
    """
    for tag in soup.select('script:not([type="application/json"]), link, meta, base, iframe'):
        tag.decompose()
    for tag in soup.select("[src]"):
        if not str(tag["src"]).startswith("data:"):
            tag.decompose()
    for tag in soup.select('[id^="cell-id="]'):
        del tag["id"]
    for tag in soup.select("pre, .output_html"):
        tag["tabindex"] = "0"
    headings: list[tuple[int, str, str]] = []
    for tag in soup.find_all(re.compile(r"^h[1-6]$")):
        slug = first = f"{name}/{_slug(tag.get_text())}"
        number = 2
        while slug in [known for _, known, _ in headings]:
            slug, number = f"{first}-{number}", number + 1
        level = int(tag.name[1])
        headings.append((level, slug, tag.decode_contents()))
        tag.name, tag["id"] = f"h{min(level + 1, 6)}", slug
    for link in soup.select("a[href]"):
        target, _, place = str(link["href"]).partition("#")
        stem = target.removesuffix(".ipynb").rsplit("/", 1)[-1] if target else name
        if target and not target.endswith(".ipynb"):
            continue
        if stem in (name, *others):
            link["href"] = address(stem, place and f"{stem}/{_slug(place)}")
        else:
            link.unwrap()
    return headings


def _slug(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-").lower() or "section"


@pass_context
def _markdown(context: Any, source: str) -> str:
    renderer = _Renderer(
        escape=False,
        embed_images=True,
        exclude_anchor_links=True,
        path=context["resources"]["metadata"]["path"],
        attachments=context.get("cell", {}).get("attachments", {}),
    )
    return MarkdownWithMath(renderer=renderer).render(source)


class _Renderer(IPythonRenderer):
    def block_math(self, body: str) -> str:
        return tex_to_mathml(body, block=True)

    def inline_math(self, body: str) -> str:
        return tex_to_mathml(body)

    def latex_environment(self, name: str, body: str) -> str:
        starred = name if name.endswith("*") else f"{name}*"  # no equation numbers
        return tex_to_mathml(rf"\begin{{{starred}}}{body}\end{{{starred}}}", block=True)


def tex_to_mathml(tex: str, block: bool = False) -> str:
    """A formula as a MathML element; as its own TeX, in code, where it cannot be converted."""
    from latex2mathml.converter import convert

    source = tex.strip()
    for name, known in TEX_NAMES:
        source = source.replace(name, known)
    try:
        mathml = convert(source, display="block" if block else "inline")
    except Exception:  # the converter has an error class of its own for each kind of fault
        mathml = ""
    if not mathml or "<mi>\\" in mathml:  # the latter: a command that it does not know
        code = f'<code class="tex">{html.escape(tex.strip())}</code>'
        return f"<p>{code}</p>" if block else code
    for name, known in MATHML_NAMES:
        mathml = mathml.replace(name, known)
    space = '<mspace width="0.167em"/>'
    mathml = FUNCTION.sub(rf"<mrow>{space}<mi>\2</mi>{space}</mrow>", mathml)
    text = html.escape(" ".join(tex.split()), quote=True)
    return mathml.replace("<math ", f'<math alttext="{text}" ', 1)
