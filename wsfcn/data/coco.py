"""MS COCO 2014, and anything else with COCO's annotations of instances."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .images import MAX_PIXELS, read_mask
from .photos import Photos, find_home, read_lines
from .sample import COCO_CLASSES, DataError, check_size

LARGEST = 2_000_000_000  # bytes; the annotations of train2014 are a fifth of it


class Thing(NamedTuple):
    """An annotated object: its class from 1, polygons or a run-length code, whether a crowd."""

    number: int
    outline: Any
    crowd: bool


class Entry(NamedTuple):
    """An annotated photo."""

    file: str
    height: int
    width: int
    things: list[Thing]


class Coco(Photos):
    """The photos of a split that have annotated objects, by their 12-digit ids; see docs/data.md.

    root: the folder with images/train2014 or train2014, or the one above its coco/. split: "train"
    and "val" are those of 2014; "train2017" works too. Photos come from a list `train14_new.txt`
    where there is one, else from the annotations. Masks are coco_seg_anno/<id>.png where that
    folder is, else drawn from the annotations. Classes are in the order of their category ids.
    options: labels, classes and limit of `Photos`.
    """

    def __init__(self, root: str | Path, split: str = "train", **options: Any) -> None:
        self.split = split
        year = split if split[-1:].isdigit() else f"{split}2014"
        signs = (f"images/{year}", year)
        self.home = find_home(root, ("", "coco", "coco2014"), signs, "COCO tree")
        self._images = next(self.home / sign for sign in signs if (self.home / sign).exists())
        folder = self.home / "coco_seg_anno"
        self._masks = folder if folder.is_dir() else None
        self._entries: dict[str, Entry] = {}
        known: tuple[str, ...] = COCO_CLASSES
        path = self.home / "annotations" / f"instances_{year}.json"
        origin = self.home / f"{split}14_new.txt"
        names = read_lines(origin, self._twice) if origin.is_file() else None
        if names is None or self._masks is None:
            self._entries, known = read_instances(path)
            if names is None:
                names, origin = list(self._entries), path
            for name in names:
                if name not in self._entries:
                    raise DataError(f"{origin}: {name} has no object in {path}")
        self._year = year
        super().__init__(origin, names, known, **options)
        if self._entries:
            self._sources.insert(1, path)
        self._rows = {name.rpartition("_")[2]: row for name, row in self._rows.items()}

    def image_path(self, index: int) -> Path:
        """The file of a photo."""
        name = self.names[index]
        entry = self._entries.get(name)
        return self._images / (entry.file if entry else f"COCO_{self._year}_{name}.jpg")

    def mask_path(self, index: int) -> Path | None:
        """The PNG of its mask; None where masks are drawn from the annotations."""
        return None if self._masks is None else self._masks / f"{self.names[index]}.png"

    def has_mask(self, index: int) -> bool:
        """Every annotated photo has one."""
        return True

    def present(self, index: int, mask: NDArray[np.uint8] | None = None) -> frozenset[str]:
        """The classes of its mask, of its annotations, or of labels.csv."""
        if self.source == "masks" and self._masks is None:
            things = self._entries[self.names[index]].things
            return frozenset(self.known[thing.number - 1] for thing in things)
        return super().present(index, mask)

    def _read_mask(self, index: int) -> NDArray[np.uint8]:
        path = self.mask_path(index)
        if path is not None:
            return read_mask(path, len(self.known))
        name = self.names[index]
        try:
            return draw_mask(self._entries[name])
        except ImportError:
            raise
        except Exception as error:  # whatever the library makes of a broken outline
            raise DataError(f"{self._sources[1]}: {name}: cannot be drawn ({error})") from None


def draw_mask(entry: Entry) -> NDArray[np.uint8]:
    """(H, W) classes of the objects: crowds first, then the larger ones before the smaller."""
    try:
        from pycocotools import mask as code
    except ImportError:
        raise ImportError("masks of COCO need pycocotools: pip install 'wsfcn[coco]'") from None

    layers = []
    for thing in entry.things:
        outline = _checked(thing.outline, entry.height, entry.width)
        outline = code.frPyObjects(outline, entry.height, entry.width)
        runs = code.merge(outline) if isinstance(outline, list) else outline
        layers.append((not thing.crowd, -int(code.area(runs)), thing.number, runs))
    mask = np.zeros((entry.height, entry.width), np.uint8)
    for *_, number, runs in sorted(layers, key=lambda layer: layer[:2]):
        mask[code.decode(runs) > 0] = number
    return mask


def _checked(outline: Any, height: int, width: int) -> Any:
    """The outline, its runs as numbers. ValueError for one that would lead the library, which
    trusts it, out of the image."""
    if isinstance(outline, dict):
        runs, size = outline["counts"], outline["size"]
        if list(size) != [height, width]:
            raise ValueError(f"a code for {size!r:.60} in an image of {[height, width]}")
        if not isinstance(runs, str | list):
            raise ValueError(f"a code of {runs!r:.40}")
        runs = _unpacked(runs) if isinstance(runs, str) else runs
        if min(runs, default=0) < 0 or sum(runs) != height * width:
            raise ValueError("a code for another number of pixels")
        return {"counts": runs, "size": [height, width]}
    for polygon in outline:
        if polygon.ndim != 1 or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon needs three points or more")
        if not np.abs(polygon).max() <= 2 * max(height, width):  # also where it is not a number
            raise ValueError("a polygon far outside the image")
    return outline


def _unpacked(code: str) -> list[int]:
    """Runs from COCO's text of them: five bits a letter, from the third on as differences."""
    letters, runs = iter(code.encode()), list[int]()
    for letter in letters:
        number, bits, digits = 0, letter - 48, 0
        while True:
            number |= (bits & 31) << 5 * digits
            digits += 1
            if not bits & 32:
                break
            bits = next(letters, 48) - 48
        number -= (1 << 5 * digits) if bits & 16 else 0
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
    return runs


def _entry(image: dict[str, Any]) -> Entry:
    """ValueError for a size that no photo has or a file that is not in the folder."""
    name, height, width = image["file_name"], image["height"], image["width"]
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 < width):
        raise ValueError(f"{name}: a size of {width} x {height} px")
    if height * width > MAX_PIXELS:
        raise ValueError(f"{name}: {width} x {height} px are more than {MAX_PIXELS:,}")
    pure = PurePosixPath(name)
    if (
        "\0" in name
        or pure.is_absolute()
        or ".." in pure.parts
        or not pure.parts
        or len(name) > 1000
    ):
        raise ValueError(f"{name!r:.200} is no file name inside the folder")
    return Entry(name, height, width, [])


def read_instances(path: Path) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """The photos with objects by 12-digit id, and the classes in the order of their ids.

    Raises DataError naming the file. (The file of train2014 needs some 3 GB while it is read.)
    """
    check_size(path, LARGEST)
    try:
        found = json.loads(path.read_bytes())
        categories = sorted(found["categories"], key=lambda category: category["id"])
        number = {category["id"]: place for place, category in enumerate(categories, 1)}
        entries = {image["id"]: _entry(image) for image in found["images"]}
        for thing in found["annotations"]:
            outline = thing["segmentation"]
            if isinstance(outline, list):  # arrays need a quarter of the memory of lists
                outline = [np.asarray(polygon, np.float64) for polygon in outline]
            crowd = bool(thing.get("iscrowd", 0))
            entries[thing["image_id"]].things.append(
                Thing(number[thing["category_id"]], outline, crowd)
            )
        classes = tuple(str(category["name"]) for category in categories)
        return {f"{key:012d}": entry for key, entry in entries.items() if entry.things}, classes
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except Exception as error:  # a file with anything else in it fails in nearly any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path}: holds no instances as COCO writes them ({reason:.200})") from None
