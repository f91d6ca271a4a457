"""The page of a course run: scores, masks and executed notebooks in one file that needs no other.

Everything is inlined, no script runs, and a content security policy forbids every request, so
the page shows the same offline, from a memory stick or as an e-mail attachment.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from ..files import check_output_folder, write_all
from .render import Rendered, render_notebook

TEMPLATES = Path(__file__).parent / "templates"
THUMBNAIL = (640, 400)  # px, at most
PICTURE_SIDE = 1600  # px; larger pictures are scaled down


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
class Table:
    """A table; numbers are aligned, those of the column `bar` (percent) drawn as bars as well."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    bar: str | None = None
    note: str = ""

    def numeric(self, column: int) -> bool:
        """Whether the column's heading stands over right-aligned numbers."""
        drawn = self.columns[column] == self.bar
        return not drawn and any(isinstance(row[column], int | float) for row in self.rows)


def build_page(
    folder: str | Path,
    notebooks: Sequence[str | Path],
    *,
    title: str,
    lead: str = "",
    scores: Sequence[Score] = (),
    pictures: Sequence[Picture] = (),
    tables: Sequence[Table] = (),
    facts: Mapping[str, Any] | None = None,
    credits: Sequence[str] = (),
) -> Path:
    """Write `folder`/index.html and return its path.

    notebooks: executed copies, in the order of the course. lead: a sentence below the title.
    facts: name -> value, what the run was (recipe, protocol, time). credits: lines for the foot.
    Texts are plain text. Raises NotebookError for a notebook that cannot be read, ValueError for
    a picture without `alt`, OSError where a file cannot be read or written; then no page is
    left half-written.
    """
    import jinja2

    folder = check_output_folder(folder)
    names = [Path(notebook).stem for notebook in notebooks]
    if len(set(names)) < len(names):
        raise ValueError(f"two notebooks have the same name: {', '.join(sorted(names))}")
    rendered = [render_notebook(notebook, names) for notebook in notebooks]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(duration=_duration, number=_number, percent=_percent)
    page = environment.get_template("page.html").render(
        title=title,
        lead=lead,
        scores=scores,
        pictures=[(_picture(picture), picture) for picture in pictures],
        tables=tables,
        notebooks=[(item, _thumbnail(item)) for item in rendered],
        facts=facts or {},
        credits=credits,
        style=_style(),
    )
    return write_all(folder, {"index.html": page.encode()})[0]


def _style() -> str:
    from pygments.formatters import HtmlFormatter

    code = HtmlFormatter(style="friendly").get_style_defs(".input")
    return (TEMPLATES / "page.css").read_text(encoding="utf-8") + code


def _picture(picture: Picture) -> str:
    """The picture as a data URL, scaled to fit."""
    if not picture.alt.strip():
        raise ValueError(f"a picture needs a text for alt (caption {picture.caption!r})")
    return _data_url(picture.image, (PICTURE_SIDE, PICTURE_SIDE))


def _thumbnail(notebook: Rendered) -> str | None:
    if notebook.figure is None:
        return None
    image = Image.open(io.BytesIO(notebook.figure)).convert("RGBA")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image)
    box = ImageChops.invert(page.convert("L")).getbbox()  # without the white around a plot
    return _data_url(page.crop(box), THUMBNAIL)


def _data_url(image: Image.Image, largest: tuple[int, int]) -> str:
    """A PNG of few colours stays one, for sharp edges; all else becomes a JPEG on white."""
    few = image.mode in ("P", "1", "L")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image).convert("RGB")
    image.thumbnail(largest, Image.Resampling.LANCZOS)
    buffer, kind = io.BytesIO(), "png" if few else "jpeg"
    image.save(buffer, kind, quality=88, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _duration(seconds: float) -> str:
    """94 -> "1 min 34 s"."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{max(whole, 1)} s"


def _number(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _percent(value: Any) -> float:
    """The length of a bar, 0 to 100; NaN has none."""
    return min(max(float(value), 0.0), 100.0) if value == value else 0.0
