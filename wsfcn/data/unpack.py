"""Unpacking tar and zip files that are not trusted, wholly or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

MIB = 1 << 20
FULLEST = 100  # times its own size that an archive may unpack to; those of photos have one or two


class FetchError(RuntimeError):
    """A data set that could not be had; one line that names the file, each source and reason."""


def unpack(path: str | Path, target: str | Path, top: str = "") -> Path:
    """Unpack what the folder `top` of a tar or zip holds as the new folder `target`.

    Raises FetchError, and leaves nothing behind, for a damaged archive, a name that leaves the
    archive, a link or device below `top`, two members of one name, content out of all proportion,
    too little disk.
    """
    path, target = Path(path), Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    growing = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(growing, ignore_errors=True)  # of a process that was killed
    inside = PurePosixPath(top).parts
    try:
        with _opened(path) as (members, opener):
            wanted = []
            for name, kind, size, member in members:
                parts = _safe(name, path)
                if parts[: len(inside)] == inside and parts != inside:
                    if kind not in ("file", "folder"):
                        raise FetchError(f"{path}: refused, {name!r} in it is a {kind}")
                    wanted.append((growing.joinpath(*parts[len(inside) :]), kind, size, member))
            if not any(kind == "file" for _, kind, _, _ in wanted):
                raise FetchError(f"{path}: holds no files in {top or 'it'}")
            need, room = sum(size for _, _, size, _ in wanted), free(target)
            if need > FULLEST * max(path.stat().st_size, MIB):
                raise FetchError(
                    f"{path}: refused, it would unpack to {in_bytes(need)}, far more than photos do"
                )
            if need > room:
                raise FetchError(
                    f"{target}: unpacking needs {in_bytes(need)}, {in_bytes(room)} are free"
                )
            for place, kind, _, member in wanted:
                (place if kind == "folder" else place.parent).mkdir(parents=True, exist_ok=True)
                if kind == "file":
                    with opener(member) as source, place.open("xb") as file:
                        shutil.copyfileobj(source, file, MIB)
        os.replace(growing, target)
    except FileExistsError as error:
        raise FetchError(f"{path}: refused, two members are called {error.filename}") from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0] or "cut off"
        raise FetchError(f"{path}: is no sound archive ({reason})") from None
    finally:
        shutil.rmtree(growing, ignore_errors=True)
    return target


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[tuple[str, str, int, Any]], Any]]:
    """(name, kind, size, member) of all members, and what opens one."""
    if zipfile.is_zipfile(path):  # a link in one is written as the file of its text
        with zipfile.ZipFile(path) as archive:
            yield (
                [
                    (m.filename, "folder" if m.is_dir() else "file", m.file_size, m)
                    for m in archive.infolist()
                ],
                archive.open,
            )
        return
    names = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link", tarfile.LNKTYPE: "link"}
    try:
        with tarfile.open(path) as tar:
            # All headers are read, and so all data checked, before the first file is written.
            yield (
                [
                    (m.name, "file" if m.isreg() else names.get(m.type, "device"), m.size, m)
                    for m in tar.getmembers()
                ],
                tar.extractfile,
            )
    except zlib.error as error:
        raise tarfile.ReadError(str(error)) from None


def _safe(name: str, path: Path) -> tuple[str, ...]:
    """The parts of a member's name, which must stay below where it is unpacked, anywhere."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or re.search(r"[\\:\x00-\x1f]", name):
        raise FetchError(f"{path}: refused, the name {name!r} in it would leave its folder")
    return pure.parts


def free(folder: Path) -> int:
    """Free bytes of the disk on which a folder is, or will be."""
    folder = folder.absolute()
    return shutil.disk_usage(next(f for f in (folder, *folder.parents) if f.exists())).free


def in_bytes(number: int) -> str:
    """1_999_639_040 -> "2.0 GB"."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number} bytes"
