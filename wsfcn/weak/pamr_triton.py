"""PAMR on a GPU in two kernels: affinities, and a step of the masks.

Each reads what it needs once from memory: the colours, or the affinities and the masks, whose 48
neighbours come from the cache. float32. Triton comes with the CUDA builds of torch.
"""

# mypy: disallow_untyped_defs=False, disallow_incomplete_defs=False
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 128  # of a program, at most
CHANNELS, SUMS = 32, 2048  # at most in a program: its sums stay in registers


def affinities(
    image: Tensor, offsets: Tensor, samples: int, tiny: float, softness: float
) -> Tensor:
    """As `PAMR.affinities`. image: (B, 3, H, W) float32; offsets: (N, 2) int32 -> (B, N, H, W)."""
    image = image.contiguous()
    batch, _, height, width = image.shape
    weights = image.new_empty(batch, len(offsets), height, width)
    grid = (triton.cdiv(height * width, PIXELS), batch)
    _weigh[grid](
        image, offsets, weights, height, width, samples, tiny, softness, len(offsets), PIXELS
    )
    return weights


def step(weights: Tensor, masks: Tensor, offsets: Tensor) -> Tensor:
    """The masks (B, C, H, W) float32, averaged with the weights (B, N, H, W) of `affinities`."""
    weights, masks = weights.contiguous(), masks.contiguous()
    batch, channels, height, width = masks.shape
    refined = torch.empty_like(masks)
    together = min(CHANNELS, triton.next_power_of_2(channels))
    pixels = min(PIXELS, SUMS // together)
    grid = (triton.cdiv(height * width, pixels), triton.cdiv(channels, together), batch)
    _average[grid](
        weights, masks, refined, offsets, channels, height, width, len(offsets), together, pixels
    )
    return refined


@triton.jit
def _neighbour(offsets, n, y, x, height, width):
    """Numbers of the n-th neighbours, or of the nearest pixels inside the image."""
    row = tl.minimum(tl.maximum(y + tl.load(offsets + 2 * n), 0), height - 1)
    column = tl.minimum(tl.maximum(x + tl.load(offsets + 2 * n + 1), 0), width - 1)
    return row * width + column


@triton.jit
def _weigh(
    image,
    offsets,
    weights,
    height,
    width,
    samples,
    tiny,
    softness,
    NEIGHBOURS: tl.constexpr,  # noqa: N803
    PIXELS: tl.constexpr,  # noqa: N803
):
    size = height * width
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    y, x = pixel // width, pixel % width
    colour = tl.arange(0, 4)[:, None]
    inside = (pixel < size)[None] & (colour < 3)
    image += tl.program_id(1).to(tl.int64) * 3 * size + colour * size
    weights += tl.program_id(1).to(tl.int64) * NEIGHBOURS * size + pixel
    centre = tl.load(image + pixel[None], mask=inside, other=0.0)
    total = tl.zeros((4, PIXELS), tl.float32)
    squares = tl.zeros((4, PIXELS), tl.float32)
    for n in range(NEIGHBOURS):
        place = _neighbour(offsets, n, y, x, height, width)[None]
        difference = tl.load(image + place, mask=inside, other=0.0) - centre
        total += difference
        squares += difference * difference
    variance = tl.maximum(squares - total * total / samples, 0.0) / (samples - 1)
    scale = -1 / (3 * (tiny + softness * tl.sqrt(variance)))
    # Some neighbour's mean |difference| is at most 3.2 sigma: no exponential needs a shift.
    mass = tl.zeros((PIXELS,), tl.float32)
    for n in range(NEIGHBOURS):
        place = _neighbour(offsets, n, y, x, height, width)[None]
        difference = tl.load(image + place, mask=inside, other=0.0) - centre
        mass += tl.exp(tl.sum(tl.abs(difference) * scale, 0))
    for n in range(NEIGHBOURS):
        place = _neighbour(offsets, n, y, x, height, width)[None]
        difference = tl.load(image + place, mask=inside, other=0.0) - centre
        weight = tl.exp(tl.sum(tl.abs(difference) * scale, 0)) / mass
        tl.store(weights + n * size, weight, mask=pixel < size)


@triton.jit
def _average(
    weights,
    masks,
    refined,
    offsets,
    channels,
    height,
    width,
    NEIGHBOURS: tl.constexpr,  # noqa: N803
    CHANNELS: tl.constexpr,  # noqa: N803
    PIXELS: tl.constexpr,  # noqa: N803
):
    size = height * width
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    y, x = pixel // width, pixel % width
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    inside = (pixel < size)[None] & (channel < channels)
    image = tl.program_id(2).to(tl.int64)
    weights += image * NEIGHBOURS * size + pixel
    first = (image * channels + channel) * size
    total = tl.zeros((CHANNELS, PIXELS), tl.float32)
    for n in range(NEIGHBOURS):
        place = _neighbour(offsets, n, y, x, height, width)[None]
        weight = tl.load(weights + n * size, mask=pixel < size, other=0.0)[None]
        total += weight * tl.load(masks + first + place, mask=inside, other=0.0)
    tl.store(refined + first + pixel[None], total, mask=inside)
