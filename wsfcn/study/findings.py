"""The page of a data check: its tables, and pictures of what it found, in one file.

No script runs and a content security policy forbids every request, as on the page of the course.
"""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.check import Problem, Report
from ..data.images import ImageError, read_image
from ..data.sample import IGNORE
from ..data.voc import read_mat
from ..files import write_all
from ..show.colours import class_colours

SIDE = 220  # px, longest side of a thumbnail
MOST = 60  # problems of a kind that are shown

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left}
td+td,th+th{text-align:right}h2{margin-top:2rem;border-top:1px solid #ddd;padding-top:1rem}
.found{display:flex;flex-wrap:wrap;gap:1rem}
.found>div{border:1px solid #ddd;border-radius:6px;padding:.6rem;max-width:30rem}
.found p{margin:0 0 .4rem;overflow-wrap:anywhere}
figure{display:inline-block;margin:0 .5rem 0 0;vertical-align:top}
img{display:block;max-width:100%}figcaption{font-size:12px;color:#555;max-width:220px;
overflow-wrap:anywhere}.none{width:160px;padding:3rem 0;text-align:center;background:#eee}
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def save_page(report: Report, path: str | Path) -> Path:
    """Write the report as an HTML page; its path. Raises OSError where it cannot be written."""
    path = Path(path)
    title = f"Data check: {report.root}"
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{photos}</td><td>{masks}</td></tr>"
        for name, photos, masks in report.splits
    )
    kinds: dict[str, list[Problem]] = defaultdict(list)
    for problem in report.problems:
        kinds[problem.kind].append(problem)
    found = len(report.problems)
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        f'<meta http-equiv=Content-Security-Policy content="{POLICY}">',
        "<meta name=viewport content='width=device-width'>",
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p>Read as <b>{report.kind}</b>, {len(report.classes)} classes: ",
        f"{escape(', '.join(report.classes))}.</p>",
        f"<p><b>{f'{found} problems' if found else 'Nothing wrong was found.'}</b></p>",
        "<table><tr><th>split</th><th>photos</th><th>masks</th></tr>",
        rows,
        "</table>",
        *(f"<p>Note: {escape(note)}.</p>" for note in report.notes),
    ]
    for kind, problems in kinds.items():
        parts.append(f"<h2>{escape(kind)}: {len(problems)}</h2><div class=found>")
        parts += [_problem(problem, report.root) for problem in problems[:MOST]]
        parts.append("</div>")
        if len(problems) > MOST:
            parts.append(
                f"<p>... and {len(problems) - MOST} more, in the table on the terminal.</p>"
            )
    page = "\n".join([*parts, "</body></html>"])
    return write_all(path.parent, {path.name: page.encode("utf-8", "backslashreplace")})[0]


def _problem(problem: Problem, root: Path) -> str:
    message = problem.message.replace(f"{root}/", "")
    figures = "".join(_figure(caption, file) for caption, file in problem.pictures)
    return f"<div><p><b>{escape(problem.where)}</b>: {escape(message)}</p>{figures}</div>"


def _figure(caption: str, file: Path) -> str:
    try:
        picture = _picture(file)
    except (ImageError, OSError, ValueError, Image.DecompressionBombError):
        return f"<figure><div class=none>no picture</div><figcaption>{escape(caption)}</figure>"
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    kind = "PNG" if file.suffix.lower() == ".png" else "JPEG"
    picture.save(buffer, kind, quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure><img src="data:image/{kind.lower()};base64,{data}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _picture(file: Path) -> Image.Image:
    """A photo as it is; a mask of class indices in the colours of the classes, 255 white."""
    mask = None
    if file.suffix.lower() == ".mat":
        mask = read_mat(file, IGNORE)
    else:
        with Image.open(file) as image:
            if image.format == "PNG" and image.mode in ("P", "L"):
                mask = np.array(image)
    if mask is None:
        return Image.fromarray(read_image(file, upright=False))
    colours = class_colours(256)
    colours[IGNORE] = 255
    return Image.fromarray(colours[mask])
