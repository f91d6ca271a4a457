"""Each notebook as a pair: NAME.ipynb without outputs, and src/NAME.py, its text for review.

`python -m wsfcn.study.pairs sync` writes the notebooks from their texts, and the parameters
cells of both from their schemas; `check` says what is out of step and changes nothing. What a
text has between `# begin solution` and `# end solution` is not in its notebook; `solved SRC
OUT.ipynb` writes one that keeps it.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jupytext
import nbformat
from nbformat import v4

from .parameters import PARAMETERS, parameters_cell
from .sources import FOLDER, NotebookError, parameters_source, read_notebook

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KEPT = ("tags", "alt")  # metadata of a cell that travels between the two
SOLUTION = re.compile(r"^([ ]*)# begin solution\n.*?^[ ]*# end solution$", re.MULTILINE | re.DOTALL)
OPEN = "...  # your code here"  # what stands in the notebook for a solution
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
        text_path, path = folder / "src" / f"{name}.py", folder / f"{name}.ipynb"
        try:
            text = _cells(text_path) if text_path.exists() else None
            cells = _cells(path) if path.exists() else without_solutions(text or [])
            if text is not None and source == "notebook":
                cells = _with_solutions(name, cells, text)
        except NotebookError as error:
            problems.append(str(error))
            continue
        if text is not None and source != "notebook":
            age = path.stat().st_mtime - text_path.stat().st_mtime if path.exists() else 0
            if source is None and cells != without_solutions(text) and age > MTIME_SLACK:
                problems.append(
                    f"{name}: the notebook was edited after its text; "
                    "say sync --from notebook, or --from text"
                )
                continue
            cells = text
        made = _with_parameters(name, cells)
        if made != text:  # else the text stays as its author laid it out
            written += _write(text_path, _to_text(made))
        written += _write(path, _to_notebook(without_solutions(made)))
        problems += _problems(folder, name)
    return written, problems


def _problems(folder: Path, name: str) -> list[str]:
    text_path, path = folder / "src" / f"{name}.py", folder / f"{name}.ipynb"
    if not text_path.exists():
        return [f"{name}: has no text src/{name}.py; run sync"]
    if not path.exists():
        return [f"{name}: has no notebook {name}.ipynb; run sync"]
    try:
        text, notebook = _cells(text_path), _cells(path)
    except NotebookError as error:
        return [str(error)]
    problems, shown = [], without_solutions(text)
    if shown != notebook:
        pairs = enumerate(zip(shown, notebook, strict=False), 1)
        number = next((n for n, (a, b) in pairs if a != b), min(len(shown), len(notebook)) + 1)
        problems.append(f"{name}: notebook and text differ from cell {number} on; run sync")
    elif path.read_text(encoding="utf-8") != _to_notebook(shown):
        problems.append(f"{name}: holds outputs, or ids or metadata of its own; run sync")
    if any(mark in c["source"] for c in shown for mark in ("# begin solution", "# end solution")):
        problems.append(f"{name}: a solution without its begin or end")
    if parameters_source({"cells": text}) is None:
        problems.append(f"{name}: has no code cell tagged 'parameters'")
    elif name not in PARAMETERS:
        problems.append(f"{name}: has no schema in wsfcn.study.parameters.PARAMETERS")
    elif text != _with_parameters(name, text):
        problems.append(f"{name}: the parameters cell is not its schema's; run sync")
    return problems


def without_solutions(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells as the reader gets them: dots in place of the solutions."""
    return [c | {"source": SOLUTION.sub(rf"\1{OPEN}", c["source"])} for c in cells]


def _with_solutions(
    name: str, cells: list[dict[str, Any]], text: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The cells of a notebook, the n-th dots replaced by the n-th solution of its text.

    Raises NotebookError where there are fewer or more: no solution is lost by a sync.
    """
    solutions = [found[0] for c in text for found in SOLUTION.finditer(c["source"])]
    if sum(c["source"].count(OPEN) for c in cells) != len(solutions):
        raise NotebookError(f"{name}: {len(solutions)} times {OPEN!r} must stand in the notebook")
    following = iter(solutions)
    dots = re.compile(rf"^[ ]*{re.escape(OPEN)}$", re.MULTILINE)
    return [c | {"source": dots.sub(lambda _: next(following), c["source"])} for c in cells]


def _cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook or of a text, without all that is not source."""
    try:
        if path.suffix == ".py":
            notebook = jupytext.reads(path.read_text(encoding="utf-8"), "py:percent")
        else:
            notebook = read_notebook(path)
    except (OSError, ValueError, SyntaxError) as error:
        raise NotebookError(f"{path}: is not a text of cells ({error})") from None
    return [
        {
            "cell_type": cell["cell_type"],
            "source": cell["source"].strip("\n"),
            "metadata": {key: cell["metadata"][key] for key in KEPT if key in cell["metadata"]},
        }
        for cell in notebook["cells"]
    ]


def _with_parameters(name: str, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells, the parameters cell as its schema says."""
    if name not in PARAMETERS:
        return cells
    own = {"source": parameters_cell(PARAMETERS[name])}
    return [c | own if "parameters" in c["metadata"].get("tags", ()) else c for c in cells]


def _notebook(cells: list[dict[str, Any]], metadata: dict[str, Any]) -> Any:
    """A notebook without outputs whose ids follow from the cells."""
    make = {"code": v4.new_code_cell, "markdown": v4.new_markdown_cell, "raw": v4.new_raw_cell}
    counts: Counter[str] = Counter()
    made = []
    for cell in cells:
        text = f"{cell['cell_type']}\n{cell['source']}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        counts[digest] += 1
        name = digest if counts[digest] == 1 else f"{digest}-{counts[digest]}"
        options = {"source": cell["source"], "metadata": cell["metadata"], "id": name}
        made.append(make[cell["cell_type"]](**options))
    return v4.new_notebook(cells=made, metadata=metadata)


def _to_text(cells: list[dict[str, Any]]) -> str:
    filters = {
        "notebook_metadata_filter": "-all",
        "cell_metadata_filter": ",".join((*KEPT, "-all")),
    }
    return jupytext.writes(_notebook(cells, {"jupytext": filters}), "py:percent")


def _to_notebook(cells: list[dict[str, Any]]) -> str:
    return str(nbformat.writes(_notebook(cells, METADATA))).rstrip("\n") + "\n"


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
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("sync", "check"):
        command = commands.add_parser(name)
        command.add_argument("--folder", type=Path, default=FOLDER)
    commands.choices["sync"].add_argument("--from", dest="source", choices=("text", "notebook"))
    command = commands.add_parser("solved")
    command.add_argument("text", type=Path)
    command.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "solved":
        options.out.write_text(_to_notebook(_cells(options.text)), encoding="utf-8")
        return 0
    if options.command == "sync":
        written, problems = sync(options.folder, options.source)
        for path in written:
            print(f"written: {path}")
    else:
        problems = check(options.folder)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"notebooks in step with their texts: {', '.join(names(options.folder))}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
