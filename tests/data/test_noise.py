import numpy as np

from wsfcn import recipes
from wsfcn.data import build, build_split

DATA = recipes.smoke_scenes().data


def noisy(rate, seed=0):
    return build_split(DATA.change({"label_noise": rate, "seed": seed}), "train")


def test_an_image_keeps_the_number_of_its_labels_and_its_mask():
    for clean, wrong in zip(build_split(DATA, "train"), noisy(1.0), strict=False):
        assert wrong.labels.sum() == clean.labels.sum()
        assert not (wrong.labels * clean.labels).any()  # at rate 1 none is left
        assert (wrong.mask == clean.mask).all() and (wrong.image == clean.image).all()


def test_the_share_of_wrong_labels_is_the_rate():
    data = DATA.change({"train": 200})
    clean = build_split(data, "train")
    wrong = build_split(data.change({"label_noise": 0.3}), "train")
    named = np.array([clean[i].labels for i in range(200)])
    lost = named * (np.array([wrong[i].labels for i in range(200)]) == 0)
    assert 0.22 < lost.sum() / named.sum() < 0.38


def test_the_same_image_is_wrong_in_the_same_way_whatever_was_read_before():
    alone = noisy(0.5)[7].labels
    after = [noisy(0.5)[i].labels for i in (3, 7)][1]
    assert (alone == after).all()
    assert any((noisy(0.5, 1)[i].labels != noisy(0.5)[i].labels).any() for i in range(24))


def test_validation_labels_stay_right():
    clean, wrong = build(DATA)[1], build(DATA.change({"label_noise": 1.0}))[1]
    assert all((clean[i].labels == wrong[i].labels).all() for i in range(len(clean)))
    assert wrong.classes == clean.classes
