"""One page of many segmented photos, in a file that needs no other."""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO
from pathlib import Path

from ..files import write_all
from ..segmentation import Segmentation
from .segmentation import percent

LONGEST = 400  # px of the larger side of a photo on the page
STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:90rem;padding:0 1rem;
color:#191919;background:#fff}main{display:grid;gap:1.5rem;
grid-template-columns:repeat(auto-fill,minmax(16rem,1fr))}figure{margin:0}img{width:100%}
figcaption{overflow-wrap:anywhere}"""


class Gallery:
    """Collects results as small pictures, then writes index.html with all of them."""

    def __init__(self) -> None:
        self._figures: list[str] = []
        self._protocols: dict[str, None] = {}

    def add(self, result: Segmentation, name: str) -> None:
        """The overlay of a photo with its legend, shrunk, under its name."""
        picture = BytesIO()
        result.overlay(longest=LONGEST).convert("RGB").save(picture, "JPEG", quality=85)
        source = base64.b64encode(picture.getvalue()).decode()
        areas = result.areas()
        found = ", ".join(f"{c} {percent(areas[c])}" for c in result.found) or "no class found"
        self._protocols[result.protocol.describe()] = None
        self._figures.append(
            f'<figure><img alt="{escape(name)}: {escape(found)}" loading="lazy" '
            f'src="data:image/jpeg;base64,{source}"><figcaption>{escape(name)}</figcaption></figure>'
        )

    def save(self, folder: Path) -> Path:
        """Write `folder`/index.html, whole or not at all."""
        count = len(self._figures)
        title = f"{count} segmented photo{'' if count == 1 else 's'}"
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        page = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
            f"<p>{escape('; '.join(self._protocols))}</p><main>{''.join(self._figures)}</main>"
            "</body></html>\n"
        )
        return write_all(folder, {"index.html": page.encode()})[0]
