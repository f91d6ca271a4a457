"""A figure that shows itself in a notebook, with a text for those who do not see it."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A Figure outside pyplot: the last line of a cell shows it, once, whatever was imported.

    `alt` goes into the metadata of the output, where page writers look for it.
    """

    def __init__(self, width: float, height: float, alt: str = "", **options: Any) -> None:
        """Width and height in inches."""
        own: dict[str, Any] = {"dpi": 130, "layout": "constrained", "facecolor": "white"}
        super().__init__(figsize=(width, height), **(own | options))
        self.alt = alt

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        file = BytesIO()
        self.savefig(file, format="png")
        bundle = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": self.alt}
        return bundle, {"image/png": {"alt": self.alt}}
