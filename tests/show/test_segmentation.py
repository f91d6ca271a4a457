"""Overlay pictures: what is coloured, that text can be read and never leaves the sheet."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from wsfcn.data.sample import VOC_CLASSES
from wsfcn.show.colours import class_colours, voc_palette
from wsfcn.show.segmentation import html, index_png, overlay_picture, percent, png


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey image; a dog on the left, a sheep in the lower right corner."""
    labels = np.zeros((height, width), np.uint8)
    labels[height // 4 : 3 * height // 4, : width // 2] = 12
    labels[3 * height // 4 :, 3 * width // 4 :] = 17
    return np.full((height, width, 3), 128, np.uint8), labels


def legend_of(picture: Image.Image, height: int) -> np.ndarray:
    return np.asarray(picture)[height:]


def test_classes_are_tinted_and_the_background_is_left_alone():
    image, labels = scene(400, 600)
    painted = np.asarray(overlay_picture(image, labels, VOC_CLASSES))[:400]
    # A place inside the dog that holds neither name nor outline.
    expected = 0.45 * 128 + 0.55 * class_colours(21)[12].astype(float)
    np.testing.assert_allclose(painted[110, 20], expected, atol=1)
    assert (painted[30, 500] == 128).all()
    assert (painted[95:105, 150] == 255).all(axis=-1).any()  # a white outline


def test_legend_has_a_swatch_for_each_class_and_only_those():
    image, labels = scene(400, 600)
    legend = legend_of(overlay_picture(image, labels, VOC_CLASSES), 400)
    flat = {tuple(p) for p in legend.reshape(-1, 3).tolist()}
    colours = [tuple(c) for c in class_colours(21).tolist()]
    assert colours[12] in flat and colours[17] in flat
    assert not flat & {colours[c] for c in (1, 4, 7, 20)}


@pytest.mark.parametrize("size", [(24, 16), (128, 128), (700, 90), (90, 700), (1500, 2000)])
def test_text_grows_with_the_picture(size):
    image, labels = scene(*size)
    picture = overlay_picture(image, labels, VOC_CLASSES)
    factor = max(1, -(-320 // max(size)))
    assert picture.width >= factor * size[1] and picture.height > factor * size[0]
    ink = (legend_of(picture, factor * size[0]) < 90).all(axis=-1)
    assert ink.any()
    # Letters are at least 8 px high, and 1.5 % of the longest side.
    rows = np.flatnonzero(ink.any(axis=1))
    assert rows[-1] - rows[0] >= max(8, 0.015 * max(picture.size))
    assert not ink[:, -1].any() and not ink[-1].any()  # nothing is cut off


def test_many_classes_wrap_into_rows():
    labels = np.arange(21 * 20, dtype=np.uint16).reshape(21, 20) % 21
    labels = np.repeat(np.repeat(labels.astype(np.uint8), 10, 0), 10, 1)
    picture = overlay_picture(np.zeros((210, 200, 3), np.uint8), labels, VOC_CLASSES)
    legend = legend_of(picture, 420)
    shown = {tuple(p) for p in legend.reshape(-1, 3).tolist()}
    assert {tuple(c) for c in class_colours(21).tolist()[1:]} <= shown
    assert picture.width == 400


def test_nothing_found_says_so():
    picture = overlay_picture(*scene(330, 330)[:1], np.zeros((330, 330), np.uint8), VOC_CLASSES)
    assert (legend_of(picture, 330) < 90).all(axis=-1).any()


def test_ignored_pixels_are_not_coloured_or_listed():
    image, labels = scene(400, 400)
    labels[labels == 17] = 255
    picture = overlay_picture(image, labels, VOC_CLASSES)
    assert (np.asarray(picture)[395, 395] == 128).all()
    flat = {tuple(p) for p in legend_of(picture, 400).reshape(-1, 3).tolist()}
    assert tuple(class_colours(21)[17].tolist()) not in flat


def test_longest_side():
    picture = overlay_picture(*scene(900, 1200), VOC_CLASSES, longest=600)
    assert picture.width == 600 and 450 < picture.height < 520


def test_inputs_are_left_alone_and_must_fit():
    image, labels = scene(64, 64)
    before = image.copy(), labels.copy()
    overlay_picture(image, labels, VOC_CLASSES)
    assert (image == before[0]).all() and (labels == before[1]).all()
    with pytest.raises(ValueError, match=r"shape \(64, 64\) does not fit an image \(32, 64, 3\)"):
        overlay_picture(image[:32], labels, VOC_CLASSES)


def test_index_png_reads_back_with_the_voc_palette():
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with Image.open(BytesIO(index_png(labels))) as picture:
        assert (np.asarray(picture) == labels).all()
        palette = np.array(picture.getpalette()).reshape(-1, 3)
    assert (palette == voc_palette()).all()


def test_html_escapes_names_and_carries_the_picture():
    data = png(Image.new("RGB", (3, 2), "red"))
    text = html(data, {"background": 0.5, '"><script>': 0.5}, "a < b")
    assert "<script>" not in text and "a &lt; b" in text
    found = re.search(r'src="data:image/png;base64,([^"]+)"', text)
    with Image.open(BytesIO(base64.b64decode(found[1]))) as picture:
        assert picture.size == (3, 2)


def test_percent():
    assert [percent(x) for x in (0, 0.002, 0.01, 0.256, 1)] == [
        "0 %",
        "< 1 %",
        "1 %",
        "26 %",
        "100 %",
    ]
