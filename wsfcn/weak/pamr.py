"""PAMR: pixel-adaptive mask refinement (Araslanov & Roth, CVPR 2020).

Masks flow, step by step, between pixels that look alike: each step replaces a pixel's mask by
an average over 8 neighbours at each of several dilations, weighted by how similar their colours
are. Nothing is learned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.layers import resize
from .precision import at_least_float32

DILATIONS = (1, 2, 4, 8, 12, 24)
# Row by row around the centre, which is left out.
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
SOFTNESS = 0.1  # share of the local standard deviation that counts as the same colour
TINY = 1e-8


class PAMR(nn.Module):
    """Refine masks with the colours of their image; no parameters, no gradients.

    iterations: steps (0 returns the masks). dilations: radii in pixels of the *masks*, each
    adding 8 neighbours. The released models use 10 steps and the 48 neighbours of the default.

    >>> image, masks = torch.rand(1, 3, 33, 33), torch.rand(1, 21, 9, 9)
    >>> PAMR(iterations=2)(image, masks).shape
    torch.Size([1, 21, 9, 9])
    """

    def __init__(self, iterations: int = 10, dilations: Sequence[int] = DILATIONS) -> None:
        super().__init__()
        if iterations < 0:
            raise ValueError(f"PAMR: iterations must be >= 0, got {iterations}")
        if not dilations or any(not isinstance(d, int) or d < 1 for d in dilations):
            raise ValueError(f"PAMR: dilations must be integers >= 1, got {tuple(dilations)}")
        self.iterations = iterations
        self.dilations = tuple(dilations)

    def extra_repr(self) -> str:
        """What print(pamr) shows."""
        return f"iterations={self.iterations}, dilations={self.dilations}"

    @property
    def offsets(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) from a pixel to each neighbour, in the order of `affinities`."""
        return tuple((y * d, x * d) for d in self.dilations for y, x in NEIGHBOURS)

    def forward(self, image: Tensor, masks: Tensor) -> Tensor:
        """Refined masks, shape and dtype of `masks`.

        image: (B, 3, H, W) in [0, 1]; masks: (B, C, h, w), any number of channels, each refined
        on its own. An image of another size is resized to the masks (bilinear, corners aligned).
        Work is done in float32 for half-precision masks, a batch never becomes larger than its
        padded masks or its affinities. Raises ValueError for wrong shapes or integer tensors.
        """
        return deque(self.steps(image, masks), maxlen=1).pop()

    def steps(self, image: Tensor, masks: Tensor) -> Iterator[Tensor]:
        """The masks before the first step, then after each one: iterations + 1 tensors.

        Arguments and errors are those of `forward`; each step is computed when it is asked for.
        """
        _check(image, masks)
        return self._walk(image, masks)

    @torch.no_grad()
    def _walk(self, image: Tensor, masks: Tensor) -> Iterator[Tensor]:
        yield masks.detach()
        if not self.iterations:
            return
        height, width = masks.shape[-2:]
        current = at_least_float32(masks.detach()).contiguous()
        affinities = self.affinities(resize(at_least_float32(image), (height, width)))
        affinities = affinities.to(current.dtype)
        for _ in range(self.iterations):
            current = self._step(affinities, current)
            yield current.to(masks.dtype)

    @torch.no_grad()
    def affinities(self, image: Tensor) -> Tensor:
        """Weights (B, 8 len(dilations), H, W) with which a pixel listens to its neighbours.

        image: (B, 3, H, W). Neighbour n of pixel (y, x) is the pixel at (y, x) + offsets[n],
        or the nearest one inside the image; the weights of a pixel sum to 1. They are
        the softmax over the neighbours of

            mean over RGB of  -|I_pixel - I_neighbour| / (1e-8 + 0.1 sigma)

        with sigma the unbiased standard deviation of a colour over all neighbourhoods, the
        centre counted once for each dilation. Brightness and contrast of a channel cancel.
        """
        _check(image)
        # In half precision the 1e-8 below would be zero.
        image = at_least_float32(image).contiguous()
        height, width = image.shape[-2:]
        padded = self._pad(image)
        # Deviations from the centre make one pass exact enough: the centre's weight in the
        # samples (1/9) bounds what the subtraction can cancel.
        total, squares = torch.zeros_like(image), torch.zeros_like(image)
        for offset in self.offsets:
            difference = self._shifted(padded, offset, height, width) - image
            total += difference
            squares.addcmul_(difference, difference)
        samples = 9 * len(self.dilations)
        variance = (squares - total.square() / samples).clamp_(min=0) / (samples - 1)
        scale = -1 / (3 * (TINY + SOFTNESS * variance.sqrt()))
        similarity = image.new_empty(len(image), len(self.offsets), height, width)
        for n, offset in enumerate(self.offsets):
            difference = self._shifted(padded, offset, height, width) - image
            torch.sum(difference.abs_().mul_(scale), dim=1, out=similarity[:, n])
        return similarity.softmax(dim=1)

    def _step(self, affinities: Tensor, masks: Tensor) -> Tensor:
        height, width = masks.shape[-2:]
        padded = self._pad(masks)
        refined = torch.zeros_like(masks)
        for n, offset in enumerate(self.offsets):
            refined.addcmul_(self._shifted(padded, offset, height, width), affinities[:, n : n + 1])
        return refined

    def _pad(self, x: Tensor) -> Tensor:
        return F.pad(x, (max(self.dilations),) * 4, mode="replicate")

    def _shifted(self, padded: Tensor, offset: tuple[int, int], height: int, width: int) -> Tensor:
        """A view of the padded tensor: at each pixel, its neighbour at `offset`."""
        y, x = (max(self.dilations) + step for step in offset)
        return padded[:, :, y : y + height, x : x + width]


def _check(image: Tensor, masks: Tensor | None = None) -> None:
    if image.dim() != 4 or image.shape[1] != 3:
        raise ValueError(f"PAMR: image must be (B, 3, H, W), got {tuple(image.shape)}")
    if not image.is_floating_point():
        raise ValueError(f"PAMR: image must be floating-point in [0, 1], got {image.dtype}")
    if masks is None:
        return
    if masks.dim() != 4:
        raise ValueError(f"PAMR: masks must be (B, C, h, w), got {tuple(masks.shape)}")
    if not masks.is_floating_point():
        raise ValueError(f"PAMR: masks must be floating-point, got {masks.dtype}")
    if len(masks) != len(image):
        raise ValueError(f"PAMR: {len(image)} images but masks for {len(masks)}")
