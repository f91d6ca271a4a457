from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from wsfcn.data.sample import IGNORE, VOC_CLASSES, Sample
from wsfcn.show import cams


@pytest.fixture
def sample():
    """An 8 x 8 scene with a cat in the middle, a border that is ignored, and a dog's corner."""
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 2:6] = 8
    mask[2, 2:6] = IGNORE
    mask[0, 0] = 12
    labels = np.zeros(20, np.float32)
    labels[[7, 11]] = 1
    return Sample("one", np.full((8, 8, 3), 128, np.uint8), labels, mask)


def rendered(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_names():
    assert cams.imagenet_name(285) == "Egyptian cat"
    assert cams.imagenet_name(7) == "ImageNet class 7"


def test_the_most_probable_classes_come_first():
    probabilities = np.zeros(1000, np.float32)
    probabilities[[281, 285, 999]] = 0.3, 0.6, 0.001
    photos = {"pet": np.zeros((6, 9, 3), np.uint8)}
    figure = cams.top_classes(photos, {"pet": probabilities}, count=3)
    names = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert names == ["Egyptian cat", "tabby", "ImageNet class 999"]
    assert "pet: Egyptian cat 60 %, then tabby 30 %" in figure.alt
    assert "< 1 %" in [text.get_text() for text in figure.axes[1].texts]
    rendered(figure)


def test_heat_is_bright_where_the_map_is_high():
    heat = np.zeros((2, 2), np.float32)
    heat[:, 1] = 1
    photos = {"pet": np.full((20, 20, 3), 90, np.uint8)}
    figure = cams.heat_grid(photos, {"stride 8": {"pet": heat}}, {"pet": "a cat"})
    picture = rendered(figure).astype(float)
    axis = figure.axes[1]
    assert axis.get_title() == "stride 8: 2 by 2 cells"
    box = axis.get_position()
    row = picture[int(len(picture) * (1 - (box.y0 + box.y1) / 2))].sum(-1)
    left, right = (int(len(row) * x) for x in (box.x0, box.x1))
    third = (right - left) // 4
    assert row[right - third : right].mean() > 1.5 * row[left : left + third].mean()
    assert "pet" in figure.alt


def test_every_verdict_has_its_colour(sample):
    found = sample.mask.copy()
    found[found == IGNORE] = 8
    found[5] = 0  # a missed row of the cat
    found[7] = 8  # a claimed row of the background
    found[0, 0] = 8  # a cat instead of the dog
    judged = cams._judged(sample, found)
    middle = judged[24::48, 24::48].astype(int)
    expected = dict(zip(cams.VERDICTS, ((3, 3), (5, 3), (7, 0), (0, 0)), strict=True))
    for verdict, place in expected.items():
        colour = np.array(list(bytes.fromhex(cams.VERDICTS[verdict][1:])))
        other = [c for v, c in cams.VERDICTS.items() if v != verdict]
        own = abs(middle[place] - colour).sum()
        assert all(
            own < abs(middle[place] - np.array(list(bytes.fromhex(c[1:])))).sum() for c in other
        ), verdict
    for place in ((2, 3), (1, 1)):  # ignored, and background that stayed background
        assert np.ptp(middle[place]) == 0


def test_grids_have_a_row_for_each_scene_and_say_what_they_show(sample):
    heat = [np.eye(8, dtype=np.float32)] * 2
    judged = cams.verdict_grid([sample] * 2, heat, {"threshold 0.3": [sample.mask] * 2})
    assert sum(bool(axis.images) for axis in judged.axes) == 6
    assert "threshold 0.3" in judged.alt
    rendered(judged)
    empty = np.zeros((8, 8), np.uint8)
    scores = {"CAM": [0.25, 0.5], "WS-FCN": [0.75, 1.0]}
    masks = {"CAM": [empty] * 2, "WS-FCN": [sample.mask] * 2}
    compared = cams.mask_grid([sample] * 2, masks, scores, VOC_CLASSES)
    assert "cat and dog: CAM 25 %, WS-FCN 75 %" in compared.alt
    assert compared.axes[1].get_title() == "IoU 25 %"
    assert [text.get_text() for text in compared.axes[2].texts][:2] == ["cat", "dog"]
    rendered(compared)


def test_curves_mark_the_best():
    figure = cams.threshold_curves(
        (0.2, 0.4, 0.6), (0.9, 0.6, 0.2), (0.7, 0.3, 0.1), {"given": (0.1, 0.4, 0.2)}, 0.4, 0.88
    )
    assert "mIoU is highest, 40.0 %, at 0.4" in figure.alt
    assert "from 90 to 20 %" in figure.alt
    marks = [line.get_xydata().tolist() for line in figure.axes[1].lines]
    assert [[0.4, 40.0]] in marks
    rendered(figure)
