"""What a check finds in trees with one fault each, in trees with many, and in real photos."""

from __future__ import annotations

import re
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsfcn.cli import main
from wsfcn.data.check import check
from wsfcn.data.duplicates import dhash, near_pairs
from wsfcn.data.sample import DataError
from wsfcn.study import findings

REAL = Path(__file__).parents[3] / "shared" / "data"
CLASSES = {"a": (1,), "b": (8, 15), "c": (20,), "d": (12,), "e": (12, 15), "f": (3,)}


def texture(seed, size=(60, 45)):
    """A photo like no other: smooth random colours."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def tree(tmp_path, make):
    """VOC, photos a b c in train and d e f in val, nothing wrong. Returns its folder."""
    home = tmp_path / "VOCdevkit" / "VOC2012"
    (home / "JPEGImages").mkdir(parents=True)
    for number, (name, classes) in enumerate(CLASSES.items()):
        texture(number).save(home / f"JPEGImages/{name}.jpg", quality=90)
        make.mask(home / f"SegmentationClass/{name}.png", *classes, size=(60, 45))
    make.lines(home / "ImageSets/Segmentation/train.txt", "a", "b", "c")
    make.lines(home / "ImageSets/Segmentation/val.txt", "d", "e", "f")
    return home


def found(root, **options):
    return [(p.kind, p.where, p.message) for p in check(root, **options).problems]


def one(root, kind, where, *words):
    """The only problem is that one, and its message has the words."""
    [(what, place, message)] = found(root)
    assert (what, place) == (kind, where)
    assert "\n" not in message and all(word in message for word in words), message


def test_a_clean_tree(tree, capsys):
    report = check(tree.parents[1])
    assert report.clean and report.kind == "voc" and len(report.classes) == 20
    assert report.splits == (("train", 3, 3), ("val", 3, 3))
    assert main(["data", "check", str(tree)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"train +3 +3\n.*val +3 +3\n", out) and out.endswith("clean\n")


def test_a_truncated_photo(tree):
    path = tree / "JPEGImages/b.jpg"
    path.write_bytes(path.read_bytes()[:600])
    one(tree, "photo not readable", "train", str(path), "truncated")


def test_a_missing_photo_and_a_missing_mask(tree):
    (tree / "JPEGImages/d.jpg").unlink()
    (tree / "SegmentationClass/e.png").unlink()
    assert [(kind, where) for kind, where, _ in found(tree)] == [
        ("photo not readable", "val"),
        ("mask missing", "val"),
    ]


def test_a_mask_of_another_size(tree, make):
    make.mask(tree / "SegmentationClass/a.png", 1, size=(59, 45))
    one(tree, "size of mask and photo", "train", "a.png", "59 x 45 px", "60 x 45")


def test_label_37_of_20_classes(tree, make):
    make.mask(tree / "SegmentationClass/a.png", 1, 37, size=(60, 45))
    one(tree, "label out of range", "train", "a.png", "class 37", "0..20 and 255")


def test_a_mask_in_colours(tree):
    path = tree / "SegmentationClass/a.png"
    Image.open(path).convert("RGB").save(path)
    one(tree, "mask not readable", "train", str(path), "RGB", "palette")


def test_a_mask_without_an_object(tree, make):
    make.mask(tree / "SegmentationClass/f.png", size=(60, 45))
    one(tree, "mask without object", "val", "f.png")


def test_an_empty_split(tree):
    (tree / "ImageSets/Segmentation/val.txt").write_text("\n")
    one(tree, "split not readable", "val", "val.txt", "names no photo")


def test_a_name_that_comes_twice_is_told_and_the_rest_is_checked(tree, make):
    make.lines(tree / "ImageSets/Segmentation/val.txt", "d", "e", "d", "f", "e")
    (tree / "JPEGImages/f.jpg").unlink()
    assert [(kind, message.split("/")[-1]) for kind, _, message in found(tree)] == [
        ("named twice", "val.txt: names d twice"),
        ("named twice", "val.txt: names e twice"),
        ("photo not readable", "f.jpg: no such file"),
    ]
    assert check(tree).splits[1] == ("val", 3, 3)


def test_a_photo_in_two_lines_of_labels_csv(folder, make):
    for number in range(4):
        texture(number).save(folder / f"photo {number}.jpg")
    (folder / "images").mkdir()
    texture(4).save(folder / "images/a.jpg")
    rows = ["photo 0.jpg,ant,train", "photo 1.jpg,ant,val", "photo 0.jpg,ant,val"]
    make.lines(folder / "labels.csv", "file,class,split", *rows, "gone.jpg,ant,val")
    kinds = [(p.kind, p.where, p.message.split("/")[-1]) for p in check(folder).problems]
    assert kinds == [
        ("named twice", "train", "labels.csv line 4: photo 0.jpg already has labels further up"),
        ("photo not readable", "val", "gone.jpg: no such file"),
    ]
    rows = ["a.jpg,ant,train", "photo 1.jpg,ant,val", "images/a.jpg,ant,val"]
    make.lines(folder / "labels.csv", "file,class,split", *rows)
    one(folder, "in two splits", "train, val", "images/a")


def test_a_wrong_distance_is_refused_first(tmp_path):
    with pytest.raises(ValueError, match="near: must be between 0 and 31, not 40"):
        check(tmp_path / "none", near=40)


def test_all_faults_are_listed_not_the_first(tree):
    for name in "abc":
        (tree / f"JPEGImages/{name}.jpg").write_bytes(b"")
    for name in "def":
        (tree / f"SegmentationClass/{name}.png").write_bytes(b"no mask")
    problems = found(tree)
    assert [kind for kind, _, _ in problems] == ["photo not readable"] * 3 + [
        "mask not readable"
    ] * 3


def test_a_photo_in_two_splits(tree, make):
    make.lines(tree / "ImageSets/Segmentation/val.txt", "d", "b", "f")
    one(tree, "in two splits", "train, val", "b")


def test_train_aug_that_holds_a_photo_of_val(tree, make):
    make.lines(tree / "ImageSets/Segmentation/trainaug.txt", "a", "b", "c", "e")
    one(tree, "in two splits", "train_aug, val", "e")


def test_trainval_may_hold_val(tree, make):
    make.lines(tree / "ImageSets/Segmentation/trainval.txt", *CLASSES)
    assert check(tree).clean


def test_the_same_file_under_two_names(tree):
    shutil.copyfile(tree / "JPEGImages/a.jpg", tree / "JPEGImages/e.jpg")
    one(tree, "duplicate", "train / val", "a and e", "same file")


def test_a_copy_within_a_split_is_a_note(tree):
    shutil.copyfile(tree / "JPEGImages/a.jpg", tree / "JPEGImages/b.jpg")
    report = check(tree)
    assert report.clean and "1 photos are copies" in report.notes[0]


def test_a_smaller_copy_of_lower_quality(tree, make):
    texture(1, (48, 36)).save(tree / "JPEGImages/d.jpg", quality=60)
    make.mask(tree / "SegmentationClass/d.png", 12, size=(48, 36))
    one(tree, "near-duplicate", "train / val", "b and d", "of 64 bits")


def test_xml_annotations_are_held_against_masks(tree, make):
    for name in "ab":
        make.lines(
            tree / f"Annotations/{name}.xml",
            "<annotation><object><name>aeroplane</name></object></annotation>",
        )
    one(tree, "labels against mask", "train", "cat, person only in the mask")
    assert "aeroplane only in Annotations" in found(tree)[0][2]


def test_a_label_file_that_cannot_be_read_is_a_problem_and_the_rest_is_checked(tree, make):
    make.lines(tree / "labels.csv", "file,class", "a.jpg")
    (tree / "JPEGImages/b.jpg").unlink()
    kinds = [(kind, where) for kind, where, _ in found(tree)]
    assert kinds == [
        ("labels not readable", "train"),
        ("labels not readable", "val"),
        ("photo not readable", "train"),
    ]


def test_without_masks_the_xml_files_are_what_is_checked(tree, make):
    shutil.rmtree(tree / "SegmentationClass")
    text = "<annotation><object><name>{}</name></object></annotation>"
    for name in CLASSES:
        make.lines(tree / f"Annotations/{name}.xml", text.format("dog"))
    assert check(tree).splits == (("train", 3, 0), ("val", 3, 0)) and check(tree).clean
    make.lines(tree / "Annotations/a.xml", text.format("unicorn"))
    (tree / "Annotations/b.xml").unlink()
    assert [kind for kind, _, _ in found(tree)] == ["labels not readable"] * 2


def test_sbd_is_checked_as_train_aug(voc):
    report = check(voc)
    splits = {name: count for name, count, _ in report.splits}
    assert splits == {"train": 2, "train_aug": 3, "val": 2}
    kinds = {problem.kind for problem in report.problems}
    assert kinds == {"labels against mask", "duplicate"}  # of photos that are plain, all alike


def test_names_that_are_not_ascii(tree, make):
    names = "größe 猫", "<i>&amp;"
    for number, name in enumerate(names):
        texture(20 + number).save(tree / f"JPEGImages/{name}.jpg")
        make.mask(tree / f"SegmentationClass/{name}.png", 1, size=(60, 45))
    make.lines(tree / "ImageSets/Segmentation/train.txt", "a", "b", "c", *names)
    assert check(tree).clean
    (tree / f"JPEGImages/{names[0]}.jpg").unlink()
    one(tree, "photo not readable", "train", names[0])


def test_coco_with_masks_that_are_drawn(coco, make):
    pytest.importorskip("pycocotools")
    for number, path in enumerate(sorted(coco.glob("images/*/*.jpg"))):
        texture(number, (24, 16)).save(path)
    report = check(coco)
    assert report.clean and report.kind == "coco" and len(report.classes) == 80
    assert report.splits == (("train", 2, 2), ("val", 2, 2))
    make.photo(coco / "images/train2014/COCO_train2014_000000000009.jpg", (30, 16))
    one(coco, "size of mask and photo", "train", "24 x 16 px, the photo 30 x 16")


def test_coco_without_pycocotools_says_what_was_not_looked_at(coco, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    report = check(coco)
    assert any("pip install 'wsfcn[coco]'" in note for note in report.notes)


def test_a_folder_lists_every_line_that_is_wrong(folder, make):
    for number in range(10):
        texture(number).save(folder / f"photo {number}.jpg")
    assert check(folder).clean
    make.lines(folder / "classes.txt", "zebra", "ant")
    rows = [f"photo {number}.jpg,zebra" for number in range(9)]
    make.lines(folder / "labels.csv", "file,classes", *rows, "gone.jpg,ant", "photo 9.jpg,zebar")
    texture(30).save(folder / "new.jpg")
    make.mask(folder / "masks/photo 2.png", 2, size=(60, 45))
    report = check(folder)
    assert report.kind == "folder"
    assert sorted((p.kind, p.message.split("/")[-1]) for p in report.problems) == [
        ("labels against mask", "photo 2: ant only in the mask; zebra only in labels.csv"),
        ("photo not readable", "gone.jpg: no such file"),
        ("unknown class", "labels.csv line 12: 'zebar'"),
    ]
    assert report.notes == ("1 photos have no line in labels.csv",)


@pytest.mark.parametrize(
    ("prepare", "word"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: root.mkdir(), "neither as VOC"),
        (lambda root: (root / "JPEGImages").mkdir(parents=True), "no list"),
    ],
)
def test_what_cannot_be_checked(tmp_path, capsys, prepare, word):
    root = tmp_path / "set"
    prepare(root)
    assert main(["data", "check", str(root)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(root) in error and word in error


def test_a_folder_without_photos(tmp_path, make):
    make.lines(tmp_path / "labels.csv", "file,classes")
    with pytest.raises(DataError, match="holds no labels"):
        check(tmp_path)


def test_a_name_that_leaves_the_folder_is_not_followed(folder, make):
    texture(1).save(folder.parent / "outside.jpg")
    make.lines(folder / "labels.csv", "file,classes", "../outside.jpg,ant", "photo 1.jpg,ant")
    problems = found(folder, kind="folder")
    assert "name outside the folder" in {kind for kind, _, _ in problems}
    assert any("outside.jpg: no such file" in message for _, _, message in problems)


# The command line and the page


def test_problems_give_exit_code_1_and_a_page(tree, tmp_path, make, capsys):
    evil = "<script>alert(1)</script>"
    lower = evil.replace("/", "_")
    make.lines(tree / "classes.txt", evil, *(f"class{number}" for number in range(2, 21)))
    make.lines(tree / "labels.csv", "file,class", "b.jpg,class8")
    texture(9).save(tree / f"JPEGImages/{lower}.jpg")
    make.lines(tree / "ImageSets/Segmentation/train.txt", "a", "b", "c", lower)
    shutil.copyfile(tree / "JPEGImages/a.jpg", tree / "JPEGImages/e.jpg")
    (tree / "JPEGImages/f.jpg").write_bytes(b"broken")
    page = tmp_path / "new" / "page.html"
    assert main(["data", "check", str(tree), "--page", str(page)]) == 1
    out = capsys.readouterr().out
    assert "4 problems" in out and f"page: {page}" in out
    html = page.read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "http" not in html.replace("http-equiv", "") and "default-src 'none'" in html
    assert html.count("<img ") == 5  # photo of the missing mask; b with its mask; the two copies
    assert all(text.startswith("data:image/") for text in re.findall(r'src="([^"]+)', html))
    for word in ("mask missing: 1", "labels against mask: 1", "duplicate: 1", "not readable: 1"):
        assert f"<h2>{word}</h2>" in html or f"{word}</h2>" in html


def test_the_page_shows_problems_of_masks_too_large_to_open(tree, tmp_path):
    path = tree / "SegmentationClass/a.png"
    body = bytearray(path.read_bytes())
    body[16:24] = (40_000).to_bytes(4) * 2
    body[29:33] = zlib.crc32(body[12:29]).to_bytes(4)
    path.write_bytes(body)
    report = check(tree)
    assert "too many pixels" in report.problems[0].message
    assert "no picture" in findings.save_page(report, tmp_path / "page.html").read_text()


def test_the_page_shows_a_limited_number(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "MOST", 2)
    for name in "abc":
        (tree / f"SegmentationClass/{name}.png").unlink()
    html = findings.save_page(check(tree), tmp_path / "page.html").read_text()
    assert html.count("<img ") == 2 and "and 1 more" in html


def test_the_table_shows_a_limited_number(tree):
    for name in "abc":
        (tree / f"SegmentationClass/{name}.png").unlink()
    text = check(tree).text(limit=2)
    assert text.count("no such file") == 2 and "... and 1 more" in text and "3 problems" in text


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["chek"], "did you mean 'check'"),
        (["check"], "DIR"),
        (["check", ".", "--kind", "cooc"], "--kind"),
        (["fetch", "voc2007"], "voc2012"),
        (["check", ".", "--page", "."], "is a folder"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, word, capsys):
    assert main(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and word in error


def test_help(capsys):
    assert main(["data"]) == 0
    assert "data fetch voc2012|sbd|coco2014" in capsys.readouterr().out


def test_the_fetch_command_hands_over_folder_and_name(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("wsfcn.data.fetch.fetch", lambda *a, **k: calls.append((a, k["timeout"])))
    assert main(["data", "fetch", "sbd", "--to", str(tmp_path), "--timeout", "5"]) == 0
    assert calls == [(("sbd", tmp_path), 5.0)]


# Near-duplicates


def test_the_hash_says_where_it_grows_darker():
    ramp = np.tile(np.arange(0, 250, 2, dtype=np.uint8), (40, 1))
    grey = np.stack([ramp] * 3, -1)
    assert dhash(grey)[0] == 0
    assert dhash(grey[:, ::-1])[0] == 2**64 - 1
    half = np.concatenate([grey[:20], grey[20:, ::-1]])
    assert dhash(half)[0] == 2**32 - 1


@pytest.mark.parametrize("near", [0, 1, 4, 8])
def test_near_pairs_are_those_of_comparing_all(near):
    generator = np.random.default_rng(near)
    train = generator.integers(0, 2**63, 400, dtype=np.uint64)
    score = train[:200].copy()
    for index in range(200):
        for bit in generator.choice(64, index % 12, replace=False):
            score[index] ^= np.uint64(1 << int(bit))
    distance = np.bitwise_count(train[None] ^ score[:, None])
    wanted = {(int(i), int(j)) for i, j in np.argwhere(distance <= near)}
    got = dict(near_pairs(train, score, near))
    assert {(i, int(j)) for i, js in got.items() for j in js} == wanted
    assert len(wanted) >= 16
    assert all((np.diff(distance[i, js].astype(int)) >= 0).all() for i, js in got.items())


def test_plain_pictures_are_not_near_each_other():
    plain = np.array([0, 1, 2**64 - 1], np.uint64)
    assert list(near_pairs(plain, plain)) == []
    assert list(near_pairs(plain[:0], plain)) == []


def test_ten_thousand_photos_need_seconds():
    import time

    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**63, 10_000, dtype=np.uint64)
    begin = time.process_time()
    assert len(dict(near_pairs(hashes, hashes[:1500]))) == 1500
    assert time.process_time() - begin < 10


# Real photos


@pytest.mark.skipif(not REAL.is_dir(), reason="the real photos are not here")
def test_a_real_tree_is_clean_and_what_is_broken_in_it_is_found(tmp_path, make):
    source = REAL / "voc_animals"
    for split, count in (("train", 12), ("val", 6)):
        names = (source / f"ImageSets/{split}.txt").read_text().split()[:count]
        make.lines(tmp_path / f"ImageSets/{split}.txt", *names)
        for name in names:
            for file in (f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png"):
                (tmp_path / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(source / file, tmp_path / file)
    assert check(tmp_path).clean
    train = (tmp_path / "ImageSets/train.txt").read_text().split()
    with Image.open(tmp_path / f"JPEGImages/{train[0]}.jpg") as image:
        small = image.resize((image.width // 2, image.height // 2))
        x, y = small.width // 60, small.height // 60
        small.crop((x, y, small.width - x, small.height - y)).save(
            tmp_path / f"JPEGImages/{names[0]}.jpg", quality=50
        )
    kinds = {kind: message for kind, _, message in found(tmp_path)}
    assert kinds.keys() == {"size of mask and photo", "near-duplicate"}
    assert f"{train[0]} and {names[0]}" in kinds["near-duplicate"]
