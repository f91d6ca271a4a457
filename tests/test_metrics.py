"""Boundary IoU and IoU by size of objects, against plain implementations and hand-made cases."""

import numpy as np
import pytest
from scipy import ndimage

from wsfcn.metrics import SIZES, Tally


def maps(seed: int, n: int = 4, shape=(60, 80), ignore: bool = True):
    """A blocky truth and a prediction that is shifted and has a region of its own."""
    rng = np.random.default_rng(seed)
    target = np.kron(rng.integers(0, n, (6, 8)), np.ones((10, 10))).astype(np.uint8)
    prediction = np.roll(target, (3, -2), (0, 1))
    prediction[20:25, 30:60] = rng.integers(n)
    if ignore:
        target[:, 40:43] = 255
    return prediction[: shape[0], : shape[1]], target[: shape[0], : shape[1]]


def plain_boundary(prediction, target, n):
    """One class after the other, by erosion: (hits, union) of the bands."""
    width = max(1, round(0.02 * np.hypot(*target.shape)))
    prediction = np.where(target == 255, 255, prediction)
    square = np.ones((3, 3))
    result = []
    for c in range(n):
        bands = [
            (m == c) & ~ndimage.binary_erosion(m == c, square, width, border_value=0)
            for m in (prediction, target)
        ]
        result.append([(bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()])
    return np.array(result)


@pytest.mark.parametrize("shape", [(60, 80), (37, 80), (9, 11)])
def test_boundaries_equal_erosion_class_by_class(shape):
    tally, expected = Tally(4), np.zeros((4, 2), int)
    for seed in range(4):
        pair = maps(seed, shape=shape)
        tally.update(*pair)
        expected += plain_boundary(*pair, 4)
    np.testing.assert_array_equal(tally.boundaries[0], expected[:, 0])
    np.testing.assert_array_equal(tally.boundaries.sum(0), expected[:, 1])
    kept = expected[:, 1] > 0
    assert tally.boundary_iou == pytest.approx((expected[kept, 0] / expected[kept, 1]).mean())


def test_an_outline_that_is_off_costs_boundary_iou_more_than_iou():
    target = np.zeros((200, 200), np.uint8)
    target[40:160, 40:160] = 1
    prediction = np.roll(target, 4, 1)
    tally = Tally(2)
    tally.update(prediction, target)
    assert tally.boundary_iou < tally.confusion.mean_iou - 0.1
    exact = Tally(2)
    target[38:42, 40:160] = 255
    exact.update(np.where(target == 255, 1, target), target)
    assert exact.boundary_iou == 1 and exact.size_iou["large"] == 1


def plain_sizes(prediction, target, n):
    """As the words of `Tally` say it, object by object."""
    prediction = np.where(target == 255, 255, prediction)
    eight = np.ones((3, 3))
    limits = [32**2 / (640 * 480) * target.size, 96**2 / (640 * 480) * target.size]
    counts = np.zeros((3, 3, n), int)

    def size(area):
        return 0 if area < limits[0] else 1 if area < limits[1] else 2

    for c in range(1, n):
        objects, count = ndimage.label(target == c, eight)
        for i in range(1, count + 1):
            mask = objects == i
            counts[size(mask.sum()), 0, c] += (mask & (prediction == c)).sum()
            counts[size(mask.sum()), 2, c] += (mask & (prediction != c)).sum()
        guesses, guessed = ndimage.label(prediction == c, eight)
        for i in range(1, guessed + 1):
            mask = guesses == i
            met = {int(o): (objects == o).sum() for o in np.unique(objects[mask]) if o}
            bucket = size(max(met.values()) if met else mask.sum())
            counts[bucket, 1, c] += (mask & (target != c)).sum()
    return counts


def test_sizes_equal_the_definition_and_add_up_to_the_whole():
    rng = np.random.default_rng(5)
    tally, expected = Tally(4), np.zeros((3, 3, 4), int)
    for seed in range(4):
        prediction, target = maps(seed)
        for _ in range(12):  # specks, so that every size occurs
            y, x, h = rng.integers(0, 55), rng.integers(0, 75), rng.integers(1, 4)
            target[y : y + h, x : x + h] = rng.integers(4)
            prediction[y : y + h, x + 1 : x + h] = rng.integers(4)
        tally.update(prediction, target)
        expected += plain_sizes(prediction, target, 4)
    assert (expected.sum((1, 2)) > 0).all()
    np.testing.assert_array_equal(tally.sizes, expected)
    matrix = tally.confusion.matrix
    hits, false, missed = tally.sizes.sum(0)[:, 1:]
    np.testing.assert_array_equal(hits, matrix.diagonal()[1:])
    np.testing.assert_array_equal(false, (matrix.sum(0) - matrix.diagonal())[1:])
    np.testing.assert_array_equal(missed, (matrix.sum(1) - matrix.diagonal())[1:])


def test_missing_small_objects_shows_in_their_row_alone():
    target = np.zeros((100, 100), np.uint8)
    target[10:60, 10:60] = 1  # 25 % of the image
    target[80:84, 80:84] = 1  # 0.16 %
    tally = Tally(3)
    tally.update(np.where(np.arange(100) < 70, target, 0), target)
    rates = tally.size_iou
    assert [*rates] == [*SIZES] and rates["small"] == 0 and rates["large"] == 1
    assert np.isnan(rates["medium"])
    assert tally.confusion.iou()[1] > 0.99


def test_wrong_labels_count_nothing():
    tally = Tally(3)
    with pytest.raises(ValueError, match="label 7"):
        tally.update(np.full((4, 4), 7), np.zeros((4, 4), int))
    assert not tally.boundaries.any() and not tally.sizes.any()
    tally.update(np.zeros((4, 4), int), np.full((4, 4), 255))
    assert np.isnan(tally.boundary_iou) and not tally.sizes.any()
