"""PAMR against a hand-worked row, a pixel-by-pixel reference, and what must hold of it."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wsfcn.weak import PAMR

AROUND = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def pixel_by_pixel(image, masks, iterations, dilations):
    """The definition, one pixel at a time, from stacked samples; image already at mask size."""
    height, width = masks.shape[1:]

    def at(x, row, column):
        return x[:, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]

    for _ in range(iterations):
        refined = np.empty_like(masks)
        for r in range(height):
            for c in range(width):
                places = [(r + d * y, c + d * x) for d in dilations for y, x in AROUND]
                near = np.stack([at(image, *p) for p in places], 1)
                here = image[:, r, c, None]
                samples = np.concatenate([near, np.repeat(here, len(dilations), 1)], 1)
                sigma = samples.std(1, ddof=1, keepdims=True)
                score = np.exp((-np.abs(near - here) / (1e-8 + 0.1 * sigma)).mean(0))
                values = np.stack([at(masks, *p) for p in places], 1)
                refined[:, r, c] = (values * score).sum(1) / score.sum()
        masks = refined
    return masks


def example(batch=2, channels=3, height=9, width=7, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64)
    masks = torch.rand(batch, channels, height, width, generator=generator, dtype=torch.float64)
    # A smooth picture: with white noise every neighbour but a few has no weight.
    image = torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    return image.to(dtype), masks.to(dtype)


def test_a_row_of_three_pixels_by_hand():
    # Grey row 0 0 1, replicated above and below; dilation 1. The middle pixel has 9 samples,
    # six 0 and three 1: variance (6/9 + 3 * 4/9) / 8 = 1/4, so the unlike neighbours weigh
    # e = exp(-1 / (1e-8 + 0.05)) each. It sees 3 left (0), 3 right (1) and itself twice (0).
    # The left pixel sees itself 5 times and the equal middle 3 times. The right one sees the
    # middle 3 times (unlike), itself 5 times; its samples, three 0 and six 1, vary by 1/4 too.
    row = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    image = row.expand(1, 3, 1, 3)
    masks = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64).view(1, 1, 1, 3)
    e = math.exp(-1 / (1e-8 + 0.05))
    expected = [5 / 8, (3 * 1 + 3 * 0.5 * e) / (5 + 3 * e), 5 * 0.5 / (5 + 3 * e)]
    refined = PAMR(iterations=1, dilations=(1,))(image, masks)
    assert refined.flatten().tolist() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(
    ("height", "width", "iterations", "dilations"),
    [
        (9, 7, 3, (1, 2, 4)),
        (5, 11, 2, (1, 2, 4, 8, 12, 24)),
        (1, 6, 2, (1, 3)),
        (4, 1, 2, (2,)),
        (1, 1, 2, (1, 2)),
    ],
)
def test_equals_the_definition_pixel_by_pixel(height, width, iterations, dilations):
    image, masks = example(height=height, width=width)
    refined = PAMR(iterations, dilations)(image, masks)
    for b in range(len(image)):
        expected = pixel_by_pixel(image[b].numpy(), masks[b].numpy(), iterations, dilations)
        np.testing.assert_allclose(refined[b].numpy(), expected, rtol=0, atol=1e-10)


def test_an_image_of_another_size_is_resized_to_the_masks_corner_to_corner():
    ramp = torch.linspace(0, 1, 9, dtype=torch.float64)
    large = (ramp[:, None] + ramp).expand(1, 3, 9, 9)
    small = large[..., ::2, ::2]  # with corners aligned, 9 -> 5 hits every second pixel
    masks = example(1, 2, 5, 5)[1]
    pamr = PAMR(4, (1, 2))
    torch.testing.assert_close(pamr(large, masks), pamr(small, masks), rtol=0, atol=1e-12)


def test_affinities_follow_the_offsets():
    image = torch.zeros(1, 3, 5, 5, dtype=torch.float64)
    image[..., 2, 4] = 1  # what differs lies two columns to the right of the centre
    pamr = PAMR(dilations=(1, 2))
    assert pamr.offsets[:3] == ((-1, -1), (-1, 0), (-1, 1))
    assert pamr.offsets[8:] == tuple((2 * y, 2 * x) for y, x in AROUND)
    weights = pamr.affinities(image)
    assert weights.shape == (1, 16, 5, 5)
    torch.testing.assert_close(weights.sum(1), torch.ones(1, 5, 5, dtype=torch.float64))
    unlike = pamr.offsets.index((0, 2))
    assert weights[0, :, 2, 2].argmin() == unlike
    others = [n for n in range(16) if n != unlike]
    torch.testing.assert_close(
        weights[0, others, 2, 2], torch.full_like(weights[0, 1:, 2, 2], 1 / 15)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_flat_image_weighs_all_neighbours_alike(dtype):
    weights = PAMR().affinities(torch.full((1, 3, 6, 5), 0.3, dtype=dtype))
    torch.testing.assert_close(weights, torch.full((1, 48, 6, 5), 1 / 48))


def test_brightness_and_contrast_do_not_matter():
    image, masks = example()
    gain = torch.tensor([0.5, 2.0, 0.1], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(
        PAMR(3)(image, masks), PAMR(3)(gain * image + 0.2, masks), rtol=0, atol=1e-5
    )


def test_refined_masks_are_averages():
    image, masks = example(channels=4)
    refined = PAMR()(image, masks)
    assert (refined.amax((2, 3)) <= masks.amax((2, 3)) + 1e-12).all()
    assert (refined.amin((2, 3)) >= masks.amin((2, 3)) - 1e-12).all()
    constant = torch.full_like(masks, 0.3)
    torch.testing.assert_close(PAMR()(image, constant), constant)
    shares = masks.softmax(1)
    total = PAMR()(image, shares).sum(1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_channels_are_refined_apart_and_linearly():
    image, masks = example(channels=4)
    pamr = PAMR(4)
    refined = pamr(image, masks)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(pamr(image, masks[:, order]), refined[:, order])
    torch.testing.assert_close(pamr(image, masks[:, 1:2]), refined[:, 1:2])
    mixed = 2 * masks[:, :1] - 3 * masks[:, 1:2]
    torch.testing.assert_close(pamr(image, mixed), 2 * refined[:, :1] - 3 * refined[:, 1:2])


def test_images_of_a_batch_do_not_meet():
    image, masks = example(batch=3, dtype=torch.float32)
    together = PAMR(5)(image, masks)
    for b in range(3):
        alone = PAMR(5)(image[b : b + 1], masks[b : b + 1])
        torch.testing.assert_close(together[b : b + 1], alone, rtol=0, atol=1e-6)


def test_masks_stop_at_an_edge_of_the_image():
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 1
    masks = torch.zeros(1, 1, 8, 8)
    masks[..., 2:4, 2:4] = 1  # a seed inside the dark half
    refined = PAMR(10, (1, 2))(image, masks)[0, 0]
    assert refined[:, :4].min() > 0.01
    assert refined[:, 4:].max() < 1e-6


def test_steps_show_every_iteration():
    image, masks = example()
    pamr = PAMR(4, (1, 2))
    steps = list(pamr.steps(image, masks))
    assert len(steps) == 5
    assert torch.equal(steps[0], masks)
    for count, step in enumerate(steps):
        torch.testing.assert_close(step, PAMR(count, (1, 2))(image, masks), rtol=0, atol=0)


def test_inputs_are_left_alone_and_nothing_can_be_learned():
    image, masks = example()
    image.requires_grad_(), masks.requires_grad_()
    before = image.detach().clone(), masks.detach().clone()
    pamr = PAMR(2)
    assert not pamr(image, masks).requires_grad
    assert not any(step.requires_grad for step in pamr.steps(image, masks))
    assert torch.equal(image, before[0]) and torch.equal(masks, before[1])
    assert not pamr.state_dict() and not list(pamr.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_works_and_is_close(dtype):
    image, masks = example(dtype=torch.float32)
    image[:, :, :4] = 0.3  # flat parts, where half precision would divide zero by zero
    image, masks = image.to(dtype), masks.to(dtype)
    refined = PAMR()(image, masks)
    assert refined.dtype == dtype
    exact = PAMR()(image.double(), masks.double())
    torch.testing.assert_close(refined.double(), exact, rtol=0, atol=2 * torch.finfo(dtype).eps)


def test_autocast_does_not_lower_the_precision():
    image, masks = example(dtype=torch.float32)
    plain = PAMR(3)(image, masks)
    with torch.autocast("cpu", torch.bfloat16):
        cast = PAMR(3)(image, masks)
    torch.testing.assert_close(plain, cast, rtol=0, atol=1e-6)


def test_memory_layout_does_not_matter():
    image, masks = example(dtype=torch.float32)
    channels_last = (x.contiguous(memory_format=torch.channels_last) for x in (image, masks))
    torch.testing.assert_close(PAMR(3)(*channels_last), PAMR(3)(image, masks))


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest tensor that is made or looked at."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.layout == torch.strided:
            self.elements = max(self.elements, result.numel())
        return result


def test_neighbours_are_never_stacked():
    image, masks = example(batch=2, channels=8, height=96, width=96, dtype=torch.float32)
    affinities = 48 * 96 * 96
    with LargestTensor() as largest:
        PAMR(2)(image, masks)
    # One image's weights, or the colours around a part of its pixels; stacked masks are 16 times.
    assert affinities <= largest.elements <= 1.5 * affinities


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 5, 9), (5, 3, 33, 31), (2, 21, 70, 64)])
def test_the_sparse_product_is_the_sum_of_shifted_masks(monkeypatch, shape, dtype):
    batch, channels, height, width = shape
    image, masks = example(batch, channels, height, width, dtype)
    fast = PAMR(3)(image, masks)
    tile_by_tile = PAMR().affinities(image)
    monkeypatch.setattr(PAMR, "_multiplies", lambda self, x: False)
    monkeypatch.setattr("wsfcn.weak.pamr.TILE", 10**9)
    close = {"rtol": 0, "atol": 1e-6 if dtype == torch.float32 else 1e-14}
    torch.testing.assert_close(fast, PAMR(3)(image, masks), **close)
    torch.testing.assert_close(tile_by_tile, PAMR().affinities(image), **close)


@pytest.mark.parametrize(
    ("image", "masks", "message"),
    [
        (torch.rand(3, 8, 8), torch.rand(1, 2, 4, 4), r"image must be \(B, 3, H, W\)"),
        (torch.rand(1, 1, 8, 8), torch.rand(1, 2, 4, 4), r"image must be \(B, 3, H, W\)"),
        (torch.rand(1, 3, 8, 8), torch.rand(2, 4, 4), r"masks must be \(B, C, h, w\)"),
        (torch.rand(2, 3, 8, 8), torch.rand(1, 2, 4, 4), "2 images but masks for 1"),
        (torch.ones(1, 3, 8, 8).byte(), torch.rand(1, 2, 4, 4), "image .* got torch.uint8"),
        (torch.rand(1, 3, 8, 8), torch.ones(1, 2, 4, 4).long(), "masks .* got torch.int64"),
    ],
)
def test_wrong_input_is_named_at_once(image, masks, message):
    with pytest.raises(ValueError, match=message):
        PAMR()(image, masks)
    with pytest.raises(ValueError, match=message):
        PAMR().steps(image, masks)  # already before the first step is asked for


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": -1}, "iterations must be >= 0, got -1"),
        ({"dilations": ()}, "dilations must be"),
        ({"dilations": (1, 0)}, r"got \(1, 0\)"),
        ({"dilations": (1.5,)}, "integers"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        PAMR(**settings)
