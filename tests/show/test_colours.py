import numpy as np
import pytest
from PIL import Image

from wsfcn.show.colours import _as_seen, class_colours, overlay, voc_palette


def test_voc_palette():
    palette = voc_palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    # The published colours of background, aeroplane, bicycle, person, tvmonitor and ignore.
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    for index, colour in known.items():
        assert tuple(palette[index]) == colour
    assert len({tuple(colour) for colour in palette}) == 256


def test_class_colours_stay_when_classes_are_added():
    many = class_colours(81)
    assert many.shape == (81, 3) and many.dtype == np.uint8
    for n in (0, 1, 3, 21):
        assert np.array_equal(class_colours(n), many[:n])
    many[:] = 0
    assert class_colours(81).any()  # a caller cannot spoil them


def test_class_colours_differ_in_every_eye():
    for colours in _as_seen(class_colours(21)):
        gaps = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
        assert gaps[~np.eye(21, dtype=bool)].min() > 12  # CIELAB; 2.3 is just noticeable


def test_lightness_and_hue_are_those_of_cielab():
    white, grey, red = _as_seen(np.array([(255, 255, 255), (119, 119, 119), (255, 0, 0)]))[0]
    assert np.allclose(white, (100, 0, 0), atol=0.01)
    assert np.allclose(grey, (50, 0, 0), atol=0.2)
    assert np.allclose(red, (53.24, 80.09, 67.20), atol=0.1)


def test_red_and_green_of_equal_lightness_meet_in_a_red_blind_eye():
    pair = np.array([(190, 110, 70), (125, 125, 70)])
    normal, red_blind, _, _ = _as_seen(pair)
    distance = [np.linalg.norm(eye[0] - eye[1]) for eye in (normal, red_blind)]
    assert distance[1] < 0.5 * distance[0]


@pytest.fixture
def scene():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:15] = 3
    labels[5:15, 15:25] = 7
    labels[0:3] = 255
    return image, labels


def test_overlay_tints_classes_and_nothing_else(scene):
    image, labels = scene
    before = image.copy()
    painted = overlay(image, labels, 0.5)
    assert painted.dtype == np.uint8 and np.array_equal(image, before)
    unlabelled = (labels == 0) | (labels == 255)
    assert np.array_equal(painted[unlabelled], image[unlabelled])
    colour = class_colours(8)[3].astype(float)
    inner = (slice(7, 13), slice(7, 13))
    assert np.abs(painted[inner] - (image[inner] + colour) / 2).max() <= 1


def test_overlay_draws_a_line_between_classes(scene):
    image, labels = scene
    painted = overlay(image, labels, 0.0)
    colours = class_colours(8)
    assert (painted[8, 14] == colours[3]).all() and (painted[8, 15] == colours[7]).all()
    assert (painted[5, 8] == colours[3]).all()
    assert np.array_equal(painted[8, 10], image[8, 10])


def test_overlay_with_other_colours_and_wrong_input(scene):
    image, labels = scene
    painted = overlay(image, labels, 1.0, voc_palette())
    assert (painted[labels == 7] == voc_palette()[7]).all()
    assert np.array_equal(overlay(image, np.zeros_like(labels)), image)
    with pytest.raises(ValueError, match="shape"):
        overlay(image, labels[1:])
    with pytest.raises(ValueError, match="alpha"):
        overlay(image, labels, 1.5)
    with pytest.raises(ValueError, match="class 7"):
        overlay(image, labels, colours=voc_palette()[:5])


def test_overlay_of_a_large_photo_is_pillow_compatible():
    image = np.zeros((300, 400, 3), np.uint8)
    painted = overlay(image, np.full((300, 400), 20, np.uint8))
    assert Image.fromarray(painted).size == (400, 300)
