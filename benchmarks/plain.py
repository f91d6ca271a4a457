"""The plain formulations that ours are measured against, written from the published method.

Channels first, float32, every class, nothing left out, nothing shared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

DILATIONS = (1, 2, 4, 8, 12, 24)


def stacked(x: Tensor, dilations: Sequence[int], *, centre: bool = False) -> Tensor:
    """(B, C, H, W) -> (B, C, 8 a dilation, H, W): every pixel's neighbours; 9 with the centre.

    By slices: convolutions with constant kernels, the released way, take twice as long.
    """
    height, width = x.shape[-2:]
    found = []
    for d in dilations:
        padded = F.pad(x, (d,) * 4, mode="replicate")
        for place in range(9):
            if centre or place != 4:
                y, x0 = d * (place // 3), d * (place % 3)
                found.append(padded[:, :, y : y + height, x0 : x0 + width])
    return torch.stack(found, 2)


@torch.no_grad()
def pamr(
    image: Tensor, masks: Tensor, iterations: int = 10, dilations: Sequence[int] = DILATIONS
) -> Tensor:
    """Every channel, the neighbours of all pixels stacked in each iteration."""
    image = F.interpolate(image, masks.shape[-2:], mode="bilinear", align_corners=True)
    near = stacked(image, dilations)
    sigma = stacked(image, dilations, centre=True).std(2, keepdim=True)
    alike = -(near - image[:, :, None]).abs() / (1e-8 + 0.1 * sigma)
    weights = alike.mean(1, keepdim=True).softmax(2)
    for _ in range(iterations):
        masks = (weights * stacked(masks, dilations)).sum(2)
    return masks


@torch.no_grad()
def pseudo_labels(masks: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
    """One-hot (B, K+1, *size): sole claims of classes above their thresholds."""
    present = torch.cat([torch.ones_like(labels[:, :1]), labels], 1)[..., None, None]
    masks = F.interpolate(masks, size, mode="bilinear", align_corners=True) * present
    factors = torch.tensor([0.7] + [0.6] * labels.shape[1]).view(1, -1, 1, 1)
    claimed = masks > (factors * masks.amax((2, 3), keepdim=True)).clamp(min=0.2)
    return (claimed & (claimed.sum(1, keepdim=True) == 1)).float()


def mask_loss(logits: Tensor, pseudo: Tensor, labels: Tensor) -> Tensor:
    """Class-balanced cross-entropy against one-hot labels, mean over the batch."""
    logits = F.interpolate(logits, pseudo.shape[-2:], mode="bilinear", align_corners=True)
    counts = pseudo.sum((2, 3), keepdim=True)
    total = counts.sum(1, keepdim=True)
    weights = (total - counts) / (1 + total)
    entropy = -(weights * pseudo * logits.log_softmax(1)).sum(1).mean((1, 2))
    shown = (counts.flatten(1) > 0).sum(1) == labels.sum(1) + 1
    return (shown * entropy).mean()


def losses(network: torch.nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Both losses of a batch in [0, 1], from the images, PAMR included whether needed or not."""
    pixels = network.normalise(images).contiguous()
    output = network.finish(network.backbone.stem(pixels), pixels.shape[-2:])
    classes = F.multilabel_soft_margin_loss(output.scores, labels)
    weak = network.recipe.weak
    masks = output.probabilities.detach()
    refined = pamr(images, masks, weak.pamr_iterations, weak.pamr_dilations)
    pseudo = pseudo_labels(refined, labels, images.shape[-2:])
    return classes, mask_loss(output.logits, pseudo, labels)


def confusion(prediction: np.ndarray, target: np.ndarray, classes: int) -> np.ndarray:
    """Pixel by pixel."""
    matrix = np.zeros((classes, classes), np.int64)
    for row in range(target.shape[0]):
        for column in range(target.shape[1]):
            if target[row, column] != 255:
                matrix[target[row, column], prediction[row, column]] += 1
    return matrix


@torch.no_grad()
def canvas_masks(network: torch.nn.Module, image: np.ndarray, side: int = 1024) -> Tensor:
    """(K+1, H, W): four scales and flips of a photo, each padded to a canvas, class filter 0.1."""
    from wsfcn.data.transforms import to_tensor
    from wsfcn.views import resized

    height, width = image.shape[:2]
    total, best = torch.zeros(1), torch.zeros(1)
    for scale in (1.0, 0.5, 1.5, 2.0):
        h, w = round(scale * height), round(scale * width)
        seen = network.normalise(to_tensor(resized(image, h, w))[None])
        top, left = (side - h) // 2, (side - w) // 2
        for mirrored in (False, True):
            view = F.pad(
                seen.flip(-1) if mirrored else seen, (left, side - w - left, top, side - h - top)
            )
            output = network(view)
            maps = F.interpolate(
                output.probabilities, (side, side), mode="bilinear", align_corners=True
            )[..., top : top + h, left : left + w]
            maps = F.interpolate(maps, (height, width), mode="bilinear")[0]
            total = total + (maps.flip(-1) if mirrored else maps) / 8
            best = torch.maximum(best, output.scores[0].sigmoid())
    total[1:] *= (best > 0.1)[:, None, None]
    total[0] = 0.25
    return total


def crf(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """pydensecrf with all labels -> label map; the constants of the released WS-FCN."""
    import pydensecrf.densecrf as dcrf

    masks = np.concatenate([(1 - masks[1:].max(0, keepdims=True)) ** 5, masks[1:]])
    count, height, width = masks.shape
    field = dcrf.DenseCRF2D(width, height, count)
    energies = -np.log(masks.clip(1e-5, 1)).reshape(count, -1)
    field.setUnaryEnergy(np.ascontiguousarray(energies, np.float32))
    field.addPairwiseGaussian(sxy=3, compat=3)
    field.addPairwiseBilateral(sxy=30, srgb=13, rgbim=np.array(image, order="C"), compat=10)
    return np.asarray(field.inference(10)).argmax(0).reshape(height, width)
