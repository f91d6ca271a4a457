"""What the explorers have in common: an anywidget whose output also holds a still picture."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import anywidget
from PIL import Image


class Interactive(anywidget.AnyWidget):
    """A widget of one ESM file; where no script runs, a PNG and a text stand in for it.

    A subclass sets `_esm` to its file, its traits, and `alt`, the text; `still` is the picture.
    """

    alt = "An interactive figure"

    def still(self) -> Image.Image:
        """What readers see who have no scripts: GitHub, PDF, an untrusted notebook."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        file = BytesIO()
        self.still().save(file, "PNG", optimize=True)
        data |= {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": self.alt}
        return data, metadata | {"image/png": {"alt": self.alt}}
