"""Class activation maps (Zhou et al., CVPR 2016, equation 2): where a classifier looks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.layers import resize
from .precision import at_least_float32


def class_activation_maps(features: Tensor, weights: Tensor) -> Tensor:
    """Maps (B, K, h, w) in [0, 1]: the last features, weighted as the classifier weighs them.

    features: (B, C, h, w), what is pooled before the linear classifier; weights: (K, C), its
    rows of the classes wanted. Negative evidence is cut off, and each map divided by its own
    maximum; a map without positive evidence is all zero.
    """
    if features.dim() != 4 or weights.dim() != 2 or features.shape[1] != weights.shape[1]:
        raise ValueError(
            "class_activation_maps: features must be (B, C, h, w) and weights (K, C), "
            f"got {tuple(features.shape)} and {tuple(weights.shape)}"
        )
    features = at_least_float32(features)
    maps = torch.einsum("bchw,kc->bkhw", features, weights.to(features.dtype)).relu()
    most = maps.amax((2, 3), keepdim=True)
    return maps / most.where(most > 0, 1)


@torch.no_grad()
def cam_to_labels(
    cams: Tensor, threshold: float, size: tuple[int, int], labels: Tensor | None = None
) -> Tensor:
    """Label maps (B, *size) uint8: the strongest class, or background where none is strong.

    cams: (B, K, h, w) in [0, 1], resized bilinearly (corners not aligned); a pixel is
    background, 0, where no map is above `threshold`. With `labels`, (B, K), classes that are
    not in the image are left out.
    """
    if cams.dim() != 4:
        raise ValueError(f"cam_to_labels: cams must be (B, K, h, w), got {tuple(cams.shape)}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"cam_to_labels: threshold must be in 0..1, got {threshold}")
    if labels is not None:
        if labels.shape != cams.shape[:2]:
            raise ValueError(
                f"cam_to_labels: labels must be {tuple(cams.shape[:2])}, got {tuple(labels.shape)}"
            )
        cams = cams * (labels > 0)[..., None, None]
    strongest, index = resize(cams, size, align_corners=False).max(1)
    return torch.where(strongest > threshold, index + 1, 0).to(torch.uint8)
