"""Notebook files: where they are, what is in them, which parameters they take."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from ..settings import SettingsError
from .parameters import PARAMETERS, CellParameters, NotebookParameters

FOLDER = Path(__file__).parents[2] / "notebooks"


class NotebookError(Exception):
    """A notebook that cannot be run or failed; the message is one line."""


def find_notebook(path: str | Path) -> Path:
    """The notebook at a path, or of a name in the course's folder.

    Raises NotebookError that offers the nearest name or lists the notebooks there are.
    """
    path = Path(path)
    if path.is_file():
        return path.absolute()
    bare = path.parent == Path()
    if bare and (named := FOLDER / f"{path.stem}.ipynb").is_file():
        return named
    there = [p.stem for p in (*(notebooks() if bare else ()), *notebooks(path.parent))]
    near = difflib.get_close_matches(path.stem, there, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(there) or 'none'}"
    raise NotebookError(f"{path}: no such notebook; {hint}")


def notebooks(folder: str | Path | None = None) -> list[Path]:
    """The notebooks in a folder, by default those of the course, in their order."""
    folder = FOLDER if folder is None else Path(folder)
    return sorted(p for p in folder.glob("*.ipynb") if not p.name.startswith("."))


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook's JSON, lines joined. Raises NotebookError where it is none (format 4)."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)  # type: ignore[no-any-return,no-untyped-call]
    except OSError as error:
        raise NotebookError(f"{path}: {error.strerror}") from None
    except Exception as error:  # nbformat raises a different kind for each way to be broken
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotebookError(f"{path}: is not a notebook that can be read ({text:.120})") from None


def parameters_source(notebook: Mapping[str, Any]) -> str | None:
    """The source of the cell tagged "parameters"; None where there is none."""
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()) and cell["cell_type"] == "code":
            return str(cell["source"])
    return None


def schema_of(notebook: Mapping[str, Any], name: str) -> type[CellParameters]:
    """The schema that a notebook's parameters are held to.

    It is the one in PARAMETERS for the course's own notebooks, and for others the names and
    types of the plain assignments in their parameters cell. Raises NotebookError without one.
    """
    source = parameters_source(notebook)
    if source is None:
        raise NotebookError(f"{name}: has no parameters cell (a code cell tagged 'parameters')")
    if name in PARAMETERS:
        return PARAMETERS[name]
    try:
        values = assignments(source)
    except ValueError as error:
        raise NotebookError(f"{name}: parameters cell: {error}") from None
    fields: dict[str, Any] = {name: (_type(v), Field(v)) for name, v in values.items()}
    return create_model(f"Parameters of {name}", __base__=CellParameters, **fields)


def _type(value: Any) -> Any:
    """The type that a parameter keeps whose default is this value."""
    if isinstance(value, list) and len({type(item) for item in value}) == 1:
        return list[type(value[0])]  # type: ignore[misc]
    return Any if value is None else type(value)


def assignments(source: str) -> dict[str, Any]:
    """The names and values of a cell of plain assignments. ValueError names another line."""
    values: dict[str, Any] = {}
    try:
        nodes = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno} is not Python") from None
    for node in nodes:
        try:
            [target] = node.targets  # type: ignore[attr-defined]
            values[target.id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
        except (AttributeError, ValueError):
            line = f"line {node.lineno} is no plain assignment, name = value"
            raise ValueError(line) from None
    return values


def resolve(
    schema: type[CellParameters], given: Mapping[str, Any], profile: str | None = None
) -> dict[str, Any]:
    """All parameters of a run as plain values: those given over the defaults of the profile.

    A notebook without a parameter `profile` is the same in all of them. Raises SettingsError
    that names the field and what it takes.
    """
    given = dict(given)
    if "profile" not in schema.model_fields:
        return schema().change(given).model_dump(mode="json")
    if profile is not None and given.setdefault("profile", profile) != profile:
        raise SettingsError(f"profile: is {given['profile']!r} and {profile!r}; give it once")
    start = schema()
    if isinstance(start, NotebookParameters):
        start = start.defaults(given.get("profile", "smoke"))
    return start.change(given).model_dump(mode="json")
