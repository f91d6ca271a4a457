"""Tiny notebooks, written for the test that needs one."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def write_notebook(tmp_path):
    """write_notebook(cells, name) -> path; a cell is code, or (kind, source, metadata)."""
    from nbformat import v4, write

    make = {"code": v4.new_code_cell, "markdown": v4.new_markdown_cell}

    def build(cells, name: str = "tiny", folder: Path = tmp_path) -> Path:
        made = []
        for cell in cells:
            kind, source, metadata = ("code", cell, {}) if isinstance(cell, str) else cell
            made.append(make[kind](source, metadata=metadata))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.ipynb"
        write(v4.new_notebook(cells=made), path)
        return path

    return build


@pytest.fixture
def parameters():
    """parameters(source) -> the parameters cell with that source."""
    return lambda source: ("code", source, {"tags": ["parameters"]})


@pytest.fixture
def executed(tmp_path):
    """executed(name, *cells, **metadata) -> path of a notebook as a run leaves it."""
    from nbformat import v4, write

    def build(name, *cells, **metadata):
        path = tmp_path / f"{name}.ipynb"
        write(v4.new_notebook(cells=list(cells), metadata=metadata), path)
        return path

    return build
