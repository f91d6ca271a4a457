"""COCO 2014 in the published layout: masks drawn from annotations or read, and what can break."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from wsfcn.data import Coco, build
from wsfcn.data.coco import Entry, Thing, draw_mask
from wsfcn.data.sample import COCO_CLASSES, DataError
from wsfcn.recipes import paper_coco

DOG, FRISBEE, PERSON, BRUSH = 17, 30, 1, 80
IDS = ["000000000009", "000000000025"]


def classes(sample):
    return {name for name, there in zip(COCO_CLASSES, sample.labels, strict=True) if there}


def fails(action, *words):
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and all(str(word) in message for word in words), message


def edited(coco, change):
    path = coco / "annotations/instances_train2014.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    return path


def test_masks_are_drawn_from_the_annotations(coco):
    data = Coco(coco)
    assert data.names == IDS and data.classes == COCO_CLASSES and len(COCO_CLASSES) == 80
    assert COCO_CLASSES[DOG - 1] == "dog" and COCO_CLASSES[-1] == "toothbrush"
    first, second = data[0], data[1]
    expected = np.zeros((16, 24), np.uint8)
    expected[:4] = PERSON  # the crowd lies under all others
    expected[2:14, 2:14] = DOG
    expected[6:10, 6:10] = FRISBEE  # the small one lies on top although it is listed first
    assert np.array_equal(first.mask, expected)
    assert classes(first) == {"person", "dog", "frisbee"}
    assert (second.mask == BRUSH).sum() == 32 and classes(second) == {"toothbrush"}


def test_photos_without_objects_are_left_out_and_val_is_another_set(coco):
    assert Coco(coco, "val").names == ["000000000042", "000000000058"]
    assert len(Coco(coco, "val").masked()) == 2


def test_polygons_and_codes_fill_the_same_pixels_as_counted_by_hand():
    runs = {"counts": [2, 3, 11], "size": [4, 4]}  # down the columns: rows 2..3 of 0, row 0 of 1
    expected = np.zeros((4, 4), np.uint8)
    expected[2:, 0] = expected[0, 1] = 5
    assert np.array_equal(draw_mask(Entry("a", 4, 4, [Thing(5, runs, True)])), expected)
    from pycocotools import mask as code

    packed = code.encode(np.asfortranarray(expected > 0))
    text = {"counts": packed["counts"].decode(), "size": [4, 4]}
    assert np.array_equal(draw_mask(Entry("a", 4, 4, [Thing(5, text, False)])), expected)


def test_a_triangle_covers_the_pixels_whose_centres_it_holds():
    from matplotlib.path import Path as Outline

    corners = [3.0, 2.0, 37.0, 9.0, 12.0, 28.0]
    mask = draw_mask(Entry("a", 32, 40, [Thing(1, [np.array(corners)], False)]))
    rows, columns = np.mgrid[:32, :40] + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], -1)
    inside = Outline(np.reshape(corners, (3, 2))).contains_points(centres).reshape(32, 40)
    shared = (inside & (mask > 0)).sum() / (inside | (mask > 0)).sum()
    assert shared > 0.93  # COCO draws outlines on a grid five times as fine


def test_published_masks_and_lists_are_used_where_they_are(coco, make):
    for name in IDS:
        make.mask(coco / f"coco_seg_anno/{name}.png", 3, 80)
    data = Coco(coco)
    assert np.array_equal(data[0].mask, make.columns(3, 80))
    assert classes(data[0]) == {"car", "toothbrush"}
    make.lines(coco / "train14_new.txt", *IDS[::-1])
    shutil.rmtree(coco / "annotations")
    data = Coco(coco)
    assert data.names == IDS[::-1]
    assert data.image_path(1).name == "COCO_train2014_000000000009.jpg"
    assert classes(data[1]) == {"car", "toothbrush"}
    mask = coco / f"coco_seg_anno/{IDS[0]}.png"
    make.mask(mask, 81)
    fails(lambda: Coco(coco)[1], mask, "class 81", "0..80")
    mask.unlink()
    fails(lambda: Coco(coco)[1], mask, "no such file")
    fails(lambda: Coco(coco, "val"), "instances_val2014.json", "No such file")


def test_a_list_alone_chooses_and_orders(coco, make):
    make.lines(coco / "train14_new.txt", IDS[1])
    assert Coco(coco).names == IDS[1:]
    make.lines(coco / "train14_new.txt", "000000000030")
    fails(lambda: Coco(coco), "train14_new.txt", "000000000030", "no object")


def test_the_official_archives_side_by_side_and_another_year(coco, tmp_path):
    for split in ("train", "val"):
        (coco / f"images/{split}2014").rename(coco / f"{split}2014")
    (coco / "images").rmdir()
    assert Coco(coco)[0].image.shape == (16, 24, 3)
    assert Coco(coco.parent).names == IDS
    (coco / "train2014").rename(coco / "train2017")
    text = (coco / "annotations/instances_train2014.json").read_text()
    (coco / "annotations/instances_train2017.json").write_text(text.replace("COCO_train2014_", ""))
    for path in (coco / "train2017").iterdir():
        path.rename(path.with_name(path.name[-16:]))
    data = Coco(coco, "train2017")
    assert data.image_path(0).name == "000000000009.jpg" and classes(data[1]) == {"toothbrush"}


def test_a_choice_of_classes_and_labels_from_csv(coco, make):
    data = Coco(coco, classes=("frisbee", "person"))
    assert data[0].labels.tolist() == [1, 1] and data[1].labels.tolist() == [0, 0]
    assert set(np.unique(data[0].mask)) == {0, 1, 2, 255}
    make.lines(coco / "labels.csv", "COCO_train2014_000000000009.jpg,hot dog; tv")
    data = Coco(coco, labels="csv")
    assert classes(data[0]) == {"hot dog", "tv"}
    fails(lambda: data[1], "labels.csv", "000000000025")
    fails(lambda: Coco(coco, labels="xml")[0], "data.labels", "XML")


def test_broken_trees_are_named(coco, tmp_path):
    fails(lambda: Coco(tmp_path / "annotations"), "no such folder")
    fails(lambda: Coco(coco / "annotations"), "no COCO tree", "images/train2014")
    path = coco / "annotations/instances_train2014.json"
    photo = Coco(coco).image_path(0)
    photo.unlink()
    fails(lambda: Coco(coco)[0], photo, "no such file")
    good = path.read_text()
    for text in (
        good[:100],
        "[]",
        '{"images": []}',
        good.replace('"image_id": 9', '"image_id": 8'),
    ):
        path.write_text(text)
        fails(lambda: Coco(coco), path, "no instances as COCO writes them")


@pytest.mark.parametrize("outline", [[[1, 2]], {"counts": "!!", "size": [3]}, [], 5])
def test_a_broken_outline_is_named(coco, outline):
    path = edited(coco, lambda found: found["annotations"][0].update(segmentation=outline))
    fails(lambda: Coco(coco)[0], path, "000000000009", "drawn")


def test_annotations_of_another_size_and_of_nothing_are_named(coco):
    path = edited(coco, lambda found: found["images"][1].update(width=30))
    fails(lambda: Coco(coco)[1], path, "30 x 16 px", "24 x 16", "COCO_train2014_000000000025.jpg")
    edited(coco, lambda found: found.update(annotations=[]))
    fails(lambda: Coco(coco), path, "names no photo")


def test_without_pycocotools_masks_say_what_is_missing(coco, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match=r"pip install 'wsfcn\[coco\]'"):
        Coco(coco)[0]


def test_the_fingerprint_follows_the_annotations(coco, make):
    first = Coco(coco).fingerprint()
    edited(coco, lambda found: found["annotations"][0].update(area=17))
    assert Coco(coco).fingerprint() != first == first
    make.lines(coco / "train14_new.txt", *IDS)
    second = Coco(coco).fingerprint()
    edited(coco, lambda found: found["annotations"][0].update(area=1234))
    assert Coco(coco).fingerprint() != second


def test_recipes_build_it(coco):
    train, val = build(paper_coco().change({"data.root": str(coco), "data.val": 1}).data)
    assert (len(train), len(val)) == (2, 1)
