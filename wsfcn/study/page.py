"""Pages of executed notebooks that need no other file and no network.

Everything is inlined, and a content security policy forbids every request and every script but
the one that brings stored explorers to life, so a page shows the same offline, from a memory
stick or as an e-mail attachment.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image, ImageChops
from pygments.formatters import HtmlFormatter

from ..files import check_output_folder, write_all
from .export import TEMPLATES, Rendered, render_notebook
from .parameters import PARAMETERS

THUMBNAIL = (640, 400)  # px, at most
PICTURE = (1600, 1600)  # px, at most


@dataclass(frozen=True)
class Score:
    """A figure for a card: "mIoU", "61.3 %", and under what protocol."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture with its caption; `alt` says what is to be seen for those who cannot see it."""

    image: Image.Image
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Bars:
    """A table of names and percentages, drawn as bars as well; NaN has none."""

    title: str
    values: Mapping[str, float]
    note: str = ""


def build_page(
    folder: str | Path,
    notebooks: Sequence[str | Path],
    *,
    title: str,
    lead: str = "",
    scores: Sequence[Score] = (),
    pictures: Sequence[Picture] = (),
    tables: Sequence[Bars] = (),
    facts: Mapping[str, Any] | None = None,
    credits: Sequence[str] = (),
    apart: bool = False,
) -> Path:
    """Write `folder`/index.html and return its path.

    notebooks: executed copies, in the order of the course; they are parts of the page, or files
    NAME.html beside it where they are to be `apart`. lead: a sentence below the title. facts:
    name -> value, what the run was (recipe, protocol, time). credits: lines for the foot. Texts
    are plain text. Raises NotebookError for a notebook that cannot be read, ValueError for a
    picture without `alt`, OSError where a file cannot be read or written; then no page is left
    half-written.
    """
    folder = check_output_folder(folder)
    names = [Path(notebook).stem for notebook in notebooks]
    if len(set(names)) < len(names):
        raise ValueError(f"two notebooks have the same name: {', '.join(sorted(names))}")

    def address(name: str, place: str = "") -> str:
        anchor = f"#{place}" if place else ""
        return f"{name or 'index'}.html{anchor}" if apart else anchor or f"#{name or 'top'}"

    rendered = [render_notebook(notebook, names, address) for notebook in notebooks]
    cards = [(item, _thumbnail(item), _question(item)) for item in rendered]
    for picture in pictures:
        if not picture.alt.strip():
            raise ValueError(f"a picture needs a text for alt (caption {picture.caption!r})")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = _duration
    template = environment.get_template("page.html")

    def page(shown: Sequence[Rendered], home: bool) -> bytes:
        script = _text("explorers.js") if any(one.alive for one in shown) else ""
        return template.render(
            title=title if home else f"{shown[0].name} · {title}",
            heading=title,
            lead=lead,
            home=home,
            shown=shown,
            names=names,
            titles=[one.title for one in rendered],
            cards=cards if home else [],
            address=address,
            scores=scores,
            pictures=[(_data_url(one.image, PICTURE), one) for one in pictures],
            tables=tables,
            facts=facts or {},
            credits=credits,
            style=_text("page.css") + HtmlFormatter(style="friendly").get_style_defs(".highlight"),
            script=script,
            policy=_policy(script),
        ).encode()

    pages = {"index.html": page([] if apart else rendered, True)}
    if apart:
        pages |= {f"{one.name}.html": page([one], False) for one in rendered}
    return write_all(folder, pages)[0]


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Nothing is fetched; our own script runs, and what it makes itself (blob:), nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"; script-src 'sha256-{digest}' blob:" if script else ""
    return f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'{allowed}"


def _question(notebook: Rendered) -> str:
    """What a notebook of the course is about, in a line; of others the first paragraph."""
    schema = PARAMETERS.get(notebook.name)
    line = ((schema and schema.__doc__) or "").partition("\n")[0].partition(": ")[2]
    return html.escape(line[:1].upper() + line[1:]) or notebook.summary


def _thumbnail(notebook: Rendered) -> str | None:
    if notebook.figure is None:
        return None
    return _data_url(Image.open(io.BytesIO(notebook.figure)), THUMBNAIL, cropped=True)


def _data_url(image: Image.Image, largest: tuple[int, int], cropped: bool = False) -> str:
    """Scaled to fit, on white; a PNG where there are few colours, for sharp edges, else a JPEG."""
    few, layer = image.mode in ("P", "1", "L"), image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(layer, mask=layer)
    if cropped:  # without the white around a plot
        page = page.crop(ImageChops.invert(page.convert("L")).getbbox())
    page.thumbnail(largest, Image.Resampling.LANCZOS)
    buffer, kind = io.BytesIO(), "png" if few else "jpeg"
    page.save(buffer, kind, quality=88, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _duration(seconds: float) -> str:
    """94 -> "1 min 34 s"."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{max(whole, 1)} s"
