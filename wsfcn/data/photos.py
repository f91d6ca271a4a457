"""What data sets of photo files share: masks, image labels, a choice of classes, a fingerprint."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from ..files import digest, fingerprint
from .images import SUFFIXES, read_image, read_mask
from .labels import LARGEST, LabelError, Row, check_known, read_rows, refuse
from .sample import IGNORE, DataError, Sample, check_size

Labels = Literal["masks", "xml", "csv"]
Others = Literal["ignore", "background"]


class Photos(ABC):
    """Photos by name, read when they are asked for; the base of Voc, Coco and Folder.

    origin: the list that names the photos, for messages. known: the classes that masks count,
    from 1. labels: where image labels come from. classes: a choice of the known ones in any
    order; pixels of the others become 255, or 0 with others="background". limit: at most so many
    photos, spread evenly over the list; 0: all. Raises DataError for an empty list, a name twice,
    a class that is not known.
    """

    upright = False  # whether photos are turned as their EXIF data say
    least = 0  # pixels of a side that are enough, see `read_image`
    home: Path  # where labels.csv lies
    _twice: Callable[[str], None] = staticmethod(refuse)

    def __init__(
        self,
        origin: Path,
        names: Sequence[str],
        known: Sequence[str],
        *,
        labels: Labels = "masks",
        classes: Sequence[str] = (),
        others: Others = "ignore",
        limit: int = 0,
    ) -> None:
        if not names:
            raise DataError(f"{origin}: names no photo")
        names = check_once(origin, names, self._twice)
        if len(known) >= IGNORE:
            raise DataError(f"{origin}: {len(known)} classes; masks can count {IGNORE - 1}")
        check_once("data.classes", classes)
        check_known(f"data.classes, of {origin}", classes, known)
        count = min(limit or len(names), len(names))
        self.origin, self.source, self.known = origin, labels, tuple(known)
        self.names = [names[place * len(names) // count] for place in range(count)]
        self.classes = tuple(classes) or self.known
        self._table = np.full(256, IGNORE, np.uint8)  # what a value of a mask becomes
        if others == "background":
            self._table[: len(self.known) + 1] = 0
        for new, old in enumerate((0, *(self.known.index(name) + 1 for name in self.classes))):
            self._table[old] = new
        self._sources = [origin]  # files that say something about all photos
        self._rows: dict[str, Row] = {}
        self._present: dict[str, frozenset[str]] = {}
        if labels == "csv":
            self._read_csv(self.home / "labels.csv")

    @abstractmethod
    def image_path(self, index: int) -> Path:
        """The file of a photo."""

    @abstractmethod
    def mask_path(self, index: int) -> Path | None:
        """The file of its mask; None where it has none, or none of its own."""

    def has_mask(self, index: int) -> bool:
        """Whether the photo has a mask."""
        return self.mask_path(index) is not None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        image = read_image(self.image_path(index), upright=self.upright, least=self.least)
        mask = self._read_mask(index)
        if mask is not None and not _fits(image.shape, mask.shape, bool(self.least)):
            if self.least:
                return self.reduced(0)[index]  # says the whole sizes
            (height, width), (high, wide) = mask.shape, image.shape[:2]
            place = self.mask_path(index) or f"{self.origin}: {self.names[index]}"
            raise DataError(
                f"{place}: the mask has {width} x {height} px, {self.image_path(index)} has "
                f"{wide} x {high}"
            )
        present = self.present(index, mask)
        labels = np.array([name in present for name in self.classes], np.float32)
        return Sample(self.names[index], image, labels, None if mask is None else self._table[mask])

    def present(self, index: int, mask: NDArray[np.uint8] | None = None) -> frozenset[str]:
        """The known classes in a photo, by the source that was chosen.

        mask: the photo's, if it was read already. Raises DataError where the source says nothing.
        """
        name = self.names[index]
        if name in self._present:
            return self._present[name]
        names: Iterable[str]
        if self.source == "masks":
            mask = self._read_mask(index) if mask is None else mask
            if mask is None:
                raise DataError(f"{self.image_path(index)}: has no mask, so no image label")
            names = [self.known[v - 1] for v in np.unique(mask) if 0 < v < IGNORE]
            if not names:
                raise DataError(f"{self.mask_path(index)}: shows no object, so no image label")
        elif self.source == "csv":
            if name not in self._rows:
                raise LabelError(f"{self._sources[-1]}: has no line for {name}")
            names = self._rows[name].classes
        else:
            names = self._named_in_xml(index)
        self._present[name] = frozenset(names)
        return self._present[name]

    def reduced(self, least: int) -> Self:
        """The same photos, each perhaps decoded small (see `read_image`); masks are whole."""
        part = copy.copy(self)
        part.least = least
        return part

    def masked(self) -> Self:
        """The photos that have a mask."""
        part = copy.copy(self)
        part.names = [name for index, name in enumerate(self.names) if self.has_mask(index)]
        return part

    def fingerprint(self) -> str:
        """Changes with lists and labels, with names, sizes and both ends of photos and masks."""
        label = {"masks": self.mask_path, "xml": self._xml_path}.get(self.source)
        files: list[Path | None] = []
        for index in range(len(self)):
            files += [self.image_path(index), label(index) if label else None]
        try:
            lists = (path for path in self._sources if path.is_file())  # not the folder of lists
            told = [f"{path.name} {digest(path)}" for path in lists]
            told += map(fingerprint, filter(None, files))
        except OSError as error:
            raise DataError(f"{error.filename}: {error.strerror}") from None
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]

    def _read_mask(self, index: int) -> NDArray[np.uint8] | None:
        """(H, W) of the known classes."""
        path = self.mask_path(index)
        return None if path is None else read_mask(path, len(self.known))

    def _read_csv(self, path: Path) -> None:
        """Take the image labels of a file whose first column has names with or without ending."""
        self._sources.append(path)
        for row in read_rows(path, self._twice):
            check_known(row.where, row.classes, self.known)
            self._rows[name_of(row.file)] = row

    def _xml_path(self, index: int) -> Path | None:
        return None

    def _named_in_xml(self, index: int) -> Iterable[str]:
        raise DataError(f"data.labels: {type(self).__name__.lower()} has no labels in XML")


def _fits(image: tuple[int, ...], mask: tuple[int, ...], small: bool) -> bool:
    """Whether a mask is that of an image, perhaps one that was decoded small."""
    return any(
        image[:2] == (-(-mask[0] // scale), -(-mask[1] // scale))
        for scale in ((1, 2, 4, 8) if small else (1,))
    )


def read_lines(path: Path, twice: Callable[[str], None] = refuse) -> list[str]:
    """The lines of a list that say something. DataError for a file with one twice or unreadable."""
    check_size(path, LARGEST)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return check_once(path, lines, twice)


def name_of(file: str) -> str:
    """A photo's name: its file without the ending."""
    path = PurePosixPath(file)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else file


def check_once(
    origin: object, names: Sequence[str], twice: Callable[[str], None] = refuse
) -> list[str]:
    """Each name once; `twice` is told the origin and each name that comes twice."""
    counts = Counter(names)
    for name, count in counts.items():
        if count > 1:
            twice(f"{origin}: names {name} twice")
    return [*counts]


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names, one a line, in the order of their numbers; a first "background" is dropped."""
    names = read_lines(path)
    names = names[1:] if names[:1] == ["background"] else names
    if not names:
        raise DataError(f"{path}: names no class")
    return tuple(names)


def find_home(root: str | Path, places: Sequence[str], signs: Sequence[str], what: str) -> Path:
    """The first of the places below root that holds one of the signs. DataError if none does."""
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    for home in (root / place for place in places):
        if any((home / sign).exists() for sign in signs):
            return home
    below = ", ".join(filter(None, places))
    raise DataError(f"{root}: holds no {what} ({' or '.join(signs)}, here or below {below})")
