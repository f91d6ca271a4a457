"""The mask loss: segmentation learned from the network's own refined masks.

Araslanov & Roth, CVPR 2020, with the gate of the released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.sample import IGNORE
from ..model.layers import resize
from .precision import at_least_float32


def mask_loss(logits: Tensor, pseudo: Tensor, labels: Tensor) -> Tensor:
    """Class-balanced cross-entropy against the pseudo ground truth, one value an image.

    logits: (B, K+1, h, w), resized here (bilinear, corners aligned) to `pseudo`, (B, H, W)
    uint8 with 255 where nothing is known; labels: (B, K). Returns (B,), at least float32:

        w_c = (n - n_c) / (1 + n)                 n_c pseudo pixels of class c, n their sum
        L   = gate * (sum_i w_{g_i} CE_i) / HW    over known pixels

    so small classes weigh more, and an image of which little is known weighs less. Images whose
    gate is shut (see `gate_open`) have loss 0.
    """
    counts = _counts(pseudo, labels)
    if logits.dim() != 4 or logits.shape[:2] != counts.shape:
        raise ValueError(
            f"mask_loss: logits must be (B, K+1, h, w) with (B, K+1) = {tuple(counts.shape)}, "
            f"got {tuple(logits.shape)}"
        )
    logits = at_least_float32(logits)
    known = counts.sum(1, keepdim=True)
    weights = ((known - counts) / (1 + known)).to(logits.dtype)
    target = pseudo.long()
    height, width = target.shape[-2:]
    entropy = F.cross_entropy(
        resize(logits, (height, width)), target, ignore_index=IGNORE, reduction="none"
    )
    # Ignored pixels have entropy 0, so the class looked up for them does not matter.
    places = target.where(target != IGNORE, 0).flatten(1)
    weighted = entropy.flatten(1) * weights.gather(1, places)
    return weighted.mean(1).where(_is_open(counts, labels), 0)


def true_mask_loss(logits: Tensor, masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Cross-entropy against true masks, the mean over known pixels: full supervision.

    logits: (B, K+1, h, w); masks: (B, H, W) uint8 with 255 where nothing is known. Both are taken
    to `size` with corners aligned, the masks by their nearest pixels. Returns a scalar.
    """
    rows, columns = (
        torch.linspace(0, whole - 1, part, device=masks.device).round().long()
        for whole, part in zip(masks.shape[1:], size, strict=True)
    )
    target = masks[:, rows[:, None], columns].long()
    entropy = F.cross_entropy(resize(logits, size), target, ignore_index=IGNORE, reduction="sum")
    return entropy / (target != IGNORE).sum().clamp(min=1)


def gate_open(pseudo: Tensor, labels: Tensor) -> Tensor:
    """Which images may teach: bool (B,).

    pseudo: (B, H, W) uint8; labels: (B, K). An image counts only if its pseudo ground truth
    shows every labelled class and the background; one that lost a class would teach the network
    to paint that class over.
    """
    return _is_open(_counts(pseudo, labels), labels)


def _is_open(counts: Tensor, labels: Tensor) -> Tensor:
    return (counts > 0).sum(1) == (labels > 0).sum(1) + 1


def _counts(pseudo: Tensor, labels: Tensor) -> Tensor:
    """Pixels of each class, (B, K+1), ignored ones left out."""
    if pseudo.dim() != 3 or labels.dim() != 2 or len(pseudo) != len(labels):
        raise ValueError(
            "pseudo labels must be (B, H, W) and image labels (B, K), "
            f"got {tuple(pseudo.shape)} and {tuple(labels.shape)}"
        )
    images, bins = len(pseudo), IGNORE + 1
    shift = bins * torch.arange(images, device=pseudo.device)[:, None, None]
    counts = torch.bincount((pseudo.long() + shift).flatten(), minlength=images * bins)
    counts = counts.view(images, bins)
    classes = labels.shape[1] + 1
    # A GPU would have to be waited for.
    if not counts.is_cuda and counts[:, classes:IGNORE].any():
        raise ValueError(f"pseudo labels must be 0..{classes - 1} or {IGNORE}")
    return counts[:, :classes]
