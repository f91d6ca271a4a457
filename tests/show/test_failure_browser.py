"""The failure browser without a browser: which cases, in which order, with which pictures."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from wsfcn.data.sample import IGNORE, VOC_CLASSES, Sample
from wsfcn.show.failure_browser import LONGEST, FailureBrowser, Wall
from wsfcn.show.failures import case_rows, error_map
from wsfcn.study.failures import CAUSES, diagnose

CAT, DOG, BIRD = (VOC_CLASSES.index(name) + 1 for name in ("cat", "dog", "bird"))


def case_of(number, truth_label, predicted, side=60, wide=60):
    """A square of a class in the middle, and what was predicted there."""
    truth = np.zeros((side, wide), np.uint8)
    truth[10:40, 10:40] = truth_label
    truth[0, 0] = IGNORE
    prediction = np.where(truth == truth_label, predicted, 0).astype(np.uint8)
    image = np.random.default_rng(number).integers(0, 255, (side, wide, 3), np.uint8)
    labels = np.zeros(20, np.float32)
    sample = Sample(f"scene-{number}", image, labels, truth)
    return diagnose(sample, prediction, VOC_CLASSES, "meadow")


CASES = [
    case_of(0, CAT, CAT),
    case_of(1, CAT, 0),
    case_of(2, DOG, CAT),
    case_of(3, BIRD, 0, wide=300),
    case_of(4, BIRD, DOG),
]


def test_the_wall_is_chosen_from_every_cause_and_sorted():
    wall = Wall.of(CASES, 3)
    assert {c.main for c in wall.cases} >= {"missing class", "false class"}
    assert [c.iou for c in wall.cases] == sorted(c.iou for c in wall.cases)
    assert len(Wall.of(CASES, 99).cases) == len(CASES)


@pytest.mark.parametrize(
    "lists, expected",
    [
        ({}, {0, 1, 2, 3, 4}),
        ({"cause": "missing class"}, {1, 3}),
        ({"cause": "false class"}, {2, 4}),
        ({"name": "dog"}, {2, 4}),  # in the image, or predicted
        ({"cause": "false class", "name": "bird"}, {4}),
        ({"size": "over 12 %"}, {0, 1, 2, 4}),
        ({"size": "3 to 12 %"}, {3}),
        ({"cause": "leaked boundary"}, set()),
    ],
)
def test_lists_choose(lists, expected):
    wall = Wall.of(CASES, 9)
    found = {int(wall.cases[i].sample.id[-1]) for i in wall.choose(**lists)}
    assert found == expected


def test_the_sheets_hold_every_label_exactly():
    wall = Wall.of(CASES * 3, 15)  # two rows of cells
    images, maps = (Image.open(BytesIO(data)) for data in wall.sheets())
    assert images.format == "JPEG" and maps.format == "PNG" and images.size == maps.size
    for place, (case, entry) in enumerate(zip(wall.cases, wall.entries(), strict=True)):
        x, y = place % 8 * LONGEST, place // 8 * LONGEST
        width, height = entry["size"]
        cell = np.asarray(maps.crop((x, y, x + width, y + height)))
        assert max(width, height) <= LONGEST
        if width == case.truth.shape[1]:
            for channel, labels in enumerate((case.prediction, case.truth, case.errors)):
                np.testing.assert_array_equal(cell[..., channel], labels)
        else:
            assert set(np.unique(cell[..., 1])) <= {0, BIRD, IGNORE}


def test_the_state_is_plain_and_names_are_kept_as_they_are():
    odd = (*VOC_CLASSES[:-1], "<b>tv & co</b>")
    sample = CASES[1].sample
    browser = FailureBrowser([diagnose(sample, CASES[1].prediction, odd)])
    assert browser.meta["classes"][-1] == "<b>tv & co</b>"
    assert [cause for cause, *_ in browser.meta["causes"]] == [*CAUSES]
    assert browser.meta["cases"][0]["gains"] == [["missing class", pytest.approx(0.62, abs=0.02)]]
    with pytest.raises(ValueError, match="none to look at"):
        FailureBrowser([])


def test_a_picture_stands_in_and_says_what_it_shows():
    data, metadata = FailureBrowser(CASES)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "5 images" in metadata["image/png"]["alt"]
    figure = case_rows(CASES[1:3])
    assert "scene-1, missing class" in figure.alt and "scene-2, false class" in figure.alt


def test_the_error_map_has_a_colour_for_each_cause():
    missing, false = (error_map(CASES[i])[100, 100].astype(int) for i in (1, 2))
    assert abs(missing - false).max() > 60
    assert np.ptp(error_map(CASES[0])[200, 200]) == 0  # right: grey
