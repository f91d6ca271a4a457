import time

import numpy as np
import pytest
import torch

from wsfcn.data.transforms import _crop, augment, pixels_needed, rng, to_tensor
from wsfcn.recipes import Augment

STILL = {"flip": 0, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}


def picture(height=96, width=128, seed=0):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    return image, random.integers(0, 21, (height, width), np.uint8)


def test_same_key_same_result_whatever_came_before():
    image, mask = picture()
    first = augment(image, Augment(), rng(1, 2, 3), mask)
    augment(image, Augment(), rng(1, 2, 4), mask)
    again = augment(image, Augment(), rng(1, 2, 3), mask)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("key", [(0, 2, 3), (1, 0, 3), (1, 2, 0)])
def test_every_part_of_the_key_counts(key):
    image, _ = picture()
    first, _ = augment(image, Augment(), rng(1, 2, 3))
    other, _ = augment(image, Augment(), rng(*key))
    assert not np.array_equal(first, other)


def test_the_image_is_the_same_with_and_without_its_mask():
    image, mask = picture()
    alone, none = augment(image, Augment(), rng(0, 0, 0))
    paired, _ = augment(image, Augment(), rng(0, 0, 0), mask)
    assert none is None and np.array_equal(alone, paired)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (300, 40), (20, 500), (1, 1), (128, 128)])
def test_any_shape_becomes_a_square_crop(height, width):
    image, mask = picture(height, width)
    before = image.copy(), mask.copy()
    for index in range(5):
        out, labels = augment(image, Augment(crop=64), rng(0, 0, index), mask)
        assert out.shape == (64, 64, 3) and out.dtype == np.uint8
        assert labels.shape == (64, 64) and set(np.unique(labels)) <= set(np.unique(mask))
    assert np.array_equal(image, before[0]) and np.array_equal(mask, before[1])


def test_nothing_to_do_changes_nothing():
    image, mask = picture(128, 128)
    settings = Augment(crop=128, area=(1, 1), aspect=(1, 1), **STILL)
    out, labels = augment(image, settings, rng(0, 0, 0), mask)
    assert np.array_equal(out, image) and np.array_equal(labels, mask)


def test_flip_turns_image_and_mask():
    image, mask = picture(128, 128)
    settings = Augment(crop=128, area=(1, 1), aspect=(1, 1), **{**STILL, "flip": 1})
    out, labels = augment(image, settings, rng(0, 0, 0), mask)
    assert np.array_equal(out, image[:, ::-1]) and np.array_equal(labels, mask[:, ::-1])


def test_mask_follows_the_image():
    mask = np.zeros((90, 110), np.uint8)
    mask[20:60, 30:90] = 7
    image = np.repeat(((mask > 0) * 255).astype(np.uint8)[..., None], 3, axis=2)
    settings = Augment(crop=96, area=(0.3, 0.9), **{**STILL, "flip": 0.5})
    for index in range(20):
        out, labels = augment(image, settings, rng(0, 0, index), mask)
        differ = (out[..., 0] > 127) != (labels == 7)
        assert differ.mean() < 0.02  # only along the resampled border


def test_a_whole_mask_follows_an_image_that_was_decoded_small():
    image, mask = np.zeros((48, 64, 3), np.uint8), np.zeros((96, 128), np.uint8)
    image[10:30, 20:44], mask[20:60, 40:88] = 255, 1
    for index in range(5):
        settings = Augment(**STILL, area=(0.5, 1), crop=64)
        found, labels = augment(image, settings, rng(0, 0, index), mask)
        assert 0.05 < labels.mean() < 0.95
        assert ((found[..., 0] > 127) == labels).mean() > 0.97


def test_pixels_needed_leave_every_crop_twice_its_size():
    settings = Augment(crop=100, area=(0.7, 1.0))
    needed = pixels_needed(settings)
    for shape in ((needed, needed), (needed, 2 * needed), (3 * needed, needed)):
        boxes = [_crop(*shape, settings, rng(0, 0, index)) for index in range(200)]
        sides = [min(right - left, low - top) for left, top, right, low in boxes]
        assert min(sides) >= 199  # whole pixels
    assert pixels_needed(Augment(area=(0, 1))) == 0


def test_crops_cover_the_area_and_aspects_asked_for():
    from wsfcn.data.transforms import _crop

    settings = Augment(area=(0.5, 0.6), aspect=(0.75, 4 / 3))
    areas, aspects = [], []
    for index in range(500):
        left, top, right, bottom = _crop(400, 400, settings, rng(0, 0, index))
        assert 0 <= left < right <= 400 and 0 <= top < bottom <= 400
        areas.append((right - left) * (bottom - top) / 160_000)
        aspects.append((right - left) / (bottom - top))
    assert min(areas) > 0.49 and max(areas) < 0.61
    assert min(aspects) > 0.74 and max(aspects) < 1.345
    assert abs(np.mean(np.log(aspects))) < 0.03  # log-uniform: as often wide as tall


def test_colours_change_by_no_more_than_asked():
    image = np.full((128, 128, 3), (120, 90, 60), np.uint8)
    settings = Augment(area=(1, 1), **{**STILL, "brightness": 0.3})
    means = [augment(image, settings, rng(0, 0, i))[0].mean() for i in range(100)]
    assert 0.69 * 90 < min(means) < 0.8 * 90 and 1.2 * 90 < max(means) < 1.31 * 90
    turned = [
        augment(image, Augment(area=(1, 1), **{**STILL, "hue": 0.1}), rng(0, 0, i))[0][0, 0]
        for i in range(100)
    ]
    assert len({tuple(colour) for colour in turned}) > 20
    assert all(int(colour.max()) == 120 and abs(int(colour.min()) - 60) < 3 for colour in turned)


def test_augmentation_is_fast():
    image, mask = picture(128, 128)
    augment(image, Augment(), rng(0, 0, 0), mask)
    start = time.process_time()
    for index in range(100):
        augment(image, Augment(), rng(0, 0, index), mask)
    assert (time.process_time() - start) / 100 < 0.01  # 2 ms on an idle machine


def test_to_tensor():
    image, _ = picture()
    tensor = to_tensor(image)
    assert tensor.shape == (3, 96, 128) and tensor.dtype == torch.float32
    assert tensor.min() >= 0 and tensor.max() <= 1
    assert torch.equal((tensor * 255).round().byte(), torch.from_numpy(image.transpose(2, 0, 1)))
    tensor.zero_()
    assert image.any()  # the tensor does not share memory with the image
