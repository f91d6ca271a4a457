"""PAMR: pixel-adaptive mask refinement (Araslanov & Roth, CVPR 2020).

Masks flow, step by step, between pixels that look alike: each step replaces a pixel's mask by
an average over 8 neighbours at each of several dilations, weighted by how similar their colours
are. Nothing is learned.
"""

from __future__ import annotations

import importlib.util
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.layers import resize
from .precision import at_least_float32
from .sparse import compressed_rows

DILATIONS = (1, 2, 4, 8, 12, 24)
# Row by row around the centre, which is left out.
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
SOFTNESS = 0.1  # share of the local standard deviation that counts as the same colour
TINY = 1e-8
# Pixels whose neighbours' colours exist at the same time: on a CPU they stay in its cache.
TILE, GPU_TILE = 3 << 10, 1 << 17
TOGETHER = 1 << 13  # pixels of small masks that a CPU refines together


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

    @torch.no_grad()
    def forward(self, image: Tensor, masks: Tensor) -> Tensor:
        """Refined masks, shape and dtype of `masks`.

        image: (B, 3, H, W) in [0, 1]; masks: (B, C, h, w), any number of channels, each refined
        on its own. An image of another size is resized to the masks (bilinear, corners aligned).
        Work is done in float32 for half-precision masks. On a CPU large images are refined one
        after the other, so that the affinities of one alone exist. Raises ValueError for wrong
        shapes or integer tensors.
        """
        _check(image, masks)
        count = len(masks)
        if masks.device.type == "cpu":
            count = max(1, TOGETHER // (masks.shape[-2] * masks.shape[-1]))
        pairs = zip(image.split(count), masks.split(count), strict=True)
        parts = [deque(self._walk(*pair), maxlen=1).pop() for pair in pairs]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

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
        size = (masks.shape[-2], masks.shape[-1])
        current = at_least_float32(masks.detach()).contiguous()
        affinities = self.affinities(resize(at_least_float32(image), size))
        step = self._stepper(affinities.to(current.dtype))
        for _ in range(self.iterations):
            current = step(current)
            yield current.to(masks.dtype).contiguous()

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
        batch, _, height, width = image.shape
        samples = 9 * len(self.dilations)
        if _fused(image):
            from .pamr_triton import affinities

            return affinities(image, self._there(image), samples, TINY, SOFTNESS)
        padded = self._pad(image)
        layout = torch.channels_last if self._multiplies(image) else torch.contiguous_format
        shape = (batch, len(self.offsets), height, width)
        weights = torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=layout)
        tile = TILE if image.device.type == "cpu" else GPU_TILE
        rows = max(1, math.ceil(height / math.ceil(max(1, batch * height * width) / tile)))
        for top in range(0, height, rows):
            centre = image[:, :, top : top + rows]
            near = centre.new_empty(3, len(self.offsets), batch, centre.shape[2], width)
            for n, (y, x) in enumerate(self.offsets):
                there = self._shifted(padded, (y + top, x), centre.shape[2], width)
                torch.sub(there.transpose(0, 1), centre.transpose(0, 1), out=near[:, n])
            # Deviations from the centre make one pass exact enough: the centre's weight in the
            # samples (1/9) bounds what the subtraction can cancel.
            squares = torch.stack([colour.square().sum(0) for colour in near])
            variance = (squares - near.sum(1).square() / samples).clamp_(min=0) / (samples - 1)
            scale = -1 / (3 * (TINY + SOFTNESS * variance.sqrt()))
            near.abs_()
            similarity = near[0] * scale[0]
            for colour, factor in zip(near[1:], scale[1:], strict=True):
                similarity.addcmul_(colour, factor)
            del near, colour
            weights[:, :, top : top + rows] = similarity.transpose(0, 1).softmax(1)
        return weights

    def _stepper(self, affinities: Tensor) -> Callable[[Tensor], Tensor]:
        """The function that takes masks a step further, the fastest that there is here."""
        height, width = affinities.shape[-2:]
        if _fused(affinities):
            from .pamr_triton import step

            return partial(step, affinities, offsets=self._there(affinities))
        if not self._multiplies(affinities):
            return partial(self._step, affinities)
        # All pixels by all pixels: one call a step, where 48 small ones wait for their threads
        # 48 times. The masks stay in the layout that it wants, channels last.
        places, ends = _places(self.offsets, len(affinities), height, width)
        values = affinities.movedim(1, -1).flatten()
        return partial(_multiply, compressed_rows(ends, places, values, (len(ends) - 1,) * 2))

    def _there(self, x: Tensor) -> Tensor:
        """The offsets (N, 2) on the device of `x`, which does not wait for them."""
        offsets = torch.tensor(self.offsets, dtype=torch.int32).pin_memory()
        return offsets.to(x.device, non_blocking=True)

    def _multiplies(self, x: Tensor) -> bool:
        """Whether sparse products are fast here: on CPUs with MKL, which counts in 32 bits."""
        fits = len(self.offsets) * x[:, 0].numel() < 2**31
        return x.device.type == "cpu" and torch.backends.mkl.is_available() and fits

    def _step(self, affinities: Tensor, masks: Tensor) -> Tensor:
        """The same anywhere and in any precision: what the others are tested against."""
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


def _fused(x: Tensor) -> bool:
    """Whether the kernels of `pamr_triton` can be had."""
    single = x.is_cuda and x.dtype == torch.float32
    return single and importlib.util.find_spec("triton") is not None


@lru_cache(maxsize=1)
def _places(
    offsets: tuple[tuple[int, int], ...], batch: int, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """The numbers of each pixel's neighbours among all pixels of a batch, and where they end."""
    y, x = torch.tensor(offsets, dtype=torch.int32).unbind(1)
    rows = (torch.arange(height, dtype=torch.int32)[:, None] + y).clamp_(0, height - 1)
    columns = (torch.arange(width, dtype=torch.int32)[:, None] + x).clamp_(0, width - 1)
    first = torch.arange(batch, dtype=torch.int32)[:, None, None] * (height * width)
    places = ((first + rows * width)[:, :, None] + columns).flatten()
    return places, torch.arange(0, len(places) + 1, len(offsets), dtype=torch.int32)


@torch.autocast("cpu", enabled=False)
def _multiply(matrix: Tensor, masks: Tensor) -> Tensor:
    pixels = matrix @ masks.movedim(1, -1).flatten(0, 2)
    return pixels.view(len(masks), *masks.shape[-2:], -1).movedim(-1, 1)


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
