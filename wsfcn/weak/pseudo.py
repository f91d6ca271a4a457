"""Pseudo ground truth: from refined masks and image labels to label maps to train on.

Araslanov & Roth, CVPR 2020; thresholds of the released WS-FCN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.sample import IGNORE
from ..model.layers import resize
from .pamr import PAMR
from .precision import at_least_float32


@torch.no_grad()
def refine(pamr: PAMR, image: Tensor, probabilities: Tensor, labels: Tensor) -> Tensor:
    """PAMR on the background and the classes that are in the image; other channels zero.

    image: (B, 3, H, W) in [0, 1]; probabilities: (B, K+1, h, w); labels: (B, K), 1 where the
    class is in the image. Returns (B, K+1, h, w). PAMR treats each channel on its own, so the
    kept ones are exactly what refining all K+1 would give, for a fraction of the work.
    """
    index, kept = _present(probabilities, labels)
    refined = pamr(image, _take(probabilities, index)).where(kept[..., None, None], 0)
    place = index[..., None, None].expand_as(refined)
    return torch.zeros_like(probabilities).scatter_(1, place, refined)


@torch.no_grad()
def pseudo_labels(
    masks: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    background_factor: float = 0.7,
    foreground_factor: float = 0.6,
    floor: float = 0.2,
) -> Tensor:
    """Label maps (B, *size) uint8: 0 background, 1..K classes, 255 where nothing is sure.

    masks: (B, K+1, h, w), refined; labels: (B, K). The masks are resized (bilinear, corners
    aligned); classes that are not in the image are dropped. A class claims the pixels where its
    mask is above max(floor, factor * its own maximum in the image); a pixel that no class or
    more than one claims is left out of training.
    """
    index, kept = _present(masks, labels)
    m = resize(at_least_float32(_take(masks, index)), size) * kept[..., None, None]
    most = m.amax((2, 3))
    thresholds = torch.where(index == 0, background_factor * most, foreground_factor * most)
    thresholds = thresholds.clamp(min=floor)
    claimed = m > thresholds[..., None, None]
    sole = claimed.sum(1) == 1
    # Summing is choosing where exactly one class claims the pixel.
    winner = (claimed * index[..., None, None]).sum(1)
    return torch.where(sole, winner, IGNORE).to(torch.uint8)


def _present(masks: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Channels of the background and the labelled classes, (B, M) with M the largest count.

    Images with fewer classes are filled up with absent channels; the second tensor, bool
    (B, M), tells which are real.
    """
    if masks.dim() != 4 or labels.shape != (len(masks), masks.shape[1] - 1):
        raise ValueError(
            "masks must be (B, K+1, h, w) and labels (B, K), "
            f"got {tuple(masks.shape)} and {tuple(labels.shape)}"
        )
    if masks.shape[1] > IGNORE:
        raise ValueError(f"label maps hold at most {IGNORE - 1} classes, got {labels.shape[1]}")
    present = torch.cat([labels.new_ones(len(labels), 1), labels], 1) > 0
    most = int(present.sum(1).max())
    index = present.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return index, present.gather(1, index)


def _take(masks: Tensor, index: Tensor) -> Tensor:
    return masks.gather(1, index[..., None, None].expand(-1, -1, *masks.shape[-2:]))
