"""A folder of photos with labels.csv: free classes, splits, optional masks, what can be wrong."""

from __future__ import annotations

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from wsfcn.data import Folder, build, scored
from wsfcn.data.folder import split_of
from wsfcn.data.sample import DataError
from wsfcn.recipes import lite_folder


def fails(action, *words):
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and all(str(word) in message for word in words), message


def test_classes_are_free_and_sorted(folder):
    data = Folder(folder, "all")
    assert data.classes == ("ant", "zebra") and len(data) == 10
    assert data.names[0] == "photo 0" and data[0].labels.tolist() == [1, 1]
    assert data[1].labels.tolist() == [0, 1] and data[1].mask is None
    assert len(data.masked()) == len(scored(data)) == 0


def test_every_photo_is_in_one_split_which_later_photos_do_not_change(folder, make):
    train, val = Folder(folder), Folder(folder, "val")
    assert sorted(train.names + val.names) == [f"photo {n}" for n in range(10)]
    assert train.classes == val.classes
    assert all(split_of(f"{name}.jpg") == "val" for name in val.names)
    make.photo(folder / "a new one.jpg")
    text = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(f"{text}a new one.jpg,ant\n")
    assert set(train.names) <= set(Folder(folder).names)
    assert set(val.names) <= set(Folder(folder, "val").names)
    share = np.mean([split_of(f"{n}.jpg") == "val" for n in range(4000)])
    assert 0.17 < share < 0.23


def test_a_third_column_tells_the_splits(folder, make):
    rows = [f"photo {n}.jpg,ant,{'train' if n else 'test'}" for n in range(3)]
    make.lines(folder / "labels.csv", "file,class,split", *rows)
    assert Folder(folder).names == ["photo 1", "photo 2"]
    assert Folder(folder, "test").names == ["photo 0"] and len(Folder(folder, "all")) == 3
    fails(lambda: Folder(folder, "val"), "labels.csv", "none of 3 photos", "'val'", "test, train")


def test_masks_are_taken_where_they_are(folder, make):
    make.mask(folder / "masks/photo 3.png", 2)
    make.mask(folder / "masks/photo 4.png", 1, 2)
    data = Folder(folder, "all", classes=("zebra",))
    assert (data[3].mask == 1).sum() == 60 and data[2].mask is None
    assert (data[4].mask[1:, :4] == 255).all() and data[4].labels.tolist() == [1]
    part = scored(data)
    assert part.names == ["photo 3", "photo 4"] and part[1].id == "photo 4"
    of_masks = Folder(folder, "all", labels="masks")
    assert of_masks[3].labels.tolist() == [0, 1]
    fails(lambda: of_masks[2], "photo 2.jpg", "no mask")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("size", ["16 x 16 px", "24 x 16"]),
        ("rgb", ["RGB", "8-bit PNG"]),
        ("label", ["holds class 37", "0..2"]),
        ("torn", ["photo 0.png"]),
    ],
)
def test_a_broken_mask_is_named(folder, make, kind, words):
    path = folder / "masks/photo 0.png"
    make.mask(path, 37 if kind == "label" else 1, size=(16, 16) if kind == "size" else (24, 16))
    if kind == "rgb":
        Image.new("RGB", (24, 16)).save(path)
    if kind == "torn":
        path.write_bytes(path.read_bytes()[:50])
    fails(lambda: Folder(folder, "all")[0], path, *words)


def test_classes_txt_gives_the_order(folder, make):
    make.lines(folder / "classes.txt", "background", "zebra", "ant", "bee")
    data = Folder(folder, "all")
    assert data.classes == ("zebra", "ant", "bee") and data[1].labels.tolist() == [1, 0, 0]
    make.lines(folder / "classes.txt", "zebra", "amt")
    fails(lambda: Folder(folder, "all"), "line 2", "unknown class 'ant'", "did you mean 'amt'")


def test_subfolders_accents_and_turned_photos(folder, make):
    turned = Image.Exif()
    turned[0x0112] = 6
    path = folder / "images/été/Käfer 東京.jpg"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (24, 16)).save(path, exif=turned)
    composed, apart = (unicodedata.normalize(form, "Ö.jpg") for form in ("NFC", "NFD"))
    make.photo(folder / apart)
    make.lines(folder / "labels.csv", "été/Käfer 東京.jpg,Käfer", f"{composed},x")
    data = Folder(folder, "all")
    assert data.names[0] == "été/Käfer 東京" and data[0].image.shape == (24, 16, 3)
    assert data[1].image.shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("photo 1.jpg,ant\nphoto 11.jpg,ant", ["line 2", "no image photo 11.jpg"]),
        ("../photos/photo 1.jpg,ant", ["line 1", "inside the folder"]),
        ("photo 1.jpg,ant\nphoto 1.jpg,zebra", ["line 2", "already"]),
        ("photo 1.jpg,", ["line 1", "no class"]),
        ("photo 1.jpg,ant,train", ["line 1", "3 column(s)"]),
        ("file,class,split\nphoto 1.jpg,ant", ["line 2", "2 column(s)", "split"]),
        ("file,class,split\nphoto 1.jpg,ant,train\nphoto 2.jpg,ant,", ["line 3", "no split"]),
        ("", ["holds no labels"]),
    ],
)
def test_mistakes_in_the_file_are_named_by_line(folder, text, words):
    (folder / "labels.csv").write_text(text)
    fails(lambda: Folder(folder, "all"), folder / "labels.csv", *words)


def test_broken_folders_are_named(folder, make, tmp_path):
    fails(lambda: Folder(tmp_path / "no"), "no: no such folder")
    (tmp_path / "none").mkdir()
    fails(lambda: Folder(tmp_path / "none"), "none", "no image")
    (folder / "labels.csv").unlink()
    fails(lambda: Folder(folder), "labels.csv: missing", "10 photos")
    make.lines(folder / "labels.csv", "photo 1.jpg,ant")
    other = "train" if split_of("photo 1.jpg") == "val" else "val"
    words = ["none of 1 photos is in split", other, "third column"]
    fails(lambda: Folder(folder, other), *words)
    (folder / "photo 1.jpg").write_bytes(b"")
    fails(lambda: Folder(folder, "all")[0], "photo 1.jpg: the file is empty")
    make.photo(folder / "photo 1.png")
    make.lines(folder / "labels.csv", "photo 1.jpg,ant", "photo 1.png,ant")
    fails(lambda: Folder(folder, "all"), "labels.csv", "photo 1 twice")
    make.lines(folder / "labels.csv", "photo 2.jpg,ant")
    fails(lambda: Folder(folder, "all", labels="xml")[0], "data.labels", "XML")


def test_the_fingerprint_follows_labels_and_photos(folder):
    first = Folder(folder).fingerprint()
    table, photo = folder / "labels.csv", Folder(folder).image_path(0)
    os.utime(table, (1, 1))  # a copy has other times
    os.utime(photo, (1, 1))
    assert Folder(folder).fingerprint() == first
    table.write_text(table.read_text() + "\n")
    second = Folder(folder).fingerprint()
    pixels = bytearray(photo.read_bytes())
    pixels[-20] ^= 1
    photo.write_bytes(pixels)
    assert len({first, second, Folder(folder).fingerprint()}) == 3


def test_recipes_build_it(folder):
    train, val = build(lite_folder().change({"data.root": str(folder)}).data)
    assert len(train) + len(val) == 10 and train.classes == val.classes == ("ant", "zebra")
