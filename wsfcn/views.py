"""What a network sees of a photo: scales, flips, the published canvas, tiles; merged to masks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Interface

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .data.transforms import to_tensor
from .model.layers import resize
from .protocols import Protocol
from .settings import SettingsError
from .weak.pamr import PAMR
from .weak.pseudo import refine

SMALLEST_INPUT = 32  # px; narrower images are enlarged, so that every layer has a map to work on
CHUNK_VALUES = 1 << 24  # mask values of a view that exist at the same time
# px; larger views are seen in tiles. VOC and COCO at scale 2 (1,000 and 1,280 px) never are. A
# multiple of 8 and one more: maps that are aligned at their corners then have their corners on the
# same pixels in every tile.
TILE, OVERLAP = 1345, 384


class NetworkLike(Interface):
    """What prediction needs of a network; `wsfcn.model.network.Network` has it."""

    classes: tuple[str, ...]

    def normalise(self, images: Tensor) -> Tensor:
        """[0, 1] -> what the backbone was trained on."""

    def modules(self) -> Iterator[torch.nn.Module]:
        """As torch.nn.Module."""

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """As torch.nn.Module."""

    def __call__(self, images: Tensor) -> Any:
        """An object with .masks (B, K+1, H, W) and .scores (B, K).

        Where it also has .probabilities (B, K+1, h, w) at a lower resolution, those are resized.
        """


@dataclass(frozen=True)
class Merged:
    """Masks of a batch after scales, flips, class filter and background rule.

    masks: (B, K+1, H, W), a rejected class is all 0. scores: (B, K) in (0, 1), the largest
    sigmoid over scales and flips. kept: (B, K), which classes passed.
    """

    masks: Tensor
    scores: Tensor
    kept: Tensor


def merge_scales(
    network: NetworkLike, images: Tensor, protocol: Protocol, labels: Tensor | None = None
) -> Merged:
    """Masks of images (B, 3, H, W) in [0, 1], merged over scales and flips (Table III).

    Each scaled image is seen at its own size, or centred on the released code's canvas where the
    protocol pads. Very large ones are seen in tiles, see `_seen`. labels: (B, K) image labels,
    needed where the protocol says that they are given.
    """
    if protocol.image_labels != (labels is not None):
        wanted = "needs image labels" if protocol.image_labels else "takes no image labels"
        raise SettingsError(f"protocol {protocol.name!r} {wanted}")
    count, _, height, width = images.shape
    masks = images.new_zeros((count, len(network.classes) + 1, height, width))
    best = images.new_zeros((count, len(network.classes)))
    padded = protocol.padding == "canvas"
    for scale in protocol.scales:
        inputs = network.normalise(_scaled(images, scale, exact=padded))
        place = _place(inputs, protocol) if padded else (0, 0, 0, 0)
        for mirrored in (False, True) if protocol.flip else (False,):
            # Mirrored, then padded: the margins may differ by a pixel, and only one way is theirs.
            view = F.pad(inputs.flip(-1) if mirrored else inputs, place)
            maps, scores = _seen(network, view)
            torch.maximum(best, scores, out=best)
            _add(masks, maps, (view.shape[-2], view.shape[-1]), place, mirrored)
    masks /= len(protocol.scales) * (1 + protocol.flip)
    kept = best > protocol.class_filter if labels is None else labels > 0.5
    masks[:, 1:] *= kept[:, :, None, None]
    if protocol.pamr:
        masks = refine(PAMR(protocol.pamr), images, masks, kept)
    if protocol.background == "constant":
        masks[:, 0] = protocol.background_value
    elif protocol.background == "power":
        masks[:, 0] = masks[:, 0].pow(protocol.background_value)
    return Merged(masks, best, kept)


def _scaled(images: Tensor, scale: float, exact: bool) -> Tensor:
    """Bicubic; exact: Pillow itself with its rounding to 8 bits, and no smallest size."""
    least = 1 if exact else SMALLEST_INPUT
    height, width = (max(least, round(scale * side)) for side in images.shape[-2:])
    if (height, width) == tuple(images.shape[-2:]):
        return images
    if exact:
        arrays = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return torch.stack([to_tensor(resized(a, height, width)) for a in arrays]).to(images)
    # With antialias torch computes Pillow's bicubic filter, the one used in training.
    scaled = F.interpolate(images, (height, width), mode="bicubic", antialias=True)
    return scaled.clamp(0, 1)


def _place(inputs: Tensor, protocol: Protocol) -> tuple[int, int, int, int]:
    """Margins left, right, top and bottom on the canvas; the smaller ones left and top."""
    height, width = inputs.shape[-2:]
    free = protocol.canvas - width, protocol.canvas - height
    if min(free) < 0:
        raise SettingsError(
            f"canvas: an image of {width} x {height} px (scaled) is larger than "
            f"{protocol.canvas} px; take padding none, a larger canvas or smaller scales"
        )
    left, top = free[0] // 2, free[1] // 2
    return left, free[0] - left, top, free[1] - top


def _add(
    total: Tensor,
    maps: Tensor,
    seen: tuple[int, int],
    place: tuple[int, int, int, int],
    mirrored: bool,
) -> None:
    """Add a view's maps: to the size seen, margins cut, to the size of `total`, mirrored back.

    A few classes at a time, so that the masks of a large view never exist together.
    """
    left, right, top, bottom = place
    size = (total.shape[-2], total.shape[-1])
    step = max(1, CHUNK_VALUES // (len(maps) * seen[0] * seen[1]))
    for first in range(0, maps.shape[1], step):
        part = resize(maps[:, first : first + step].float(), seen)
        part = part[..., top : seen[0] - bottom, left : seen[1] - right]
        part = resize(part, size, align_corners=False)
        total[:, first : first + step] += part.flip(-1) if mirrored else part


def _seen(network: NetworkLike, view: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of a view at the network's resolution, and (B, K) probabilities of the classes.

    A side beyond TILE px is seen in tiles, blended linearly within their overlap but for its
    outermost quarters, where a tile misses its surroundings. What the network pools over the
    image (channel attention, image branch, GCI) it pools over a tile: a tile is an image of its
    own. A class is scored by its best tile, as it is by its best scale and flip.
    """
    tops, lefts = _starts(view.shape[-2]), _starts(view.shape[-1])
    if len(tops) == len(lefts) == 1:
        output = network(view)
        return getattr(output, "probabilities", output.masks), output.scores.float().sigmoid()
    total = weights = best = torch.empty(0)
    for (top, bottom), (left, right) in itertools.product(tops, lefts):
        output = network(view[..., top:bottom, left:right])
        maps = getattr(output, "probabilities", output.masks).float()
        scores = output.scores.float().sigmoid()
        stride = round(max(bottom - top, right - left) / max(maps.shape[-2:]))
        if not len(total):
            size = (-(-view.shape[-2] // stride), -(-view.shape[-1] // stride))
            total, weights = maps.new_zeros((*maps.shape[:2], *size)), maps.new_zeros(size)
            best = scores
        ramps = (
            _ramp(maps.shape[axis], stride, start > 0, end < view.shape[axis]).to(maps)
            for axis, start, end in ((-2, top, bottom), (-1, left, right))
        )
        weight = torch.outer(*ramps)
        y, x = top // stride, left // stride
        here = (..., slice(y, y + maps.shape[-2]), slice(x, x + maps.shape[-1]))
        total[here] += weight * maps
        weights[here] += weight
        best = torch.maximum(best, scores)
    return total / weights, best


def _starts(length: int) -> list[tuple[int, int]]:
    """First and last + 1 pixel of each tile; starts fit every stride of a network."""
    if length <= TILE:
        return [(0, length)]
    count = math.ceil((length - OVERLAP) / (TILE - OVERLAP))
    starts = [32 * int((length - TILE) * i / (count - 1) / 32) for i in range(count)]
    return [(s, s + TILE) for s in starts[:-1]] + [(starts[-1], length)]


def _ramp(length: int, stride: int, before: bool, after: bool) -> Tensor:
    """Weights along one side of a tile, rising where it has a neighbour."""
    overlap = OVERLAP / stride
    rise = ((torch.arange(length) + 0.5 - overlap / 4) / (overlap / 2)).clamp(0, 1)
    ones = torch.ones(length)
    return (rise if before else ones) * (rise.flip(0) if after else ones)


def resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Pillow's bicubic resize of (H, W, 3) uint8."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
