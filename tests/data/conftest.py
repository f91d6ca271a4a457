"""Trees of tiny photos in the layouts that VOC 2012, SBD and COCO 2014 are published in."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

WIDE, HIGH = 24, 16


def photo(path, size=(WIDE, HIGH), colour=(200, 30, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def mask(path, *classes, size=(WIDE, HIGH)):
    """Columns of classes from the left, background right of them, a border of 255 on top."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = columns(*classes, size=size)
    picture = Image.fromarray(labels)
    picture.putpalette([value for index in range(256) for value in (index, 0, 255 - index)])
    picture.save(path)


def columns(*classes, size=(WIDE, HIGH)):
    labels = np.zeros(size[::-1], np.uint8)
    for place, value in enumerate(classes):
        labels[:, 4 * place : 4 * place + 4] = value
    labels[0] = 255
    return labels


def lines(path, *texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


def sbd_mat(path, *classes):
    """As SBD publishes them: a struct GTcls with Boundaries, Segmentation, CategoriesPresent."""
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {
        "Boundaries": np.zeros((20, 1), object),
        "Segmentation": columns(*classes),
        "CategoriesPresent": np.array([[c] for c in classes], np.uint8),
    }
    savemat(path, {"GTcls": fields}, do_compression=True)


@pytest.fixture
def voc(tmp_path):
    """The published data root: VOC 2012 and SBD, which share 2007_000032 and 2008_000003.

    VOC train 032 (aeroplane, person), 039 (tvmonitor); val 033 (cat), 2008_000003 (dog); SBD
    train 032 (boat!), 2008_000008 (horse, person), val 2008_000003.
    """
    root = tmp_path / "data"
    home = root / "voc/VOCdevkit/VOC2012"
    sbd = root / "sbd/benchmark_RELEASE/dataset"
    known = {
        "2007_000032": (1, 15),
        "2007_000039": (20,),
        "2007_000033": (8,),
        "2008_000003": (12,),
    }
    for name, classes in known.items():
        photo(home / f"JPEGImages/{name}.jpg")
        mask(home / f"SegmentationClass/{name}.png", *classes)
        objects = "".join(f"<object><name>{n}</name></object>" for n in ("person", "dog"))
        text = f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>"
        lines(home / f"Annotations/{name}.xml", text)
    lines(home / "ImageSets/Segmentation/train.txt", "2007_000032", "2007_000039")
    lines(home / "ImageSets/Segmentation/val.txt", "2007_000033", "2008_000003")
    for name, classes in {
        "2007_000032": (4,),
        "2008_000008": (13, 15),
        "2008_000003": (12,),
    }.items():
        photo(sbd / f"img/{name}.jpg", colour=(0, 0, 255))
        sbd_mat(sbd / f"cls/{name}.mat", *classes)
    lines(sbd / "train.txt", "2007_000032", "2008_000008")
    lines(sbd / "val.txt", "2008_000003")
    photo(root / "voc_test/VOCdevkit/VOC2012/JPEGImages/2008_000006.jpg")
    return root


def box(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


@pytest.fixture
def coco(tmp_path):
    """COCO 2014 with three photos a split, the last one without objects.

    The first has a dog (id 18) of 12 x 12 px, a frisbee (34) on it, and a crowd of people (1) in
    the upper 4 rows; the second a toothbrush (90) in two parts.
    """
    root = tmp_path / "coco"
    names = dict(zip(OFFICIAL_IDS, coco_classes(), strict=True))
    categories = [{"id": i, "name": n, "supercategory": "x"} for i, n in names.items()]
    crowd = {"counts": [0, *[4, HIGH - 4] * WIDE], "size": [HIGH, WIDE]}
    for split, first in (("train", 9), ("val", 42)):
        ids = [first, first + 16, first + 21]
        files = [f"COCO_{split}2014_{i:012d}.jpg" for i in ids]
        for file in files:
            photo(root / f"images/{split}2014" / file)
        things = [
            (ids[0], 34, box(6, 6, 10, 10), 0),
            (ids[0], 18, box(2, 2, 14, 14), 0),
            (ids[0], 1, crowd, 1),
            (ids[1], 90, box(0, 0, 4, 4) + box(8, 8, 12, 12), 0),
        ]
        keys = ("image_id", "category_id", "segmentation", "iscrowd")
        found = {
            "images": [
                {"id": i, "file_name": f, "height": HIGH, "width": WIDE}
                for i, f in zip(ids, files, strict=True)
            ],
            "annotations": [dict(zip(keys, t, strict=True), id=n) for n, t in enumerate(things)],
            "categories": categories[::-1],
        }
        path = root / f"annotations/instances_{split}2014.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found))
    return root


OFFICIAL_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def coco_classes():
    from wsfcn.data.sample import COCO_CLASSES

    return COCO_CLASSES


@pytest.fixture
def make():
    """The functions that write single files: make.photo, make.mask, make.lines, make.columns."""
    import types

    return types.SimpleNamespace(
        photo=photo, mask=mask, lines=lines, columns=columns, sbd_mat=sbd_mat
    )


@pytest.fixture
def folder(tmp_path, make):
    """Ten photos of two classes of your own with labels.csv, no masks."""
    home = tmp_path / "photos"
    rows = []
    for number in range(10):
        name = f"photo {number}.jpg"
        make.photo(home / name, colour=(25 * number, 80, 40))
        rows.append(f"{name},{'zebra' if number % 2 else 'ant; zebra'}")
    make.lines(home / "labels.csv", "file,classes", *rows)
    return home
