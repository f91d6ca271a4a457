"""Figures of the notebook on PAMR: what they draw, and what their texts say."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from wsfcn.show.pamr import Film, along_row, grid, neighbours
from wsfcn.show.panels import BLUE, GREY, ORANGE
from wsfcn.weak import PAMR

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
LEFT = np.where(np.arange(64) < 32, 1, 0)[None].repeat(64, 0).astype(np.uint8)


def test_neighbours_are_drawn_where_they_are_and_as_large_as_their_weight():
    truth = LEFT.copy()
    truth[:, 32] = 255
    offsets = PAMR(dilations=(1, 4)).offsets
    weights = np.zeros(16, np.float32)
    weights[[3, 12]] = 0.75, 0.25  # one pixel to the left; four to the right
    figure = neighbours(IMAGE, truth, {"edge": (30, 31)}, offsets, [weights])
    disks = figure.axes[1].collections[0]
    assert np.array_equal(disks.get_offsets()[[3, 12]], [[30, 30], [35, 30]])  # x, y
    sizes = disks.get_sizes()
    assert sizes[3] - sizes[0] == pytest.approx(3 * (sizes[12] - sizes[0]))
    by_name = [tuple(c[:3]) for c in disks.get_facecolors()]
    assert [by_name[n] for n in (3, 4, 12)] == [to_rgb(c) for c in (BLUE, GREY, ORANGE)]
    assert "75 % of the weight on its own class" in figure.alt


def test_border_pixels_do_not_count_in_the_share():
    truth = LEFT.copy()
    truth[:, 32] = 255
    weights = np.zeros(8, np.float32)
    weights[[3, 4]] = 0.5  # own class, and a border pixel
    figure = neighbours(IMAGE, truth, {"edge": (30, 31)}, PAMR(dilations=(1,)).offsets, [weights])
    assert "100 % of the weight" in figure.alt


def test_grid_tells_masks_from_label_maps_and_from_images():
    heat = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    rows = {"a row": {"scene": IMAGE, "mask": heat, "labels": LEFT}}
    figure = grid(IMAGE, rows, LEFT == 1, {"a row": ["x", "y", "mIoU 3 %"]})
    scene, mask, labels = figure.axes
    assert np.array_equal(scene.images[0].get_array(), IMAGE)
    assert mask.images[0].get_clim() == (0, 1) and len(mask.collections) == 1
    assert labels.images[0].get_array().shape[2] == 3
    assert [axes.get_xlabel() for axes in figure.axes] == ["x", "y", "mIoU 3 %"]
    assert "a row: scene, mask, labels" in figure.alt and "mIoU 3 %" in figure.alt


def test_a_film_has_a_picture_for_each_step_and_ends():
    steps = {n: (np.full((64, 64), n / 9, np.float32), LEFT) for n in (0, 5, 9)}
    data, metadata = Film(IMAGE, steps, "what it shows")._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == data["text/plain"] == "what it shows"
    film = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert film.n_frames == 3 and film.info["loop"] > 0  # 0 would never stop
    brightness = []
    for n in range(3):
        film.seek(n)
        brightness.append(film.convert("L").getpixel((150, 200)))
    assert brightness[0] < brightness[1] < brightness[2]


def test_a_cut_shows_thresholds_and_labels():
    pseudo = LEFT.copy()
    pseudo[:, 30:34] = 255
    ramp = np.linspace(1, 0, 64, dtype=np.float32)
    figure = along_row(IMAGE, 5, {"cat": (1, ramp, 0.6), "background": (0, 1 - ramp, 0.7)}, pseudo)
    scene, top, strip = figure.axes
    heights = [line.get_ydata()[0] for line in top.lines]
    assert 0.6 in heights and 0.7 in heights
    colours = strip.images[0].get_array()[0]
    assert (colours[30:34] == 255).all() and (colours[0] != colours[63]).any()
    assert scene.lines[0].get_ydata()[0] == 5
    assert "cat 0.60" in figure.alt
