import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from wsfcn.show.colours import class_colours, overlay, voc_palette

# What normal, red-, green- and blue-blind readers see, in linear RGB: Machado, Oliveira and
# Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009).
EYES = np.fromstring(
    """1 0 0 0 1 0 0 0 1
    0.152286 1.052583 -0.204868 0.114503 0.786281 0.099216 -0.003882 -0.048116 1.051998
    0.367322 0.860646 -0.227968 0.280085 0.672501 0.047413 -0.011820 0.042940 0.968881
    1.255528 -0.076749 -0.178779 -0.078411 0.930809 0.147602 0.004733 0.691367 0.303900""",
    sep=" ",
).reshape(4, 3, 3)


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
    assert np.array_equal(class_colours(256)[81:161], many[1:])  # they repeat
    many[:] = 0
    assert class_colours(81).any()  # a caller cannot spoil them


def test_class_colours_differ_in_every_eye():
    scaled = class_colours(21) / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    for eye in EYES:
        seen = (linear @ eye.T).clip(0, 1)
        shown = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        lab = rgb2lab(shown)
        gaps = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
        assert gaps[~np.eye(21, dtype=bool)].min() > 12  # CIELAB; 2.3 is just noticeable


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
