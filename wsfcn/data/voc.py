"""PASCAL VOC 2012, its training images augmented by SBD, and any tree laid out like VOC."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .images import SUFFIXES, ImageError, check_range
from .labels import check_known
from .photos import Photos, find_home, read_classes, read_lines
from .sample import VOC_CLASSES, DataError, check_size

PLACES = ("", "VOC2012", "VOCdevkit/VOC2012", "voc/VOCdevkit/VOC2012")
SBD = ("sbd/benchmark_RELEASE/dataset", "benchmark_RELEASE/dataset", "sbd/dataset")
# Lists as published with the released codes: "image mask" a line, relative to the data root.
PUBLISHED = {
    "train": "train_voc.txt",
    "val": "val_voc.txt",
    "train_aug": "train_augvoc.txt",
    "test": "test.txt",
}
LARGEST = 1_000_000  # bytes of a file about one photo
Pairs = dict[str, tuple[Path, Path | None]]


class Voc(Photos):
    """The photos of a split; see docs/data.md for the layouts.

    root: the folder with JPEGImages, or one above it. split: a list of ImageSets, a published list
    beside the data, a .txt file, "test" (no masks, no labels), or "train_aug": the train and val of
    SBD and VOC's train without VOC's val, with the masks of SBD where it has the photo; without
    SBD what SegmentationClassAug or trainaug.txt has. A file classes.txt names other classes. With
    labels from XML or labels.csv masks may be missing. Photos keep the orientation they are stored
    in, as their masks do. options: labels, classes and limit of `Photos`.
    """

    def __init__(self, root: str | Path, split: str = "train", **options: Any) -> None:
        test = ("voc_test/VOCdevkit/VOC2012",)  # published in a tree of their own
        places = test + PLACES if split == "test" else PLACES + test
        self.home = find_home(root, places, ("JPEGImages",), "VOC tree")
        self.root = Path(root).expanduser()
        self.split = split
        self._test = Path(split).stem == "test"
        origin, self._pairs = self._augmented() if split == "train_aug" else self._listed(split)
        named = self.home / "classes.txt"
        known = read_classes(named) if named.exists() else VOC_CLASSES
        super().__init__(origin, [*self._pairs], known, **options)

    def image_path(self, index: int) -> Path:
        """The file of a photo, which need not be a .jpg."""
        path = self._pairs[self.names[index]][0]
        others = (path.with_name(path.stem + suffix) for suffix in sorted(SUFFIXES))
        return next((file for file in (path, *others) if file.exists()), path)

    def mask_path(self, index: int) -> Path | None:
        """The file of its mask: PNG, or .mat of SBD."""
        path = self._pairs[self.names[index]][1]
        if path is None or path.exists():
            return path
        original = path.parents[1] / "cls" / f"{path.stem}.mat"
        if path.parent.name == "cls_png" and original.exists():
            return original
        return path if self.source == "masks" else None

    def present(self, index: int, mask: NDArray[np.uint8] | None = None) -> frozenset[str]:
        """The known classes in a photo by the chosen source; none for photos of the test."""
        return frozenset() if self._test else super().present(index, mask)

    def _above(self) -> list[Path]:
        """Where the data root may be."""
        home = self.home.absolute()
        return [self.root, home, *home.parents[:3]]

    def _listed(self, split: str) -> tuple[Path, Pairs]:
        """The list of a split, and its photos and masks by name."""
        sets = [self.home / "ImageSets" / "Segmentation", self.home / "ImageSets"]
        files = [folder / f"{split}.txt" for folder in sets]
        files += [above / PUBLISHED[split] for above in self._above() if split in PUBLISHED]
        if split.endswith(".txt"):
            files = [self.root / split, Path(split).expanduser()]
        path = _first(files)
        if path is None:
            known = sorted({file.stem for folder in sets for file in folder.glob("*.txt")})
            raise DataError(
                f"{self.home}: no list of split {split!r} in ImageSets; "
                f"there {'is' if len(known) == 1 else 'are'} {', '.join(known) or 'none'}"
            )
        lines = read_lines(path, self._twice)
        if lines and "/" in lines[0]:
            return path, self._published(path, lines)
        return path, {name: self._pair(name) for name in lines}

    def _pair(self, name: str) -> tuple[Path, Path | None]:
        mask = self.home / "SegmentationClass" / f"{name}.png"
        return self.home / "JPEGImages" / f"{name}.jpg", None if self._test else mask

    def _published(self, path: Path, lines: list[str]) -> Pairs:
        pairs: Pairs = {}
        first = lines[0].split()[0].lstrip("/")
        base = next((above for above in self._above() if (above / first).exists()), None)
        if base is None:
            raise DataError(f"{path} line 1: no {first} below {self.root}")
        for number, line in enumerate(lines, 1):
            image, *masks = (base / part.lstrip("/") for part in line.split())
            if len(masks) > 1:
                raise DataError(f"{path} line {number}: needs 'image mask', found {line!r}")
            if image.stem in pairs:
                self._twice(f"{path} line {number}: names {image.stem} twice")
            pairs[image.stem] = (image, masks[0] if masks else None)
        return pairs

    def _augmented(self) -> tuple[Path, Pairs]:
        """train_aug from whatever of its sources is there."""
        sets = self.home / "ImageSets"
        spelt = ("Segmentation/train_aug", "Segmentation/trainaug", "train_aug", "trainaug")
        listed = _first(sets / f"{name}.txt" for name in spelt)
        if listed is None and _first(up / PUBLISHED["train_aug"] for up in self._above()):
            return self._listed("train_aug")
        found = self._sbd()
        if not found and (folder := self.home / "SegmentationClassAug").is_dir():
            found = {mask.stem: (self._pair(mask.stem)[0], mask) for mask in folder.glob("*.png")}
        if listed is not None:
            names = read_lines(listed, self._twice)
        elif found:
            left_out = set(self._listed("val")[1])
            names = sorted((found.keys() | self._listed("train")[1].keys()) - left_out)
        else:
            raise DataError(
                f"{self.root}: train_aug needs {SBD[0]}, or SegmentationClassAug or "
                f"ImageSets/trainaug.txt in {self.home}"
            )
        return listed or sets, {n: found.get(n) or self._pair(n) for n in names}

    def _sbd(self) -> Pairs:
        """Photos and masks of SBD by name; nothing where there is no SBD."""
        home = _first(above / place for above in self._above() for place in SBD)
        if home is None:
            return {}
        masks = _first(home / folder for folder in ("cls_png", "cls"))
        if masks is None:
            raise DataError(f"{home}: has neither cls (.mat) nor cls_png")
        suffix = ".png" if masks.name == "cls_png" else ".mat"
        lists = [home / "train.txt", home / "val.txt"]
        if _first(lists):
            names = [name for file in lists for name in read_lines(file, self._twice)]
        else:
            names = [file.stem for file in masks.glob(f"*{suffix}")]
        images = _first([home / "img"]) or self.home / "JPEGImages"
        return {name: (images / f"{name}.jpg", masks / f"{name}{suffix}") for name in names}

    def _read_mask(self, index: int) -> NDArray[np.uint8] | None:
        path = self.mask_path(index)
        if path is None or path.suffix != ".mat":
            return super()._read_mask(index)
        return read_mat(path, len(self.known))

    def _xml_path(self, index: int) -> Path:
        return self.home / "Annotations" / f"{self.names[index]}.xml"

    def _named_in_xml(self, index: int) -> Iterable[str]:
        path = self._xml_path(index)
        check_size(path, LARGEST)
        try:
            objects = ElementTree.parse(path).getroot().findall("object")
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
        except (ElementTree.ParseError, ValueError) as error:
            raise DataError(f"{path}: is not XML ({error})") from None
        names = {(thing.findtext("name") or "").strip() for thing in objects}
        if not names:
            raise DataError(f"{path}: names no object")
        check_known(path, sorted(names), self.known)
        return names


def _first(places: Iterable[Path]) -> Path | None:
    """The first that exists."""
    return next((place for place in places if place.exists()), None)


def read_mat(path: Path, num_classes: int) -> NDArray[np.uint8]:
    """The field GTcls.Segmentation of an SBD file. Raises ImageError naming the file."""
    from scipy.io import loadmat

    check_size(path, LARGEST)  # it is packed, and may hold a thousand times as much
    try:
        file = io.BytesIO(path.read_bytes())
        found = loadmat(file, squeeze_me=True, struct_as_record=False)["GTcls"].Segmentation
        mask = np.asarray(found)
        if mask.ndim != 2 or mask.dtype.kind not in "iu":
            raise ValueError(f"{mask.ndim} dimensions of {mask.dtype}")
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except Exception as error:  # damaged files make the decoder raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path}: holds no GTcls.Segmentation ({reason})") from None
    return check_range(path, mask, num_classes).astype(np.uint8)
