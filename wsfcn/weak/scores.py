"""From masks to image-level scores: what lets image labels train a segmentation network.

Normalised global weighted pooling (nGWP) and the focal penalty on small masks come from
Araslanov & Roth, CVPR 2020; WS-FCN keeps both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32


def ngwp_scores(
    logits: Tensor, probabilities: Tensor, power: float = 3.0, floor: float = 0.01
) -> Tensor:
    """Normalised global weighted pooling plus the focal size penalty.

    logits, probabilities: (B, K+1, h, w), background at channel 0, probabilities the softmax of
    the logits. Returns (B, K) scores before the sigmoid, at least float32:

        s_c = sum_i m_ci z_ci / (1 + sum_i m_ci)          the mean logit inside the mask
        y_c = s_c + (1 - mu_c)^power log(floor + mu_c)    mu_c = mean_i m_ci, the mask's size

    The 1 in the denominator keeps the score of an empty mask at 0; the penalty then falls to
    log(floor), so a class cannot be predicted without claiming some pixels for it.
    """
    if logits.shape != probabilities.shape or logits.dim() != 4 or logits.shape[1] < 2:
        raise ValueError(
            "ngwp_scores: logits and probabilities must both be (B, K+1, h, w) with K >= 1, "
            f"got {tuple(logits.shape)} and {tuple(probabilities.shape)}"
        )
    z = logits[:, 1:].flatten(2)
    m = at_least_float32(probabilities[:, 1:]).flatten(2)
    pooled = (m * z).sum(2) / (1 + m.sum(2))
    size = m.mean(2)
    # Rounding can push the mean of a full mask above 1, where a broken power has no value.
    penalty = (1 - size).clamp(min=0) ** power * torch.log(floor + size)
    return pooled + penalty


def classification_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Multi-label soft margin loss: mean over classes and batch of the binary cross-entropies.

    scores: (B, K) before the sigmoid; labels: (B, K), 1 where the class is in the image.
    """
    if scores.shape != labels.shape:
        raise ValueError(
            "classification_loss: scores and labels must have one shape (B, K), "
            f"got {tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    scores = at_least_float32(scores)
    return F.multilabel_soft_margin_loss(scores, labels.to(scores.dtype))
