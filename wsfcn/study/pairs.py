"""Each notebook from its text: src/NAME.py, where it is written, makes NAME.ipynb.

`python -m wsfcn.study.pairs sync` writes the notebooks, and the parameters cells of the texts
from their schemas; `check` says what is out of step and changes nothing. What a text has between
`# begin solution` and `# end solution` is not in its notebook; `solved SRC OUT.ipynb` keeps it.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import v4

from .parameters import PARAMETERS, parameters_cell
from .sources import FOLDER, NotebookError, read_notebook

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KEPT = ("tags", "alt")  # metadata of a cell that the notebook gets
PARAMETERS_CELL = re.compile(r'^(# %% tags=\["parameters"\]\n).*?(?=\n# %%|\Z)', re.M | re.S)
SOLUTION = re.compile(r"^([ ]*)# begin solution\n.*?^[ ]*# end solution$", re.M | re.S)
OPEN = "...  # your code here"  # what stands in the notebook for a solution
MTIME_SLACK = 1.0  # seconds; copies and checkouts write both halves at about the same time


def cells(text: str, solved: bool = False) -> list[dict[str, Any]]:
    """The cells of a text as the notebook has them: dots in place of the solutions."""
    made = []
    for cell in jupytext.reads(text, "py:percent")["cells"]:
        source = cell["source"].strip("\n")
        source = source if solved else SOLUTION.sub(rf"\1{OPEN}", source)
        metadata = {key: cell["metadata"][key] for key in KEPT if key in cell["metadata"]}
        made.append({"cell_type": cell["cell_type"], "source": source, "metadata": metadata})
    return made


def notebook(cells: Sequence[dict[str, Any]]) -> str:
    """A notebook without outputs whose ids follow from the cells, as JSON."""
    make = {"code": v4.new_code_cell, "markdown": v4.new_markdown_cell, "raw": v4.new_raw_cell}
    counts: Counter[str] = Counter()
    made = []
    for cell in cells:
        text = f"{cell['cell_type']}\n{cell['source']}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        counts[digest] += 1
        name = digest if counts[digest] == 1 else f"{digest}-{counts[digest]}"
        made.append(make[cell["cell_type"]](cell["source"], metadata=cell["metadata"], id=name))
    return str(nbformat.writes(v4.new_notebook(cells=made, metadata=METADATA))).rstrip("\n") + "\n"


def check(folder: Path = FOLDER) -> list[str]:
    """What is wrong with the pairs of a folder, a line each; empty where all is well."""
    return sync(folder, write=False)[1]


def sync(
    folder: Path = FOLDER, overwrite: bool = False, write: bool = True
) -> tuple[list[Path], list[str]]:
    """Bring the pairs into step; returns the files written and the problems left.

    A notebook edited after its text is left alone, and said so, unless `overwrite`.
    """
    written, problems = [], []
    for path in _notebooks(folder):
        source = folder / "src" / f"{path.stem}.py"
        try:
            text, content = _made(source)
            if not write:
                _compare(source, text)
                _compare(path, content)
                continue
            if not overwrite:
                _unedited(path, source, content)
        except NotebookError as error:
            problems.append(f"{path.stem}: {error}")
            continue
        for target, new in ((source, text), (path, content)):
            if not target.exists() or target.read_text(encoding="utf-8") != new:
                target.write_text(new, encoding="utf-8", newline="\n")
                written.append(target)
    return written, problems


def _notebooks(folder: Path) -> Iterator[Path]:
    """The notebooks of a folder, whichever half is there, in order."""
    found = [*folder.glob("*.ipynb"), *(folder / "src").glob("*.py")]
    stems = sorted({path.stem for path in found if not path.name.startswith(".")})
    return (folder / f"{stem}.ipynb" for stem in stems)


def _made(source: Path) -> tuple[str, str]:
    """What a text, its parameters cell as the schema says, and its notebook should be."""
    if not source.exists():
        raise NotebookError(f"has no text src/{source.name}")
    if source.stem not in PARAMETERS:
        raise NotebookError("has no schema in wsfcn.study.parameters.PARAMETERS")
    own = parameters_cell(PARAMETERS[source.stem])
    text = source.read_text(encoding="utf-8")
    text, found = PARAMETERS_CELL.subn(lambda cell: f"{cell[1]}{own}\n", text)
    if found != 1:
        raise NotebookError("has no code cell tagged 'parameters'")
    made = cells(text)
    if any(re.search("# (begin|end) solution", cell["source"]) for cell in made):
        raise NotebookError("has a solution without its begin or end")
    return text, notebook(made)


def _compare(path: Path, wanted: str) -> None:
    if not path.exists():
        raise NotebookError(f"has no notebook {path.name}; run sync")
    if path.read_text(encoding="utf-8") != wanted:
        raise NotebookError(f"{path.name} is not what text and schema make of it; run sync")


def _unedited(path: Path, source: Path, content: str) -> None:
    """Raises NotebookError where a notebook has newer cells than its text."""
    if not path.exists() or path.stat().st_mtime - source.stat().st_mtime <= MTIME_SLACK:
        return
    there, made = read_notebook(path), nbformat.reads(content, 4)
    if [c["source"] for c in there["cells"]] != [c["source"] for c in made["cells"]]:
        raise NotebookError(
            "the notebook was edited after its text; bring the edit into the text, or say "
            "sync --overwrite"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a problem is left."""
    parser = argparse.ArgumentParser(prog="python -m wsfcn.study.pairs", description=__doc__)
    parser.add_argument("command", choices=("sync", "check", "solved"))
    parser.add_argument("files", nargs="*", type=Path, help="solved: the text and the notebook")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument(
        "--overwrite", action="store_true", help="notebooks edited after their text"
    )
    options = parser.parse_args(arguments)
    if options.command == "solved":
        text, target = options.files
        target.write_text(notebook(cells(text.read_text(encoding="utf-8"), solved=True)))
        return 0
    written, problems = sync(options.folder, options.overwrite, options.command == "sync")
    for path in written:
        print(f"written: {path}")
    print(*problems, sep="\n", end="\n" * bool(problems), file=sys.stderr)
    if not problems:
        there = ", ".join(path.stem for path in _notebooks(options.folder))
        print(f"notebooks in step with their texts: {there}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
