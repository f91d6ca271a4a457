"""The commands `wsfcn data fetch NAME` and `wsfcn data check DIR`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from .files import check_output_folder
from .settings import nearest

USAGE = """usage: wsfcn data fetch voc2012|sbd|coco2014 [--to DIR]
       wsfcn data check DIR [--kind voc|coco|folder] [--page OUT.html]"""


@dataclass(frozen=True)
class FetchArguments:
    """Download a data set, verify and unpack it; what is there already is left alone."""

    name: Annotated[
        Positional[Literal["voc2012", "sbd", "coco2014"]], arg(metavar="voc2012|sbd|coco2014")
    ]
    """2.0 GB, 1.4 GB, or 20 GB to download, and as much again to unpack."""
    to: Path = Path("data")
    """Folder that becomes the root of the data."""
    timeout: float = 30.0
    """Seconds without a byte after which the next source is tried."""


@dataclass(frozen=True)
class CheckArguments:
    """Look at every photo, mask and label. Exit code 0: clean, 1: problems, 2: not checkable."""

    root: Annotated[Positional[Path], arg(metavar="DIR")]
    """The folder of the data."""
    kind: Literal["voc", "coco", "folder"] | None = None
    """Layout; told by what lies there if not given."""
    page: Path | None = None
    """Also write a page of pictures of what was found."""
    near: int = 8
    """Bits of 64 in which the hashes of near-duplicates may differ."""
    limit: int = 10
    """Problems of a kind to print."""


def data(argv: list[str]) -> int:
    """`wsfcn data fetch` and `wsfcn data check`."""
    from . import flags

    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if argv[0] == "fetch":
        return _fetch(flags.parse(FetchArguments, "data fetch", argv[1:]))
    if argv[0] == "check":
        return _check(flags.parse(CheckArguments, "data check", argv[1:]))
    raise ValueError(f"no command 'data {argv[0]}'; {nearest(argv[0], ('fetch', 'check'))}")


def _fetch(arguments: FetchArguments) -> int:
    from tqdm import tqdm

    from .data.fetch import fetch

    fetch(arguments.name, arguments.to, timeout=arguments.timeout, say=tqdm.write)
    return 0


def _check(arguments: CheckArguments) -> int:
    if arguments.page is not None:
        check_output_folder(arguments.page.parent)
        if arguments.page.is_dir():
            raise IsADirectoryError(f"{arguments.page}: is a folder; give a file name")
    from .cli import _printable
    from .data.check import check

    report = check(arguments.root, arguments.kind, near=arguments.near)
    for line in report.text(arguments.limit).split("\n"):
        print(line if line.isprintable() else _printable(line))
    if arguments.page is not None:
        from .study.findings import save_page

        print(f"page: {save_page(report, arguments.page)}")
    return 0 if report.clean else 1
