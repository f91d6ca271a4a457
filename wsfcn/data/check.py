"""What is wrong with a data set: files, masks, labels, splits, duplicates; all of it at once.

Every photo of every split is decoded once. Duplicates are found by the bytes of the files, and
near-duplicates by a 64-bit difference hash of which all but a few bits agree.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import KINDS
from .duplicates import NEAR, dhash, near_pairs
from .images import ImageError, list_images, read_image
from .labels import LabelError, read_rows
from .photos import Photos, find_home, name_of
from .sample import IGNORE, DataError
from .voc import PLACES, PUBLISHED

Kind = Literal["voc", "coco", "folder"]
COCO_PLACES = ("", "coco", "coco2014")
ALIKE = 0.9  # least correlation of small grey copies of two near-duplicates


@dataclass(frozen=True)
class Problem:
    """One finding. where: split or splits. pictures: (caption, file) of what shows it."""

    kind: str
    where: str
    message: str
    pictures: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class Report:
    """What a check found. splits: (name, photos, masks) each."""

    root: Path
    kind: str
    classes: tuple[str, ...]
    splits: tuple[tuple[str, int, int], ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong; notes do not count."""
        return not self.problems

    def text(self, limit: int = 10) -> str:
        """A table of the splits and of the kinds of problems, with at most so many of each."""
        width = max(5, *(len(name) for name, _, _ in self.splits))
        lines = [f"{self.root}: {self.kind}, {len(self.classes)} classes"]
        lines += [f"{'split':<{width}}  photos   masks"]
        lines += [f"{name:<{width}}  {n:>6}  {masks:>6}" for name, n, masks in self.splits]
        for kind, count in Counter(problem.kind for problem in self.problems).items():
            lines += ["", f"{kind}: {count}"]
            shown = [problem for problem in self.problems if problem.kind == kind][:limit]
            lines += [f"  {problem.where}: {problem.message}" for problem in shown]
            if count > limit:
                lines.append(f"  ... and {count - limit} more")
        lines += ["", *(f"note: {note}" for note in self.notes)]
        return "\n".join([*lines, "clean" if self.clean else f"{len(self.problems)} problems"])


@dataclass
class _Look:
    """What was seen of one photo."""

    name: str
    path: Path
    mask: bool = False
    splits: list[str] = field(default_factory=list)
    problems: list[tuple[str, str, tuple[Path, ...]]] = field(default_factory=list)
    sha256: str = ""
    dhash: int = 0
    small: NDArray[np.float32] = field(default_factory=lambda: np.zeros(1, np.float32))


def check(root: str | Path, kind: Kind | None = None, *, near: int = NEAR) -> Report:
    """Look at every photo of every split below `root`.

    kind: told by what lies there if not given. near: bits of 64 in which the hashes of
    near-duplicates may differ. Raises DataError where nothing can be checked: no such folder, a
    layout that is not known, no split with a photo.
    """
    if not 0 <= near < 32:
        raise ValueError(f"near: must be between 0 and 31, not {near}")
    root = Path(root).expanduser()
    kind = kind or layout_of(root)
    problems: list[Problem] = []
    notes: list[str] = []
    sets: dict[str, Photos] = {}
    for split in _splits(root, kind):
        try:
            sets[split] = _open(root, kind, split, problems)
        except DataError as error:
            if "train_aug needs" not in str(error):
                problems.append(Problem("split not readable", split, str(error)))
    if not sets:
        raise DataError(problems[0].message if problems else f"{root}: holds no list of a split")
    looks = _look_at_all(root, kind, sets, problems, notes)
    for look in looks:
        for what, message, files in look.problems:
            pictures = tuple((file.name, file) for file in files)
            problems.append(Problem(what, ", ".join(look.splits), message, pictures))
    problems += _in_two_splits(sets)
    found, within = _duplicates(looks, near)
    if kind == "folder":
        notes += _without_labels(root, sets)
    counts = tuple(
        (split, len(data), sum(look.mask for look in looks if split in look.splits))
        for split, data in sets.items()
    )
    if within:
        notes.append(f"{within} photos are copies of others of the same split")
    classes = next(iter(sets.values())).known
    return Report(root, kind, classes, counts, tuple(problems + found), tuple(notes))


def layout_of(root: Path) -> Kind:
    """What the folder is laid out as. Raises DataError where it is none of the three."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if (root / "labels.csv").is_file() and not (root / "JPEGImages").is_dir():
        return "folder"
    with suppress(DataError):
        _voc_home(root)
        return "voc"
    for place in COCO_PLACES:
        if any((root / place / "images").glob("*20??")) or any((root / place).glob("*20??")):
            return "coco"
    raise DataError(
        f"{root}: is laid out neither as VOC (JPEGImages), nor as COCO (train2014, annotations), "
        "nor as a folder with labels.csv"
    )


def _splits(root: Path, kind: str) -> list[str]:
    """The names of the splits that are listed, training first."""
    if kind == "coco":
        places = [root / place / "annotations" for place in COCO_PLACES]
        files = [file for place in places for file in place.glob("instances_*.json")]
        years = sorted({file.stem.removeprefix("instances_") for file in files})
        return [year.removesuffix("2014") for year in years] or ["train", "val"]
    if kind == "folder":
        try:
            rows = read_rows(root / "labels.csv", lambda _: None)
            told = {row.split for row in rows if row.split}
        except LabelError:
            told = set()  # opening a split says what is wrong
        return sorted(told) or ["train", "val"]
    home = _voc_home(root)
    sets = [home / "ImageSets" / "Segmentation", home / "ImageSets"]
    names = {file.stem for folder in sets for file in folder.glob("*.txt")}
    above = [root, home, *home.absolute().parents[:3]]
    names |= {split for split, file in PUBLISHED.items() for up in above if (up / file).is_file()}
    names = names - {"trainaug"} | {"train_aug"}
    return sorted(names, key=lambda name: (not _trains(name), name))


def _voc_home(root: Path) -> Path:
    return find_home(root, (*PLACES, "voc_test/VOCdevkit/VOC2012"), ("JPEGImages",), "VOC tree")


class _Lenient:
    """Collects what a reader would raise about single lines of lists and of labels.csv."""

    problems: list[Problem]
    split: str

    def _tell(self, kind: str, message: str) -> None:
        if all(message != problem.message for problem in self.problems):  # told by other splits
            self.problems.append(Problem(kind, self.split, message))

    def _twice(self, message: str) -> None:
        self._tell("named twice", message)

    def _find(self, name: str, where: str) -> Path:
        try:
            return super()._find(name, where)  # type: ignore[misc]
        except LabelError as error:
            if "is no file name" in str(error):
                self._tell("name outside the folder", str(error))
            return self.home / Path(name).name  # type: ignore[attr-defined]  # told when it is read

    def _read_csv(self: Any, path: Path) -> None:
        self._sources.append(path)
        for row in read_rows(path, self._twice):
            for name in set(row.classes) - set(self.known):
                self._tell("unknown class", f"{row.where}: {name!r}")
            self._rows[name_of(row.file)] = row


def _open(
    root: Path, kind: str, split: str, problems: list[Problem], labels: str | None = None
) -> Photos:
    """A reader of the split; without masks, image labels come from what else there is."""
    if labels is None:
        labels = "csv" if kind == "folder" else "masks"
        if kind == "voc" and not any((home := _voc_home(root)).glob("SegmentationClass*")):
            labels = "xml" if (home / "Annotations").is_dir() else "csv"
    reader = type("Reader", (_Lenient, KINDS[kind]), {"problems": problems, "split": split})
    return reader(root, split, labels=labels)


def _look_at_all(
    root: Path, kind: str, sets: dict[str, Photos], problems: list[Problem], notes: list[str]
) -> list[_Look]:
    """A look at each photo with each of its masks, in the order of the splits."""
    from tqdm import tqdm

    looks: dict[tuple[Path, Path | None], _Look] = {}
    todo: list[tuple[Photos, int, list[Photos], _Look]] = []
    for split, data in sets.items():
        others = _other_labels(root, kind, split, data, problems)
        for index, name in enumerate(data.names):
            key = data.image_path(index), data.mask_path(index)
            if key not in looks:
                looks[key] = _Look(name, key[0])
                todo.append((data, index, others, looks[key]))
            looks[key].splits.append(split)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(lambda task: _look(*task), todo)
        missing = {note for note in tqdm(done, "check", len(todo), unit="photo", disable=None)}
    notes.extend(note for note in sorted(missing) if note)
    return list(looks.values())


def _other_labels(
    root: Path, kind: str, split: str, data: Photos, problems: list[Problem]
) -> list[Photos]:
    """Readers of the image labels that masks can be held against."""
    if kind == "folder":
        return [data]
    home: Path = data.home  # type: ignore[attr-defined]
    sources = ["xml"] if kind == "voc" and (home / "Annotations").is_dir() else []
    sources += ["csv"] if (home / "labels.csv").is_file() else []
    readers = []
    for source in sources:
        try:
            readers.append(_open(root, kind, split, [], source))
        except DataError as error:
            problems.append(Problem("labels not readable", split, str(error)))
    return readers


def _look(data: Photos, index: int, others: list[Photos], look: _Look) -> str:
    """Fill in the look; the answer is a note, or nothing."""
    note, path, mask_path = "", look.path, data.mask_path(index)
    image = mask = None
    try:
        image = read_image(path, upright=data.upright)
        look.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        look.dhash, look.small = dhash(image)
    except (ImageError, OSError) as error:
        look.problems.append(("photo not readable", str(error), ()))
    try:
        mask = data._read_mask(index) if data.has_mask(index) else None
    except ImportError as error:
        note = f"masks were not looked at: {error}"
    except DataError as error:
        kind = "label out of range" if "holds class" in str(error) else "mask not readable"
        if mask_path is not None and not mask_path.exists():
            kind = "mask missing"
        shown = (path,) if mask_path is None or kind == "mask missing" else (path, mask_path)
        look.problems.append((kind, str(error), shown))
    shown = (path,) if mask_path is None else (path, mask_path)
    if mask is None:
        for other in others:
            _compare(other, index, data.source, None, shown, look)
        return note
    look.mask = True
    if image is not None and image.shape[:2] != mask.shape:
        sizes = [f"{size[1]} x {size[0]}" for size in (mask.shape, image.shape)]
        message = f"{mask_path or path}: the mask has {sizes[0]} px, the photo {sizes[1]}"
        look.problems.append(("size of mask and photo", message, shown))
    values = np.unique(mask)
    drawn = {data.known[value - 1] for value in values if 0 < value < IGNORE}
    if not drawn and data.source == "masks":
        look.problems.append(("mask without object", f"{mask_path or path}", shown))
    for other in others:
        _compare(other, index, data.source, drawn, shown, look)
    return note


def _compare(
    other: Photos,
    index: int,
    wanted: str,
    drawn: set[str] | None,
    shown: tuple[Path, ...],
    look: _Look,
) -> None:
    """Hold the labels of a source against the mask, if any; gaps count in the `wanted` source."""
    try:
        said = other.present(index)
    except DataError as error:
        absent = "No such file" in str(error) or "has no line" in str(error)
        if other.source == wanted or not absent:
            look.problems.append(("labels not readable", str(error), ()))
        return
    if drawn is not None and said != drawn:
        source = {"xml": "Annotations", "csv": "labels.csv"}[other.source]
        parts = [
            f"{', '.join(sorted(names))} only in {where}"
            for names, where in ((drawn - said, "the mask"), (said - drawn, source))
            if names
        ]
        look.problems.append(("labels against mask", f"{look.name}: {'; '.join(parts)}", shown))


def _trains(split: str) -> bool:
    return "train" in split.lower() and "trainval" not in split.lower()


def _scores(split: str) -> bool:
    return re.search("val|test", split.lower()) is not None and "train" not in split.lower()


def _in_two_splits(sets: dict[str, Photos]) -> list[Problem]:
    """Photos of a training list that are also in a list that scores, by name or by file."""
    problems = []
    files = {split: [*map(data.image_path, range(len(data)))] for split, data in sets.items()}
    for train in filter(_trains, sets):
        for val in filter(_scores, sets):
            names, paths = set(sets[train].names), set(files[train])
            for name, path in zip(sets[val].names, files[val], strict=True):
                if name in names or path in paths:
                    where = f"{train}, {val}"
                    problems.append(Problem("in two splits", where, name, ((name, path),)))
    return problems


def _without_labels(root: Path, sets: dict[str, Photos]) -> list[str]:
    named = {data.image_path(index) for data in sets.values() for index in range(len(data))}
    there: list[Path] = []
    for folder in (root, root / "images"):
        with suppress(ImageError):
            there += list_images(folder)
    count = len(set(there) - named)
    return [f"{count} photos have no line in labels.csv"] if count else []


def _duplicates(looks: list[_Look], near: int) -> tuple[list[Problem], int]:
    """The nearest training photo of each scoring one; and the copies on one side."""
    train = [look for look in looks if look.sha256 and any(map(_trains, look.splits))]
    score = [look for look in looks if look.sha256 and any(map(_scores, look.splits))]
    copies: dict[str, list[_Look]] = defaultdict(list)
    for look in train:
        copies[look.sha256].append(look)
    hashes = [np.array([look.dhash for look in side], np.uint64) for side in (train, score)]
    close = dict(near_pairs(hashes[0], hashes[1], near))
    problems = []
    for index, look in enumerate(score):
        kind, how = "duplicate", "the same file"
        twin = next((other for other in copies[look.sha256] if other.name != look.name), None)
        if twin is None:
            others = (train[place] for place in close.get(index, ()))
            fits = (
                o
                for o in others
                if o.name != look.name and float((o.small * look.small).sum()) > ALIKE
            )
            if (twin := next(fits, None)) is None:
                continue
            kind = "near-duplicate"
            how = f"{(twin.dhash ^ look.dhash).bit_count()} of 64 bits of their hashes differ"
        pair = (twin, look)
        shown = tuple((f"{', '.join(one.splits)}: {one.name}", one.path) for one in pair)
        where = " / ".join(", ".join(one.splits) for one in pair)
        problems.append(Problem(kind, where, f"{twin.name} and {look.name}: {how}", shown))
    sides = [({one.name for one in side}, {one.sha256 for one in side}) for side in (train, score)]
    return problems, sum(max(0, len(names) - len(files)) for names, files in sides)
