"""Photos of your own: a folder with labels.csv, classes free, masks optional."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

from .images import list_images
from .labels import LabelError, read_rows
from .photos import Photos, name_of, read_classes
from .sample import DataError

VAL_SHARE = 0.2


class Folder(Photos):
    """The photos of a split of a folder; see docs/data.md.

    labels.csv has a line 'file, class; class' for each photo; a third column, where the header
    names it, tells the splits. Without one, a photo is in "train" or, one in five, in "val" by a
    hash of its name alone, so that photos added later move none. "all" is every photo. Classes are
    sorted, or as in classes.txt; masks/<name>.png count them from 1. Photos are turned upright.
    options: labels ("csv"), classes and limit of `Photos`.
    """

    upright = True

    def __init__(self, root: str | Path, split: str = "train", **options: Any) -> None:
        self.split = split
        self.home = Path(root).expanduser()
        table = self.home / "labels.csv"
        if not self.home.is_dir():
            raise DataError(f"{self.home}: no such folder")
        if not table.is_file():
            count = len(list_images(self.home))
            raise DataError(
                f"{table}: missing; write a line 'file, class' for each of {count} photos"
            )
        rows = read_rows(table, self._twice)
        told = {row.split for row in rows if row.split}
        bare = next((row for row in rows if told and not row.split), None)
        if bare is not None:
            raise LabelError(f"{bare.where}: no split is given for {bare.file}")
        parts = [row.split if told else split_of(row.file) for row in rows]
        chosen = [row for row, part in zip(rows, parts, strict=True) if split in (part, "all")]
        if not chosen:
            known_splits = ", ".join(sorted(told or {"train", "val"}))
            hint = "" if told else "; a header 'file, class, split' and a third column tell them"
            raise DataError(
                f"{table}: none of {len(rows)} photos is in split {split!r} of {known_splits}{hint}"
            )
        self._listings: dict[Path, dict[str, str]] = {}
        paths = [self._find(row.file, row.where) for row in chosen]
        named = self.home / "classes.txt"
        free = tuple(sorted({name for row in rows for name in row.classes}))
        known = read_classes(named) if named.is_file() else free
        names = [name_of(row.file) for row in chosen]
        self._paths = dict(zip(names, paths, strict=True))
        super().__init__(table, names, known, **{"labels": "csv"} | options)

    def image_path(self, index: int) -> Path:
        """The file of a photo."""
        return self._paths[self.names[index]]

    def mask_path(self, index: int) -> Path | None:
        """masks/<name>.png, if it is there."""
        path = self.home / "masks" / f"{self.names[index]}.png"
        return path if path.exists() else None

    def _find(self, name: str, where: str) -> Path:
        """The photo of a line; folders are listed once, and accents may be composed or not."""
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or not name:
            raise LabelError(f"{where}: {name or '(empty name)'} is no file name inside the folder")
        for folder in (self.home, self.home / "images"):
            parent = (folder / relative).parent
            if parent not in self._listings:
                found = sorted(parent.iterdir()) if parent.is_dir() else []
                self._listings[parent] = {_composed(file.name): file.name for file in found}
            if (here := self._listings[parent].get(_composed(relative.name))) is not None:
                return parent / here
        raise LabelError(f"{where}: there is no image {name} in {self.home}")


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def split_of(name: str) -> str:
    """ "train" or "val", by a hash of the name alone."""
    number = int.from_bytes(hashlib.sha256(_composed(name).encode()).digest()[:8])
    return "val" if number < VAL_SHARE * 2**64 else "train"
