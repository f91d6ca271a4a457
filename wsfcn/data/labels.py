"""Image labels in a CSV file: one line per image, ``file, class[; class ...]``."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from .sample import DataError


class LabelError(DataError):
    """A label file that cannot be used; the message names file, line and what would be right."""


class Row(NamedTuple):
    """A line of a label file; `where` names file and line, `split` is empty without a column."""

    where: str
    file: str
    classes: tuple[str, ...]
    split: str = ""


def read_rows(path: str | Path) -> list[Row]:
    """The labels as they are written; whether the images exist is not looked at.

    A first line that starts with "file" or "image" is a header; it may name a third column,
    "split". Lines that are empty or start with # are skipped. Raises LabelError for a line with
    another number of columns, without a class, or with a file named before.
    """
    rows: list[Row] = []
    named: set[str] = set()
    lines, has_split = _lines(Path(path))
    right = "file, class; class" + (", split" if has_split else "")
    for line, cells in lines:
        where = f"{path} line {line}"
        if len(cells) != 2 + has_split:
            raise LabelError(f"{where}: needs '{right}', found {len(cells)} column(s)")
        if cells[0] in named:
            raise LabelError(f"{where}: {cells[0]} already has labels further up")
        named.add(cells[0])
        names = tuple(name.strip() for name in cells[1].split(";") if name.strip())
        if not names:
            raise LabelError(f"{where}: no class is given for {cells[0]}")
        rows.append(Row(where, cells[0], names, cells[2] if has_split else ""))
    if not rows:
        raise LabelError(f"{path}: holds no labels; write one '{right}' a line")
    return rows


def read_labels(
    path: str | Path, classes: Sequence[str], photos: Iterable[Path] = ()
) -> dict[Path, tuple[str, ...]]:
    """Image labels by resolved image path.

    A file name is looked up beside the CSV file, then among the names of `photos`. Raises
    LabelError as `read_rows`, and for an unknown class, a name without image, an image named twice.
    """
    path = Path(path)
    by_name: dict[str, list[Path]] = {}
    for photo in photos:
        by_name.setdefault(photo.name, []).append(photo)
    labels: dict[Path, tuple[str, ...]] = {}
    for row in read_rows(path):
        image = _find(row.file, path.parent, by_name, row.where)
        if image in labels:
            raise LabelError(f"{row.where}: {row.file} already has labels further up")
        for name in row.classes:
            if name not in classes:
                raise LabelError(f"{row.where}: unknown class {name!r}; {nearest(name, classes)}")
        labels[image] = row.classes
    return labels


def _lines(path: Path) -> tuple[list[tuple[int, list[str]]], bool]:
    """(line number, stripped cells) of every line that says something; whether splits are told."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except UnicodeDecodeError:
        raise LabelError(f"{path}: is not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise LabelError(f"{path}: is not a CSV file ({error})") from None
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({error.strerror})") from None
    lines = [(line, row) for line, row in lines if any(row) and not row[0].startswith("#")]
    if lines and lines[0][1][0].lower() in {"file", "image"}:
        return lines[1:], [cell.lower() for cell in lines[0][1][2:]] == ["split"]
    return lines, False


def _find(name: str, folder: Path, by_name: dict[str, list[Path]], where: str) -> Path:
    beside = folder / name
    if name and beside.is_file():
        return beside.resolve()
    same = by_name.get(name, [])
    if len(same) > 1:
        raise LabelError(f"{where}: {name} is ambiguous: {same[0]} and {same[1]}")
    if not same:
        raise LabelError(f"{where}: there is no image {name or '(empty name)'} in {folder}")
    return same[0].resolve()


def nearest(name: str, classes: Sequence[str]) -> str:
    """A hint for a class name that is not known."""
    near = difflib.get_close_matches(name.lower(), classes, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(classes)}"
