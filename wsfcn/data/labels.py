"""Image labels in a CSV file: one line per image, ``file, class[; class ...]``."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class LabelError(ValueError):
    """A label file that cannot be used; the message names file, line and what would be right."""


def read_labels(
    path: str | Path, classes: Sequence[str], photos: Iterable[Path] = ()
) -> dict[Path, tuple[str, ...]]:
    """Image labels by resolved image path.

    A file name is looked up beside the CSV file, then among the names of `photos`. A first line
    that starts with "file" or "image" is a header. Lines that are empty or start with # are
    skipped. Raises LabelError for an unknown class, a name without image, an image named twice.
    """
    path = Path(path)
    by_name: dict[str, list[Path]] = {}
    for photo in photos:
        by_name.setdefault(photo.name, []).append(photo)
    labels: dict[Path, tuple[str, ...]] = {}
    for line, row in _rows(path):
        where = f"{path} line {line}"
        if len(row) != 2:
            raise LabelError(f"{where}: needs 'file, class; class', found {len(row)} column(s)")
        image = _find(row[0], path.parent, by_name, where)
        if image in labels:
            raise LabelError(f"{where}: {row[0]} already has labels further up")
        names = tuple(name.strip() for name in row[1].split(";") if name.strip())
        if not names:
            raise LabelError(f"{where}: no class is given for {row[0]}")
        for name in names:
            if name not in classes:
                raise LabelError(f"{where}: unknown class {name!r}; {_nearest(name, classes)}")
        labels[image] = names
    if not labels:
        raise LabelError(f"{path}: holds no labels; write one 'file, class; class' a line")
    return labels


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, stripped cells) of every line that says something."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except UnicodeDecodeError:
        raise LabelError(f"{path}: is not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise LabelError(f"{path}: is not a CSV file ({error})") from None
    rows = [(line, row) for line, row in rows if any(row) and not row[0].startswith("#")]
    if rows and rows[0][1][0].lower() in {"file", "image"}:
        rows = rows[1:]
    return rows


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


def _nearest(name: str, classes: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), classes, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(classes)}"
