"""Label maps as files: index PNGs in the colours of VOC, and the tar its server takes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from .data import images
from .data.sample import Dataset
from .files import check_output_folder, write_all
from .protocols import Protocol

PROTOCOL = "protocol.json"


class MissingPredictionsError(ValueError):
    """Images without a predicted mask; `names` are all of them."""

    def __init__(self, folder: Path, names: Sequence[str], count: int) -> None:
        self.names = list(names)
        told = ", ".join(self.names[:5]) + (", ..." if len(self.names) > 5 else "")
        super().__init__(
            f"{folder}: no prediction for {len(self.names)} of {count} images: {told} "
            "(each needs a file <id>.png; nothing is left out of a score)"
        )


def names_of(dataset: Dataset) -> list[str]:
    """The ids of a data set's images, in order; without reading them where it knows them."""
    return list(getattr(dataset, "names", None) or (dataset[i].id for i in range(len(dataset))))


def mask_path(folder: str | Path, name: str) -> Path:
    """Where the mask of an image lies; ValueError for a name that would leave the folder."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or parts[0] == "/":
        raise ValueError(f"image {name!r}: cannot be the name of a file in {folder}")
    return Path(folder, f"{name}.png")


def write_mask(folder: str | Path, name: str, labels: NDArray[np.uint8]) -> Path:
    """`<folder>/<name>.png`: class indices in VOC's palette, written whole or not at all."""
    from .show.segmentation import index_png

    path = mask_path(folder, name)
    return write_all(path.parent, {path.name: index_png(labels)})[0]


def read_mask(folder: str | Path, name: str) -> NDArray[np.uint8]:
    """The class indices of such a file; ValueError naming it where it holds none."""
    return images.read_mask(mask_path(folder, name))


def check_complete(folder: str | Path, names: Sequence[str]) -> None:
    """MissingPredictionsError unless every image has its file."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of predictions")
    missing = [name for name in names if not mask_path(folder, name).is_file()]
    if missing:
        raise MissingPredictionsError(Path(folder), missing, len(names))


def write_protocol(folder: str | Path, protocol: Protocol) -> None:
    """`<folder>/protocol.json`: how the masks beside it were made.

    ValueError where the folder has masks of another protocol, which would pass for these.
    """
    if Path(folder, PROTOCOL).exists() and (other := read_protocol(folder).differences(protocol)):
        raise ValueError(
            f"{folder}: has masks made otherwise ({'; '.join(other)}); name another folder"
        )
    text = json.dumps(protocol.model_dump(mode="json"), indent=1) + "\n"
    write_all(folder, {PROTOCOL: text.encode()})


def read_protocol(folder: str | Path) -> Protocol:
    """What `write_protocol` wrote; ValueError naming the file."""
    path = Path(folder, PROTOCOL)
    try:
        return Protocol(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; say which protocol made the masks") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: is no protocol ({error})") from None


def voc_tar(folder: str | Path, names: Sequence[str], out: str | Path, split: str = "test") -> Path:
    """The masks of `folder` as the tar (gzip) that the server of PASCAL VOC takes.

    They lie in results/VOC2012/Segmentation/comp6_SPLIT_cls/ (comp6: trained on more than VOC's
    own masks). MissingPredictionsError unless all images have one.
    """
    check_complete(folder, names)
    out = Path(out)
    check_output_folder(out.parent)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            inside = f"results/VOC2012/Segmentation/comp6_{split}_cls/{name}.png"
            tar.add(mask_path(folder, name), inside, filter=_anonymous)
    return write_all(out.parent, {out.name: buffer.getvalue()})[0]


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owner and time: equal masks give equal members."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member
