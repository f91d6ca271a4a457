"""What the network sees: samples, the sets they come from, augmentation and image files."""

from ..recipes import Data
from .coco import Coco
from .folder import Folder
from .noise import Mislabelled
from .photos import Photos
from .sample import DataError, Dataset
from .scenes import SceneSet
from .voc import Voc

KINDS: dict[str, type[Voc] | type[Coco] | type[Folder]] = {
    "voc": Voc,
    "coco": Coco,
    "folder": Folder,
}


def build(data: Data) -> tuple[Dataset, Dataset]:
    """The training and the validation set; DataError names the file or setting that is wrong."""
    return build_split(data, "train"), build_split(data, "val")


def build_split(data: Data, part: str) -> Dataset:
    """One of the two; part: "train" or "val". Only training labels are made wrong."""
    found = _split(data, part)
    noisy = part == "train" and data.label_noise > 0
    return Mislabelled(found, data.label_noise, data.seed) if noisy else found


def _split(data: Data, part: str) -> Dataset:
    count, split = (data.train, data.train_split) if part == "train" else (data.val, data.val_split)
    if data.kind == "scenes":
        return SceneSet(data.scenes, count, data.seed, "train" if part == "train" else "val")
    if not data.root:
        raise DataError(
            f"data.root: kind {data.kind!r} needs the folder of its photos (--data DIR)"
        )
    chosen = {"labels": data.labels, "classes": data.classes, "others": data.others}
    return KINDS[data.kind](data.root, split, **chosen, limit=count)


def scored(data: Dataset) -> Dataset:
    """The samples that have a mask to be scored against; scenes and VOC always have one."""
    return data.masked() if isinstance(data, Photos) else data


def fingerprint(data: Dataset) -> str:
    """What tells whether data are still the same; of photos also what their files are."""
    told = f"{len(data)} images, {len(data.classes)} classes"
    return f"{told}, files {data.fingerprint()}" if hasattr(data, "fingerprint") else told
