"""Each notebook as a pair: NAME.ipynb without outputs, and src/NAME.py, its text for review.

`python -m wsfcn.study.pairs sync` writes the notebooks from their texts, and the parameters
cells of both from their schemas; `check` says what is out of step and changes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from .parameters import PARAMETERS, parameters_cell
from .sources import FOLDER, NotebookError, parameters_source, read_notebook

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KEPT = ("tags", "alt")  # metadata of a cell that travels between the two; jupytext.toml says so too
MTIME_SLACK = 1.0  # seconds; copies and checkouts write both halves at about the same time


def names(folder: Path = FOLDER) -> list[str]:
    """The pairs of a folder, whichever half is there, in order."""
    found = [*folder.glob("*.ipynb"), *(folder / "src").glob("*.py")]
    return sorted({path.stem for path in found if not path.name.startswith(".")})


def check(folder: Path = FOLDER) -> list[str]:
    """What is wrong with the pairs of a folder, a line each; empty where all is well."""
    return [problem for name in names(folder) for problem in _problems(folder, name)]


def sync(
    folder: Path = FOLDER, source: Literal["text", "notebook"] | None = None
) -> tuple[list[Path], list[str]]:
    """Bring the pairs into step; returns the files written and the problems left.

    The texts are the source, also of a notebook edited earlier; a notebook edited after its
    text is left alone, and said so, unless `source` names the half that counts.
    """
    written, problems = [], []
    for name in names(folder):
        text_path, notebook_path = _paths(folder, name)
        try:
            text = _read_text(text_path) if text_path.exists() else None
            notebook = read_notebook(notebook_path) if notebook_path.exists() else None
            if text is None or (source == "notebook" and notebook is not None):
                cells = _cells(notebook)
            elif source is None and _edited_later(notebook_path, notebook, text_path, text):
                problems.append(
                    f"{name}: the notebook was edited after its text; "
                    "say sync --from notebook, or --from text"
                )
                continue
            else:
                cells = text
        except NotebookError as error:
            problems.append(str(error))
            continue
        before = None if text is None else _essence(text)
        _set_parameters(name, cells)
        if _essence(cells) != before:  # else the text stays as its author laid it out
            written += _write(text_path, _to_text(cells))
        written += _write(notebook_path, _to_notebook(cells))
        problems += _problems(folder, name)
    return written, problems


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / "src" / f"{name}.py", folder / f"{name}.ipynb"


def _problems(folder: Path, name: str) -> list[str]:
    text_path, notebook_path = _paths(folder, name)
    if not text_path.exists():
        return [f"{name}: has no text src/{name}.py; run sync"]
    if not notebook_path.exists():
        return [f"{name}: has no notebook {name}.ipynb; run sync"]
    try:
        text, notebook = _read_text(text_path), read_notebook(notebook_path)
    except NotebookError as error:
        return [str(error)]
    problems = []
    for number, cell in enumerate(notebook["cells"], 1):
        if cell.get("outputs") or cell.get("execution_count"):
            problems.append(f"{name}: cell {number} holds outputs; run sync")
    here, there = _essence(text), _essence(_cells(notebook))
    if here != there:
        pairs = enumerate(zip(here, there, strict=False), 1)
        number = next((n for n, (a, b) in pairs if a != b), min(len(here), len(there)) + 1)
        problems.append(f"{name}: notebook and text differ from cell {number} on; run sync")
    elif not problems and notebook_path.read_text(encoding="utf-8") != _to_notebook(text):
        problems.append(f"{name}: ids or metadata are not as sync writes them; run sync")
    return problems + _parameter_problems(name, text)


def _parameter_problems(name: str, cells: list[Any]) -> list[str]:
    source = parameters_source({"cells": cells})
    if source is None:
        return [f"{name}: has no code cell tagged 'parameters'"]
    if name not in PARAMETERS:
        return [f"{name}: has no schema in wsfcn.study.parameters.PARAMETERS"]
    wanted = parameters_cell(PARAMETERS[name]).splitlines()
    given = source.splitlines()
    if given == wanted:
        return []
    new = [line for line in given if line not in wanted] or ["a line is missing"]
    return [f"{name}: the parameters cell is not its schema's ({new[0]:.60}); run sync"]


def _set_parameters(name: str, cells: list[Any]) -> None:
    """Make the parameters cell what its schema says."""
    for cell in cells if name in PARAMETERS else ():
        if "parameters" in cell["metadata"].get("tags", ()):
            cell["source"] = parameters_cell(PARAMETERS[name])


def _edited_later(notebook_path: Path, notebook: Any, text_path: Path, text: list[Any]) -> bool:
    if notebook is None or _essence(_cells(notebook)) == _essence(text):
        return False
    return notebook_path.stat().st_mtime > text_path.stat().st_mtime + MTIME_SLACK


def _essence(cells: list[Any]) -> list[tuple[Any, ...]]:
    """What the two halves have to share."""
    return [(cell["cell_type"], cell["source"], cell["metadata"]) for cell in cells]


def _cells(notebook: Any) -> list[Any]:
    """A notebook's cells without all that is not source."""
    from nbformat import v4

    make = {"code": v4.new_code_cell, "markdown": v4.new_markdown_cell, "raw": v4.new_raw_cell}
    return [
        make[cell["cell_type"]](
            source=cell["source"].strip("\n"),
            metadata={key: cell["metadata"][key] for key in KEPT if key in cell["metadata"]},
        )
        for cell in notebook["cells"]
    ]


def _read_text(path: Path) -> list[Any]:
    import jupytext

    try:
        text = path.read_text(encoding="utf-8")
        return _cells(jupytext.reads(text, "py:percent"))
    except OSError as error:
        raise NotebookError(f"{path}: {error.strerror}") from None
    except (ValueError, SyntaxError) as error:
        raise NotebookError(f"{path}: is not a text of cells ({error})") from None


def _to_text(cells: list[Any]) -> str:
    import jupytext
    from nbformat import v4

    notebook = v4.new_notebook(cells=cells)
    notebook["metadata"]["jupytext"] = {
        "notebook_metadata_filter": "-all",
        "cell_metadata_filter": ",".join((*KEPT, "-all")),
    }
    return jupytext.writes(notebook, "py:percent")


def _to_notebook(cells: list[Any]) -> str:
    """The one form of a notebook with these cells: no outputs, ids that follow from the cells."""
    import nbformat

    counts: dict[str, int] = {}
    for cell in cells:
        digest = hashlib.sha256(f"{cell['cell_type']}\n{cell['source']}".encode()).hexdigest()[:8]
        counts[digest] = counts.get(digest, 0) + 1
        cell["id"] = digest if counts[digest] == 1 else f"{digest}-{counts[digest]}"
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"


def _write(path: Path, text: str) -> list[Path]:
    """Write what has changed only; returns the path if it has."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return [path]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a problem is left."""
    parser = argparse.ArgumentParser(prog="python -m wsfcn.study.pairs", description=__doc__)
    parser.add_argument("command", choices=("sync", "check"))
    parser.add_argument("--from", dest="source", choices=("text", "notebook"))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    if options.command == "sync":
        written, problems = sync(options.folder, options.source)
        for path in written:
            print(f"written: {path}")
    else:
        problems = check(options.folder)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        count = len(names(options.folder))
        print("1 notebook," if count == 1 else f"{count} notebooks, each", "in step with its text")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
