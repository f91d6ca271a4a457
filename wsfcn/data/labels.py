"""Image labels in a CSV file: one line per image, ``file, class[; class ...]``."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..settings import nearest
from .sample import DataError, check_size

LARGEST = 100_000_000  # bytes; a hundred times the list of COCO's photos


class LabelError(DataError):
    """A label file that cannot be used; the message names file, line and what would be right."""


class Row(NamedTuple):
    """A line of a label file; `where` names file and line, `split` is empty without a column."""

    where: str
    file: str
    classes: tuple[str, ...]
    split: str = ""


def refuse(message: str) -> None:
    """What readers do about a name that comes twice; a check notes it and goes on instead."""
    raise LabelError(message)


def read_rows(path: str | Path, twice: Callable[[str], None] = refuse) -> list[Row]:
    """The labels as they are written; whether the images exist is not looked at.

    A first line that starts with "file" or "image" is a header; it may name a third column,
    "split". Lines that are empty or start with # are skipped. Raises LabelError for a line with
    another number of columns, without a class, or with a file named before (unless `twice` lets
    the line pass, which is then left out).
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
            twice(f"{where}: {cells[0]} already has labels further up")
            continue
        named.add(cells[0])
        names = tuple(name.strip() for name in cells[1].split(";") if name.strip())
        if not names:
            raise LabelError(f"{where}: no class is given for {cells[0]}")
        rows.append(Row(where, cells[0], names, cells[2] if has_split else ""))
    if not rows:
        raise LabelError(f"{path}: holds no labels; write one '{right}' a line")
    return rows


def read_labels(
    path: Path, classes: Sequence[str], photos: Iterable[Path] = ()
) -> dict[Path, tuple[str, ...]]:
    """Image labels by resolved image path.

    A file name is looked up beside the CSV file, then among the names of `photos`. Raises
    LabelError as `read_rows`, and for an unknown class, a name without image, an image named twice.
    """
    by_name: dict[str, list[Path]] = {}
    for photo in photos:
        by_name.setdefault(photo.name, []).append(photo)
    labels: dict[Path, tuple[str, ...]] = {}
    for where, file, names, _ in read_rows(path):
        beside = path.parent / file
        found = [beside] if file and beside.is_file() else by_name.get(file, [])
        if len(found) > 1:
            raise LabelError(f"{where}: {file} is ambiguous: {found[0]} and {found[1]}")
        if not found:
            place = file or "(empty name)"
            raise LabelError(f"{where}: there is no image {place} in {path.parent}")
        image = found[0].resolve()
        if image in labels:
            raise LabelError(f"{where}: {file} already has labels further up")
        check_known(where, names, classes)
        labels[image] = names
    return labels


def _lines(path: Path) -> tuple[list[tuple[int, list[str]]], bool]:
    """(line number, stripped cells) of every line that says something; whether splits are told."""
    check_size(path, LARGEST)
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
    for line, row in lines:
        if any(re.search(r"[\x00-\x1f\x7f-\x9f]", cell) for cell in row):
            raise LabelError(f"{path} line {line}: holds control characters")
    if lines and lines[0][1][0].lower() in {"file", "image"}:
        return lines[1:], [cell.lower() for cell in lines[0][1][2:]] == ["split"]
    return lines, False


def check_known(where: object, names: Iterable[str], classes: Sequence[str]) -> None:
    """LabelError for the first name that is no class."""
    for name in names:
        if name not in classes:
            raise LabelError(f"{where}: unknown class {name!r}; {nearest(name, classes)}")
