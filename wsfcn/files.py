"""Writing results: all files of a result or none, and never over what was given as input."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part"  # the end of names of files that are still growing
END = 4096  # bytes at either end of a file by which `fingerprint` knows it


def check_output_folder(folder: str | Path) -> Path:
    """The folder, if results can be written into it; nothing is created yet.

    Raises NotADirectoryError where a file is in the way, PermissionError where the folder (or
    the nearest one above it that exists) is read-only. Call it before long work starts.
    """
    folder = Path(folder).expanduser()
    existing = folder.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise NotADirectoryError(f"{folder}: cannot be a folder, {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder}: cannot write there, {existing} is read-only")
    return folder


def digest(path: str | Path) -> str:
    """The sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: str | Path) -> str:
    """Name, size and a hash of both ends of a file: the same for every copy, whatever its times.

    Compressed photos and masks differ at their ends when they differ anywhere, as good as always.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        ends = file.read(END)
        file.seek(max(END, size - END))
        ends += file.read(END)
    return f"{Path(path).name} {size} {hashlib.sha256(ends).hexdigest()}"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` when the block ends well.

    Whoever opens `path`, also after a crash or a power cut, finds the old file or the whole new
    one: the new one is on the disk before it gets the name. Raises OSError naming `path`, which
    is then as it was, for a disk that is full or read-only.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        with suppress(OSError):  # some network disks cannot sync a folder
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_all(
    folder: str | Path, contents: Mapping[str, bytes], protected: Collection[Path] = ()
) -> list[Path]:
    """Write files `name -> content` into the folder (created if needed), all of them or none.

    Each file first grows under a temporary name and is then renamed, so that no reader ever
    sees half a file. Raises FileExistsError where a file is one of the `protected` (inputs).
    """
    folder = check_output_folder(folder)
    targets = {folder / name: content for name, content in contents.items()}
    inputs = {path.resolve() for path in protected}
    for target in targets:
        if target.resolve() in inputs:
            raise FileExistsError(f"{target}: is an input and is not overwritten; choose another")
        if target.is_dir():
            raise IsADirectoryError(f"{target}: is a folder, so no file can be written there")
    folder.mkdir(parents=True, exist_ok=True)
    pending = {target: target.with_name(f".{target.name}.{os.getpid()}") for target in targets}
    new = [target for target in targets if not target.exists()]
    try:
        for target, temporary in pending.items():
            temporary.write_bytes(targets[target])
        for target, temporary in pending.items():
            temporary.replace(target)
    except BaseException:
        for leftover in (*pending.values(), *new):
            with suppress(OSError):
                leftover.unlink(missing_ok=True)
        raise
    return list(targets)
