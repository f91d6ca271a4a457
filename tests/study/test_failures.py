"""Causes of failures: drawn masks whose mistakes are known."""

import numpy as np
import pytest

from wsfcn import data, recipes
from wsfcn.data.grounds import FAMILY_OF
from wsfcn.data.sample import IGNORE, VOC_CLASSES, DataError, Sample
from wsfcn.settings import SettingsError
from wsfcn.study.failures import (
    CAUSES,
    Drawn,
    count_causes,
    diagnose,
    mean_iou,
    mine,
    objects,
    photos,
)

CAT, DOG = VOC_CLASSES.index("cat") + 1, VOC_CLASSES.index("dog") + 1
SIDE = 100  # px; an outline counts up to 3 px on either side


def box(top, left, height, width, label=CAT, canvas=None):
    canvas = np.zeros((SIDE, SIDE), np.uint8) if canvas is None else canvas.copy()
    canvas[top : top + height, left : left + width] = label
    return canvas


def case_of(truth, prediction):
    labels = np.isin(np.arange(1, 21), truth).astype(np.float32)
    sample = Sample("one", np.zeros((SIDE, SIDE, 3), np.uint8), labels, truth)
    return diagnose(sample, prediction, VOC_CLASSES)


def pixels(case):
    found = {cause: int(case.of(cause).sum()) for cause in CAUSES}
    return {cause: count for cause, count in found.items() if count}


OBJECT = box(20, 20, 40, 40)
NOTHING = np.zeros_like(OBJECT)


@pytest.mark.parametrize(
    "truth, prediction, expected",
    [
        (OBJECT, OBJECT, {}),
        (OBJECT, NOTHING, {"missing class": 1600}),
        (OBJECT, box(20, 20, 40, 40, DOG), {"false class": 1600}),
        (OBJECT, box(70, 70, 10, 10, DOG, OBJECT), {"false class": 100}),
        (box(50, 50, 10, 10), NOTHING, {"small object": 100}),
        (box(50, 50, 10, 10), box(50, 50, 10, 6), {"leaked boundary": 36, "half object": 4}),
        (OBJECT, box(18, 18, 44, 44), {"leaked boundary": 44**2 - 1600}),
        (OBJECT, box(22, 22, 36, 36), {"leaked boundary": 1600 - 36**2}),
        (OBJECT, box(20, 20, 40, 20), {"leaked boundary": 800 - 34 * 17, "half object": 34 * 17}),
        (OBJECT, box(20, 70, 40, 20, CAT, OBJECT), {"co-occurring background": 800}),
        (box(0, 0, SIDE, SIDE, IGNORE), OBJECT, {}),
    ],
)
def test_every_wrong_pixel_has_the_cause_it_was_drawn_with(truth, prediction, expected):
    case = case_of(truth, prediction)
    assert pixels(case) == expected
    wrong = (prediction != truth) & (truth != IGNORE)
    np.testing.assert_array_equal(case.errors > 0, wrong)


def test_the_main_cause_is_the_one_whose_repair_gains_most():
    truth = box(80, 80, 12, 12, DOG, OBJECT)  # 1.4 % of the image
    case = case_of(truth, box(19, 19, 42, 42))
    assert pixels(case) == {"small object": 144, "leaked boundary": 42**2 - 1600}
    assert list(case.gains) == ["small object", "leaked boundary"] and case.main == "small object"
    assert case.iou + case.gains["small object"] == pytest.approx(mean_iou([case], "small object"))
    assert "0 % of the dog is found; it covers 1.4 % of the image" in case.why[0]
    assert case_of(OBJECT, OBJECT).main == "" and case_of(OBJECT, OBJECT).iou == 1


def test_objects_have_their_own_iou():
    truth = box(70, 70, 20, 20, CAT, OBJECT)
    truth[40:42, 20:60] = IGNORE  # a rim does not cut an object in two
    case = case_of(truth, box(70, 92, 20, 5, CAT, OBJECT))  # the second missed, 100 px beside it
    first, second = sorted(case.things, key=lambda thing: -thing.area)
    assert first.area == pytest.approx(0.152) and first.found == 1 and first.iou == 1
    assert second.found == 0 and second.iou == 0
    near_second = case_of(truth, box(70, 70, 20, 27, CAT, OBJECT))
    assert min(t.iou for t in near_second.things) == pytest.approx(400 / 540)


def test_of_several_objects_the_one_that_misses_most_is_told():
    truth = box(90, 0, 4, 4, DOG, box(75, 75, 3, 3, CAT, OBJECT))  # 0.2 %, and a speck
    case = case_of(truth, box(20, 20, 40, 12))
    assert "30 % of the cat is found; it covers 16.0 %" in " ".join(case.why)
    assert case._told("small object") == "0 % of the dog is found; it covers 0.2 % of the image"
    speck = case_of(box(60, 60, 3, 3), NOTHING)
    assert "small object: the cat covers 0.1 % of the image" in speck.why[0]


def test_counts_add_up():
    cases = [case_of(OBJECT, NOTHING), case_of(OBJECT, box(18, 18, 44, 44))]
    counts = count_causes(cases)
    assert counts["main cause"].to_dict()["missing class"] == 1 and counts["main cause"].sum() == 2
    assert counts["% of wrong pixels"].sum() == pytest.approx(100)
    assert counts.loc["missing class", "gain"] > counts.loc["false class", "gain"] == 0
    assert objects(cases)["found"].tolist() == [0, 100]


def test_mining_sorts_scenes_and_knows_their_ground(lite):
    scenes = data.build_split(recipes.lite_scenes().data.change({"val": 6}), "val")
    cases = mine(lite, scenes)
    assert [c.iou for c in cases] == sorted(c.iou for c in cases) and len(cases) == 6
    for case in cases:
        scene = scenes.scene(int(case.sample.id[-6:]))
        assert case.place == scene.family
        np.testing.assert_array_equal(case.truth, scene.sample.mask)
    assert 0.3 < mean_iou(cases) < 0.99


def test_elsewhere_the_same_objects_are_on_a_ground_of_no_class_of_theirs():
    change = {"scenes.co_occurrence": 1.0, "scenes.size": 64, "val": 8}
    scenes = data.build_split(recipes.lite_scenes().data.change(change), "val")
    moved = Drawn.of(scenes, elsewhere=True)
    assert len(Drawn.of(scenes, limit=3)) == 3
    for index, there in enumerate(moved.scenes):
        here = scenes.scene(index)
        homes = {FAMILY_OF[placed.design.class_name] for placed in here.objects}
        assert homes == {here.family} and there.family not in homes
        assert here.objects == there.objects
        np.testing.assert_array_equal(moved[index].mask, here.sample.mask)


@pytest.fixture(scope="module")
def lite():
    import wsfcn

    return wsfcn.load("lite-scenes")


def test_photos_come_in_the_classes_of_the_network(lite, tmp_path):
    from PIL import Image

    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    (tmp_path / "labels.csv").write_text("file,class,split\na.png,cat,val\nb.png,cat,val\n")
    (tmp_path / "classes.txt").write_text("\n".join(VOC_CLASSES))
    for name in "ab":
        Image.fromarray(np.full((SIDE, SIDE, 3), 99, np.uint8)).save(
            tmp_path / f"images/{name}.png"
        )
    Image.fromarray(OBJECT).save(tmp_path / "masks/a.png")
    found = photos(lite, tmp_path)
    assert len(found) == 1 and found.classes == lite.classes  # b has no mask
    assert mine(lite, found)[0].place == ""


def test_classes_that_a_network_does_not_know_are_what_they_were_in_its_training(lite, tmp_path):
    from PIL import Image

    import wsfcn

    truth = box(60, 60, 20, 20, VOC_CLASSES.index("chair") + 1, OBJECT)
    truth[0] = IGNORE
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("a\n")
    Image.fromarray(np.full((SIDE, SIDE, 3), 99, np.uint8)).save(tmp_path / "JPEGImages/a.jpg")
    Image.fromarray(truth).save(tmp_path / "SegmentationClass/a.png")
    network = wsfcn.load("lite-voc")
    (sample,) = photos(network, tmp_path)
    cat = network.classes.index("cat") + 1
    assert sample.mask[30, 30] == cat and sample.mask[65, 65] == 0 and sample.mask[0, 0] == IGNORE
    (case,) = mine(network, photos(network, tmp_path))
    assert (
        case.classes == network.classes and case.errors[65, 65] == (case.prediction[65, 65] > 0) * 2
    )
    all_known = photos(lite, tmp_path)[0]
    assert all_known.mask[65, 65] == VOC_CLASSES.index("chair") + 1


def test_a_folder_that_is_laid_out_in_no_known_way_is_named(lite, tmp_path):
    with pytest.raises(DataError, match="is laid out neither as VOC"):
        photos(lite, tmp_path)


def test_an_image_without_a_mask_is_named():
    with pytest.raises(SettingsError, match="one: has no mask"):
        diagnose(Sample("one", np.zeros((4, 4, 3), np.uint8), np.zeros(20), None), NOTHING, ())
