"""VOC 2012 and SBD in the published layout; what is wrong with a tree is told by file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsfcn.data import Mislabelled, Voc, build
from wsfcn.data.sample import VOC_CLASSES, DataError
from wsfcn.data.transforms import augment, pixels_needed, rng, to_tensor
from wsfcn.features import Views
from wsfcn.recipes import Augment, Data, paper_voc

from .conftest import lines
from .conftest import mask as write_mask

PHOTOS = Path(__file__).parents[3] / "shared/data/voc_animals"
HOME = "voc/VOCdevkit/VOC2012"
SBD = "sbd/benchmark_RELEASE/dataset"


def classes(sample, data=VOC_CLASSES):
    return [name for name, there in zip(data, sample.labels, strict=True) if there]


def fails(action, *words):
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and all(str(word) in message for word in words), message


@pytest.mark.parametrize("above", ["", "voc", "voc/VOCdevkit", HOME])
def test_train_and_val_from_the_data_root_or_any_folder_on_the_way(voc, make, above):
    train, val = Voc(voc / above), Voc(voc / above, "val")
    assert (train.names, val.names) == (
        ["2007_000032", "2007_000039"],
        ["2007_000033", "2008_000003"],
    )
    sample = train[0]
    assert sample.id == "2007_000032" and sample.image.shape == (16, 24, 3)
    assert np.abs(sample.image[5, 5].astype(int) - (200, 30, 60)).max() < 8
    assert sample.labels.dtype == np.float32 and classes(sample) == ["aeroplane", "person"]
    assert np.array_equal(sample.mask, make.columns(1, 15)) and sample.mask.dtype == np.uint8
    assert classes(val[1]) == classes(val[-1]) == ["dog"]
    with pytest.raises(IndexError):
        val[2]


def test_train_aug_takes_sbd_where_it_has_the_photo_and_leaves_val_out(voc, make):
    data = Voc(voc, "train_aug")
    assert data.names == ["2007_000032", "2007_000039", "2008_000008"]
    assert np.array_equal(data[0].mask, make.columns(4))
    assert data.image_path(0).is_relative_to(voc / SBD)
    assert [classes(data[i]) for i in range(3)] == [["boat"], ["tvmonitor"], ["horse", "person"]]
    assert not set(data.names) & set(Voc(voc, "val").names)
    assert Voc(voc / HOME, "train_aug").names == data.names


def test_train_aug_from_converted_masks(voc, make):
    shutil.rmtree(voc / SBD / "cls")
    for name, value in (("2007_000032", 4), ("2008_000008", 13), ("2008_000003", 12)):
        make.mask(voc / SBD / "cls_png" / f"{name}.png", value)
    expected = ["2007_000032", "2007_000039", "2008_000008"]
    assert Voc(voc, "train_aug").names == expected
    for name in ("train.txt", "val.txt"):
        (voc / SBD / name).unlink()
    assert Voc(voc, "train_aug").names == expected
    assert classes(Voc(voc, "train_aug")[2]) == ["horse"]


def test_train_aug_from_segmentation_class_aug(voc, make):
    shutil.rmtree(voc / "sbd")
    fails(lambda: Voc(voc, "train_aug"), SBD, "SegmentationClassAug", voc)
    home = voc / HOME
    for name in ("2007_000032", "2007_000039", "2007_000033", "2008_000008"):
        make.mask(home / f"SegmentationClassAug/{name}.png", 3)
    make.photo(home / "JPEGImages/2008_000008.jpg")
    data = Voc(voc, "train_aug")
    assert data.names == ["2007_000032", "2007_000039", "2008_000008"]
    assert {c for i in range(3) for c in classes(data[i])} == {"bird"}
    make.lines(home / "ImageSets/Segmentation/trainaug.txt", "2008_000008", "2007_000032")
    assert Voc(voc, "train_aug").names == ["2008_000008", "2007_000032"]


def test_published_lists_with_two_columns(voc, make):
    pairs = [
        f"/{SBD}/img/2008_000008.jpg /{SBD}/cls_png/2008_000008.png",
        f"{HOME}/JPEGImages/2007_000039.jpg {HOME}/SegmentationClass/2007_000039.png",
    ]
    make.lines(voc / "train_augvoc.txt", *pairs)
    make.lines(voc / "lists/mine.txt", *pairs[1:])
    for data in (Voc(voc, "train_aug"), Voc(voc / HOME, "train_aug")):
        assert data.names == ["2008_000008", "2007_000039"]  # as listed; .mat where no PNG is
        assert [classes(data[i]) for i in (0, 1)] == [["horse", "person"], ["tvmonitor"]]
    assert classes(Voc(voc, "lists/mine.txt")[0]) == ["tvmonitor"]
    make.lines(voc / "train_augvoc.txt", pairs[0] + " more")
    fails(lambda: Voc(voc, "train_aug"), "train_augvoc.txt line 1", "image mask")
    make.lines(voc / "train_augvoc.txt", "nowhere/a.jpg nowhere/a.png")
    fails(lambda: Voc(voc, "train_aug"), "train_augvoc.txt line 1", "nowhere/a.jpg")


def test_photos_of_the_test_have_neither_mask_nor_labels(voc, make):
    make.lines(voc / "test.txt", "/voc_test/VOCdevkit/VOC2012/JPEGImages/2008_000006.jpg")
    for _ in range(2):
        sample = Voc(voc, "test")[0]
        assert sample.id == "2008_000006" and sample.mask is None and not sample.labels.any()
        assert len(Voc(voc, "test").masked()) == 0
        (voc / "test.txt").unlink(missing_ok=True)
        make.lines(
            voc / "voc_test/VOCdevkit/VOC2012/ImageSets/Segmentation/test.txt", "2008_000006"
        )


def test_a_choice_of_classes_ignores_the_others(voc):
    data = Voc(voc, classes=("person", "cat"))
    assert data.classes == ("person", "cat")
    assert data[0].labels.tolist() == [1, 0] and data[1].labels.tolist() == [0, 0]
    mask = data[0].mask
    assert (mask[1:, :4] == 255).all() and (mask[1:, 4:8] == 1).all() and (mask[1:, 8:] == 0).all()
    other = Voc(voc, classes=("person", "cat"), others="background")[0].mask
    assert (other[1:, :4] == 0).all() and np.array_equal(other[mask < 255], mask[mask < 255])
    assert np.array_equal(np.unique(other), [0, 1, 255])
    fails(lambda: Voc(voc, classes=("dgo",)), "data.classes", "'dgo'", "did you mean 'dog'")
    fails(lambda: Voc(voc, classes=("dog", "dog")), "data.classes", "dog twice")


def test_labels_from_xml_and_csv_need_no_masks(voc, make):
    home = voc / HOME
    shutil.rmtree(home / "SegmentationClass")
    sample = Voc(voc, labels="xml")[0]
    assert classes(sample) == ["dog", "person"] and sample.mask is None
    make.lines(home / "labels.csv", "file,classes", "2007_000032.jpg,cow; cat", "2007_000039,bus")
    data = Voc(voc, labels="csv")
    assert [classes(data[i]) for i in (0, 1)] == [["cat", "cow"], ["bus"]]
    fails(lambda: Voc(voc, "val", labels="csv")[0], "labels.csv", "no line for 2007_000033")
    make.lines(home / "labels.csv", "2007_000032,cwo")
    fails(lambda: Voc(voc, labels="csv"), "labels.csv line 1", "'cwo'", "did you mean 'cow'")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation>", ["is not XML"]),
        ("<annotation></annotation>", ["names no object"]),
        ("<a><object><name>ufo</name></object></a>", ["unknown class 'ufo'"]),
        (None, ["No such file"]),
    ],
)
def test_broken_xml_is_named(voc, make, text, words):
    path = voc / HOME / "Annotations/2007_000032.xml"
    path.unlink() if text is None else make.lines(path, text)
    fails(lambda: Voc(voc, labels="xml")[0], path, *words)


def broken_mask(voc, make, kind):
    path = voc / HOME / "SegmentationClass/2007_000032.png"
    if kind == "missing":
        path.unlink()
    elif kind == "size":
        make.mask(path, 1, size=(16, 16))
    elif kind == "rgb":
        Image.new("RGB", (24, 16)).save(path)
    elif kind == "label":
        make.mask(path, 37)
    elif kind == "empty":
        make.mask(path)
    else:
        path.write_bytes(path.read_bytes()[:80])
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["no such file"]),
        ("size", ["16 x 16 px", "2007_000032.jpg", "24 x 16"]),
        ("rgb", ["RGB", "8-bit PNG"]),
        ("label", ["holds class 37", "0..20"]),
        ("empty", ["no object"]),
        ("torn", ["damaged"]),
    ],
)
def test_a_broken_mask_is_named(voc, make, kind, words):
    path = broken_mask(voc, make, kind)
    data = Voc(voc)
    fails(lambda: data[0], path, *words)
    assert classes(data[1]) == ["tvmonitor"]


def test_broken_mat_files_are_named(voc, make):
    path = voc / SBD / "cls/2007_000032.mat"
    make.sbd_mat(path, 21)
    fails(lambda: Voc(voc, "train_aug")[0], path, "class 21")
    path.write_bytes(b"not matlab")
    fails(lambda: Voc(voc, "train_aug")[0], path, "GTcls.Segmentation")
    path.unlink()
    fails(lambda: Voc(voc, "train_aug")[0], path, "no such file")


def test_broken_trees_are_named(voc, make, tmp_path):
    fails(lambda: Voc(tmp_path / "no"), "no: no such folder")
    fails(lambda: Voc(tmp_path), tmp_path, "no VOC tree", "voc/VOCdevkit/VOC2012")
    fails(lambda: Voc(voc, "tarin"), "no list of split 'tarin'", "train, val")
    lists = voc / HOME / "ImageSets/Segmentation"
    make.lines(lists / "none.txt", "")
    fails(lambda: Voc(voc, "none"), "none.txt: names no photo")
    make.lines(lists / "twice.txt", "2007_000032", "2007_000039", "2007_000032")
    fails(lambda: Voc(voc, "twice"), "twice.txt: names 2007_000032 twice")
    (lists / "latin.txt").write_bytes("größe\n".encode("latin-1"))
    fails(lambda: Voc(voc, "latin"), "latin.txt: is not UTF-8")
    (voc / HOME / "JPEGImages/2007_000039.jpg").write_bytes(b"\xff\xd8\xff")
    fails(lambda: Voc(voc)[1], "2007_000039.jpg")
    (voc / HOME / "JPEGImages/2007_000039.jpg").unlink()
    fails(lambda: Voc(voc)[1], "2007_000039.jpg: no such file")


def test_other_names_endings_and_classes_of_a_voc_like_tree(tmp_path, make):
    name = "Käfer im Gras 東京"
    make.photo(tmp_path / f"JPEGImages/{name}.png")
    make.mask(tmp_path / f"SegmentationClass/{name}.png", 2)
    make.lines(tmp_path / "ImageSets/train.txt", name)
    make.lines(tmp_path / "classes.txt", "background", "Käfer", "Gras")
    data = Voc(tmp_path)
    assert data.classes == ("Käfer", "Gras") and data[0].labels.tolist() == [0, 1]
    make.lines(tmp_path / "classes.txt", "background")
    fails(lambda: Voc(tmp_path), "classes.txt: names no class")


def test_a_photo_keeps_the_orientation_of_its_mask(voc):
    path = voc / HOME / "JPEGImages/2007_000032.jpg"
    picture = Image.open(path)
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(path, exif=turned)
    assert Voc(voc)[0].image.shape == (16, 24, 3)


def test_at_most_so_many_photos_spread_over_the_list(tmp_path, make):
    names = [f"{n:02d}" for n in range(10)]
    make.lines(tmp_path / "ImageSets/all.txt", *names)
    (tmp_path / "JPEGImages").mkdir()
    assert Voc(tmp_path, "all", limit=3).names == ["00", "03", "06"]
    assert Voc(tmp_path, "all", limit=99).names == names


def test_nothing_but_lists_is_read_before_a_photo_is_asked_for(voc):
    shutil.rmtree(voc / HOME / "JPEGImages")
    (voc / HOME / "JPEGImages").mkdir()
    shutil.rmtree(voc / HOME / "SegmentationClass")
    assert len(Voc(voc)) == 2


def test_the_mask_is_read_once_for_the_labels(voc):
    data = Voc(voc)
    before = data.present(0)
    (voc / HOME / "SegmentationClass/2007_000032.png").unlink()
    assert data.present(0) == before == {"aeroplane", "person"}


def test_the_fingerprint_follows_photos_masks_and_lists(voc, make):
    def now(**options):
        return Voc(voc, **options).fingerprint()

    first = now()
    assert now() == first != now(limit=1)
    assert now(split="val") != first
    mask = voc / HOME / "SegmentationClass/2007_000039.png"
    mask.write_bytes(mask.read_bytes() + b"1")
    second = now()
    assert second != first
    make.photo(voc / HOME / "JPEGImages/2007_000039.jpg", colour=(0, 0, 0))
    assert now() not in (first, second)
    of_xml = now(labels="xml")
    mask.write_bytes(mask.read_bytes() + b"2")
    assert now(labels="xml") == of_xml


def test_recipes_build_it(voc):
    train, val = build(paper_voc().change({"data.root": str(voc)}).data)
    assert (len(train), len(val)) == (3, 2) and train.classes == VOC_CLASSES
    with pytest.raises(DataError, match=r"data\.root"):
        build(Data(kind="voc"))


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the folder of real photos is not there")
def test_real_photos():
    import json

    told = json.loads((PHOTOS / "ImageSets/labels.json").read_text())
    for split, count in (("train", 440), ("val", 448), ("train_aug", 1040)):
        data = Voc(PHOTOS, split)
        assert len(data) == count
        for index in range(0, count, 61):
            assert set(classes(data[index])) == set(told[data.names[index]])


def test_photos_that_are_decoded_small_keep_masks_and_labels(tmp_path):
    random, masks = np.random.default_rng(0), tmp_path / "SegmentationClass"
    for number, height in enumerate((300, 301)):
        coarse = Image.fromarray(random.integers(0, 256, (8, 10, 3), np.uint8))
        (tmp_path / "JPEGImages").mkdir(exist_ok=True)
        coarse.resize((400, height), 3).save(tmp_path / "JPEGImages" / f"{number}.jpg", quality=95)
        write_mask(masks / f"{number}.png", 1, 3, size=(400, height))
    lines(tmp_path / "ImageSets" / "Segmentation" / "train.txt", "0", "1")
    data = Voc(tmp_path)
    small = data.reduced(100)
    for whole, part in zip(data, small, strict=True):
        assert whole.image.shape[0] in (300, 301) and part.image.shape[:2] == (
            -(-whole.image.shape[0] // 2),
            200,
        )
        assert (whole.mask == part.mask).all() and (whole.labels == part.labels).all()
    assert data[0].image.shape == (300, 400, 3)  # and the first set stays as it was
    settings = Augment(crop=32)
    assert pixels_needed(settings) <= 100
    noisy = Mislabelled(data, 1.0, 0)
    for clean, wrong in zip(Views(data, settings, 0, 0), Views(noisy, settings, 0, 0), strict=True):
        assert torch.equal(clean[0], wrong[0]) and not (clean[1] * wrong[1]).any()
    for index, (image, _) in enumerate(Views(data, settings, 0, 0)):
        full, _ = augment(data[index].image, settings, rng(0, 0, index))
        difference = (image - to_tensor(full)).abs().mean()
        assert 0 < difference < 2 / 255
    write_mask(masks / "1.png", 1, 3, size=(398, 301))
    with pytest.raises(DataError, match=r"1.png: the mask has 398 x 301 px.*has 400 x 301"):
        small[1]
