"""Results of a notebook: published in its output, read back from the executed copy."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MIME = "application/vnd.wsfcn.record+json"
SHOWN = 72  # characters; of longer lists and dicts a reader sees how many entries there are


class RecordError(ValueError):
    """A value that cannot be recorded."""


def record(name: str, value: Any) -> None:
    """Record a result of this notebook under a name; the same name again replaces it.

    value: a number, text, truth value or None, or lists and dicts of these; numpy scalars and
    arrays and tensors count as numbers and lists. The record appears in the cell's output as
    "name = value", or "name: 12 entries" where that would be long; outside a notebook the value is
    checked and nothing else happens. Raises RecordError for anything else, and for NaN or infinity:
    JSON has neither, and a result that is not a number is a fault to look at.
    """
    if not isinstance(name, str) or not name.strip():
        raise RecordError(f"a record needs a name, got {name!r}")
    plain = _plain(name, value)
    kernel = sys.modules.get("IPython")
    if kernel is not None and kernel.get_ipython() is not None:
        text = f"{name} = {json.dumps(plain, ensure_ascii=False)}"
        if len(text) > SHOWN and isinstance(plain, list | dict):
            text = f"{name}: {len(plain)} entries"
        kernel.display.display({MIME: {"name": name, "value": plain}, "text/plain": text}, raw=True)


def read_records(notebook: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The records in the outputs of an executed notebook, name -> value, in order.

    Raises NotebookError where the file is missing or is no notebook.
    """
    from .sources import read_notebook  # not needed in the notebooks that record

    content = notebook if isinstance(notebook, Mapping) else read_notebook(Path(notebook))
    outputs = [output for cell in content["cells"] for output in cell.get("outputs", ())]
    found = [output["data"][MIME] for output in outputs if MIME in output.get("data", ())]
    return {one["name"]: one["value"] for one in found}


def _plain(name: str, value: Any) -> Any:
    """The value in JSON's own types."""

    def values_of(item: Any) -> Any:
        if hasattr(item, "tolist"):  # numpy and torch: their values as Python numbers and lists
            return item.tolist()
        raise RecordError(
            f"{name}: a {type(item).__name__} cannot be recorded; "
            "numbers, texts, and lists and dicts of them can"
        )

    try:
        return json.loads(json.dumps(value, default=values_of, allow_nan=False))
    except RecordError:
        raise
    except (TypeError, ValueError) as error:  # NaN, infinity, a key that is no text
        raise RecordError(f"{name}: cannot be recorded ({error})") from None
