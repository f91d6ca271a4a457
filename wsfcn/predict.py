"""Prediction: photo -> scales and flips -> merged masks -> protocol -> label map."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .data.transforms import to_tensor
from .pool import in_order, named
from .protocols import Protocol, given_image_labels, single_scale
from .segmentation import Segmentation
from .settings import SettingsError
from .views import SMALLEST_INPUT, Merged, NetworkLike, merge_scales, resized
from .weak import crf

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

LARGEST_INPUT = 2048
BATCH_PIXELS = 16 * 256 * 256  # bounds the memory of one forward pass
STRIP_PIXELS = 1 << 18  # pixels of the photo whose class masks exist at the same time
CRF_LONGEST = 1024  # px; a CRF of a larger photo takes gigabytes

__all__ = ["Merged", "NetworkLike", "merge_scales"]  # of .views, and whatever is below

ImageLabels = NDArray[Any] | Sequence[Sequence[str]]  # (B, K) of 0 and 1, or names


def label_map(masks: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The best class of every pixel: (N, h, w) masks -> (H, W) uint8 of `size`.

    Equals the argmax of the masks resized bilinearly (align_corners=False), but works in strips
    of rows and on the classes that occur, so that masks of the whole photo never exist.
    """
    # Class 0 first, also where it is 0 everywhere: ties go to the background, as in an argmax.
    active = [0, *(c for c in range(1, len(masks)) if masks[c].any())]
    source = torch.from_numpy(np.ascontiguousarray(masks[active]))
    (height, width), (h, w) = size, source.shape[-2:]
    names = np.asarray(active, np.uint8)
    if (height, width) == (h, w):
        return names[_argmax(source)]
    labels = np.empty((height, width), np.uint8)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        place = ((torch.arange(top, bottom) + 0.5) * (h / height) - 0.5).clamp(0, h - 1)
        above = place.floor().long()
        below = (above + 1).clamp(max=h - 1)
        weight = (place - above)[:, None]
        strip = source[:, above] * (1 - weight) + source[:, below] * weight
        strip = F.interpolate(strip[None], (bottom - top, width), mode="bilinear")[0]
        labels[top:bottom] = names[_argmax(strip)]
    return labels


def _argmax(masks: Tensor) -> NDArray[np.uint8]:
    """As argmax(0), the first of equals; several times faster than torch's on large maps."""
    best, place = masks[0].clone(), torch.zeros(masks.shape[1:], dtype=torch.uint8)
    for index in range(1, len(masks)):
        better = masks[index] > best
        place.masked_fill_(better, index)
        torch.maximum(best, masks[index], out=best)
    return place.numpy()


def _crf_problem(masks: NDArray[np.float32], image: NDArray[np.uint8], kind: str) -> crf.Problem:
    """Of an image (H, W, 3), which the CRF sees at most CRF_LONGEST long."""
    small = shrunk(image, CRF_LONGEST)
    full = F.interpolate(torch.from_numpy(masks)[None], small.shape[:2], mode="bilinear")[0]
    return crf.problem_of(small, full.numpy(), kind)


def refined(
    found: Iterable[tuple[str, Segmentation]],
    protocol: Protocol,
    *,
    processes: int = 1,
) -> Iterator[Segmentation]:
    """Segmentations, named for messages, after the CRF of a protocol; in their order.

    processes: how many work at it; more than one only for pydensecrf. Raises `pool.WorkError`
    naming what failed.
    """
    protocol = settled(protocol)
    waiting: deque[tuple[Segmentation, crf.Problem]] = deque()

    def work() -> Iterator[tuple[str, tuple[Any, ...]]]:
        for name, one in found:
            try:
                problem = _crf_problem(one.masks, one.image, protocol.crf)
            except Exception as error:
                raise named(name, error) from error
            waiting.append((one, problem))
            yield name, (*problem.given, crf.ITERATIONS)

    # Solving is left to the processes alone, so that they need no torch: to load it takes a
    # process longer than an image does.
    count = processes if protocol.crf_code == "pydensecrf" else 1
    solve = crf.solvers()[protocol.crf_code]
    for solved in in_order(solve, work(), processes=count):
        one, problem = waiting.popleft()
        labels = label_map(problem.whole(solved), one.image.shape[:2])
        yield replace(one, labels=labels, protocol=protocol)


def settled(protocol: Protocol) -> Protocol:
    """The protocol with the code of its CRF chosen, as results carry it."""
    if protocol.crf == "none":
        return protocol
    return protocol.change({"crf_code": crf.chosen_code(protocol.crf_code)})


def default_size(model: NetworkLike) -> int:
    """Longest side in px at which a network looks at photos: that of its recipe's protocol, else
    twice its training crop.

    Objects then appear at most about twice as large as in training. (The paper trains on crops
    of 321 px and tests on photos of up to 500 px, a factor of 1.6.) Without a recipe: 512.
    """
    recipe = getattr(model, "recipe", None)
    return recipe.protocol.longest or 2 * recipe.augment.crop if recipe is not None else 512


def working_size(model: NetworkLike, size: int | None) -> int:
    """The checked longest side: `size`, or the network's default."""
    size = default_size(model) if size is None else size
    if not SMALLEST_INPUT <= size <= LARGEST_INPUT:
        raise SettingsError(f"size: needs {SMALLEST_INPUT} to {LARGEST_INPUT} px, got {size}")
    return size


def at_size(model: NetworkLike, protocol: Protocol, size: int | None) -> tuple[Protocol, int]:
    """The longest side to work at, `size` before the protocol's before the network's default, and
    the protocol, which if it tells one tells this one."""
    size = working_size(model, protocol.longest or None if size is None else size)
    return protocol.change({"longest": size}) if protocol.longest else protocol, size


def protocol_of(model: NetworkLike) -> Protocol:
    """The protocol of the network's recipe, or single scale with flip."""
    recipe = getattr(model, "recipe", None)
    return recipe.protocol if recipe is not None else single_scale()


def predict(
    model: NetworkLike,
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    protocol: Protocol | None = None,
    labels: ImageLabels | None = None,
    *,
    size: int | None = None,
    batch_size: int = 16,
    processes: int = 1,
) -> list[Segmentation]:
    """Segment images, in order; those of equal size share forward passes.

    images: uint8 (H, W, 3) arrays, or one array (H, W, 3) or (B, H, W, 3). labels: image labels
    where known, (B, K) of 0 and 1 or class names per image; the protocol must say that they are
    given (without a protocol it is `given_image_labels`). size: longest side at which the
    network works, see `default_size`; smaller images keep their size. processes: see `refined`.
    The network is put into eval mode for the call.
    """
    if isinstance(images, np.ndarray):
        images = [images] if images.ndim == 3 else list(images)
    for image in images:
        _check_image(image)
    if protocol is None:
        protocol = protocol_of(model) if labels is None else given_image_labels()
    protocol, size = at_size(model, protocol, size)
    given = None if labels is None else _label_array(labels, model.classes, len(images))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    results: dict[int, Segmentation] = {}
    with _evaluating(model), torch.inference_mode():
        for group in _groups(images, size, protocol, batch_size):
            batch = torch.stack([to_tensor(shrunk(images[i], size)) for i in group]).to(device)
            known = None if given is None else torch.from_numpy(given[group]).to(device)
            merged = merge_scales(model, batch, protocol, known)
            if not merged.masks.isfinite().all():
                raise ValueError("the network's masks are not finite: its weights are damaged")
            masks, scores = merged.masks.cpu().numpy(), merged.scores.cpu().numpy()
            for index, mask, score in zip(group, masks, scores, strict=True):
                labels_found = label_map(mask, images[index].shape[:2])
                results[index] = Segmentation(
                    images[index], labels_found, mask, score, model.classes, protocol
                )
    ordered = [results[index] for index in range(len(images))]
    if protocol.crf == "none":
        return ordered
    named = ((f"image {index}", one) for index, one in enumerate(ordered))
    return list(refined(named, protocol, processes=processes))


def segment(
    model: NetworkLike,
    photo: str | Path | NDArray[np.uint8] | Picture,
    protocol: Protocol | None = None,
    *,
    size: int | None = None,
    labels: Sequence[str] | None = None,
) -> Segmentation:
    """Segment one photo: a path, an RGB uint8 array (H, W, 3), or a Pillow image.

    >>> import wsfcn
    >>> model = wsfcn.load("lite-voc")  # doctest: +SKIP
    >>> wsfcn.segment(model, "photo.jpg").areas()  # doctest: +SKIP
    {'background': 0.71, 'cat': 0.29}

    labels: names of the classes that the photo is known to show. Other arguments and errors as
    in `predict`; ImageError for a file that cannot be read.
    """
    from .data import images

    if isinstance(photo, str | Path):
        array = images.read_image(photo)
    elif isinstance(photo, Image.Image):
        array = images.to_rgb(photo)
    else:
        array = photo
    known = None if labels is None else [list(labels)]
    return predict(model, [array], protocol, known, size=size)[0]


def _check_image(image: Any) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image: needs a uint8 array, got {kind}; scale other values to 0..255")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image: needs shape (H, W, 3), got {image.shape}")


def _label_array(labels: ImageLabels, classes: tuple[str, ...], count: int) -> NDArray[np.float32]:
    """(count, K) of 0 and 1."""
    if not isinstance(labels, np.ndarray):
        rows = np.zeros((len(labels), len(classes)), np.float32)
        for row, names in zip(rows, labels, strict=True):
            for name in names:
                if name not in classes:
                    known = ", ".join(classes)
                    raise SettingsError(f"labels: unknown class {name!r}; known: {known}")
                row[classes.index(name)] = 1
        labels = rows
    if labels.shape != (count, len(classes)):
        raise ValueError(f"labels: need shape {(count, len(classes))}, got {labels.shape}")
    return labels.astype(np.float32)


def _working_shape(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    ratio = min(1.0, longest / max(shape[:2]))
    return max(1, round(ratio * shape[0])), max(1, round(ratio * shape[1]))


def shrunk(image: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """The image with at most so many px on its longest side."""
    height, width = _working_shape(image.shape, longest)
    return image if (height, width) == image.shape[:2] else resized(image, height, width)


def _groups(
    images: Sequence[NDArray[np.uint8]], longest: int, protocol: Protocol, batch_size: int
) -> Iterator[list[int]]:
    """Images of equal working size, few enough for the memory of a forward pass."""
    waiting: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        own = _working_shape(image.shape, longest)
        pixels = own[0] * own[1] * max(1.0, max(protocol.scales)) ** 2
        if protocol.padding == "canvas":
            pixels = protocol.canvas**2
        group = waiting.setdefault(own, [])
        group.append(index)
        if len(group) >= max(1, min(batch_size, int(BATCH_PIXELS // pixels))):
            yield waiting.pop(own)
    yield from waiting.values()


@contextmanager
def _evaluating(model: NetworkLike) -> Iterator[None]:
    """Eval mode inside; afterwards every module has the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
