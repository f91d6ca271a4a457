"""What is measured of a network, and that the sums by image add up to it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from wsfcn.data.sample import Sample
from wsfcn.evaluate import evaluate
from wsfcn.protocols import Protocol
from wsfcn.study.ablations import counts_of, mean_iou
from wsfcn.study.measures import PROBLEMS, measure, object_counts, problem_sums, thin_parts


class Stripes:
    """Images of several sizes in red, green and blue with ignored pixels, of the toy's classes."""

    classes, split = ("red", "green", "blue"), "val"

    def __len__(self):
        return 5

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        shape = (40, 48) if index % 2 else (32, 32)
        image = random.integers(0, 255, (*shape, 3), np.uint8)
        image[:16] = np.eye(3, dtype=np.uint8)[index % 3] * 250
        mask = random.choice(np.array([0, 1, 2, 3, 255], np.uint8), shape)
        mask[:16] = index % 3 + 1
        return Sample(f"{9 - index}", image, np.eye(3, dtype=np.float32)[index % 3], mask)


def test_a_measurement_is_the_score_and_its_counts_add_up_to_it(toy_network):
    network, data, protocol = toy_network(), Stripes(), Protocol()
    run = measure(network, data, protocol)
    score = evaluate(network, data, protocol, progress=False)
    wanted = (score.mean_iou, score.pixel_accuracy, score.boundary_iou, *score.size_iou.values())
    names = ("mIoU", "PixAcc", "boundary IoU", *score.size_iou)
    for name, value in zip(names, wanted, strict=True):
        assert run[name] is None if np.isnan(value) else abs(run[name] - 100 * value) < 1e-3
    assert run["protocol"] == score.protocol.describe()
    assert [*run["counts"]] == sorted(run["counts"]) and len(run["counts"]) == len(data)
    assert json.loads(json.dumps(run)) == run
    whole = counts_of(run).sum(0)
    assert abs(float(mean_iou(whole)) - 100 * score.mean_iou) < 1e-6
    matrix = np.array(score.confusion)
    np.testing.assert_array_equal(whole[0], matrix.diagonal())
    np.testing.assert_array_equal(whole[1], matrix.sum(0) + matrix.sum(1) - matrix.diagonal())
    assert len(measure(network, data, protocol, limit=2)["counts"]) == 2


def test_the_problems_are_those_of_their_definitions(toy_network):
    network, data = toy_network(), Stripes()
    run = measure(network, data, Protocol())
    for name in PROBLEMS:
        assert float(mean_iou(counts_of(run, name).sum(0))) == pytest.approx(run[name], abs=1e-3)
    assert [*run["problems"]] == [*run["counts"]]


def test_an_object_is_missed_where_its_class_was_found():
    exact = np.zeros((30, 30), np.uint8)
    exact[:10, :20], exact[20:, :20] = 1, 2
    exact[10, :] = 255
    found = np.zeros_like(exact)
    found[:10, :5], found[15, :] = 1, 3
    claimed, ground, missed, classes, *_ = problem_sums(found, exact, 3)
    assert (claimed, ground) == (30, (exact == 0).sum())
    assert (missed, classes) == (
        0.75,
        1,
    )  # class 2 was not found at all, so its shape is not judged
    assert object_counts(found, exact, 3)[:2].tolist() == [[50, 0, 0], [200, 200, 0]]


def test_thin_parts_are_what_a_disc_of_7_px_cannot_reach():
    thing = np.zeros((40, 40), bool)
    thing[10:30, 5:25] = True
    thing[18:22, 25:38] = True  # a handle of 4 px
    thin = thin_parts(thing)
    assert thin[18:22, 28:38].all() and not thin[14:26, 10:20].any()
    exact = thing.astype(np.uint8)
    found = exact.copy()
    found[:, 25:] = 0
    *_, right, total = problem_sums(found, exact, 1)
    assert total == thin.sum() and right == thin[:, :25].sum()


def test_the_data_are_known_by_their_pixels(toy_network):
    class Other(Stripes):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            mask = sample.mask.copy()
            mask[-1, -1] = 255 - mask[-1, -1] if index == 3 and mask[-1, -1] in (0, 255) else 255
            return sample._replace(mask=mask) if index == 3 else sample

    first, again, other = (
        measure(toy_network(), d, Protocol()) for d in (Stripes(), Stripes(), Other())
    )
    assert first["data"] == again["data"] != other["data"]
    assert first["data"].startswith("5 images, ")
