from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wsfcn.show import flow


def rendered(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB")).astype(int)


def test_directions_have_colours_and_lengths_have_strength():
    ways = np.array([[[1.0, 0], [0, 1], [-1, 0], [0, -1], [0, 0]]]) * 4
    colours = flow.flow_colours(ways, 4.0)
    np.testing.assert_allclose(colours[0, :4], flow.COMPASS, atol=1e-6)
    np.testing.assert_allclose(colours[0, 4], 1)  # no step: white
    half = flow.flow_colours(ways / 2, 4.0)
    np.testing.assert_allclose(half, (1 + colours) / 2, atol=1e-6)
    assert (flow.flow_colours(10 * ways, 4.0)[0, :4] == colours[0, :4]).all()  # never over the rim


def test_directions_turn_smoothly():
    angles = np.linspace(0, 2 * np.pi, 721)
    ring = flow.flow_colours(np.stack([np.cos(angles), np.sin(angles)], -1)[None], 1.0)[0]
    assert np.abs(np.diff(ring, axis=0)).max() < 0.02
    assert ring.min() >= 0 and ring.max() <= 1


def test_dots_lie_where_pixels_read():
    image = np.full((16, 16, 3), 200, np.uint8)
    thing = np.zeros((16, 16), bool)
    thing[4:12, 2:6] = True
    field = np.zeros((4, 4, 2))
    field[..., 0] = 3.0
    figure = flow.flows([image], [field], [thing])
    before, after = (np.concatenate([d.get_xydata() for d in a.lines]) for a in figure.axes[:2])
    np.testing.assert_allclose(after - before, [[3.0, 0.0]] * 16)
    assert before.min() == 0 and before.max() == 15  # corners on corners
    of_object = figure.axes[0].lines[1].get_xydata()
    assert of_object.tolist() == [[5, 5], [5, 10]]  # x and y of the pixels on the object
    assert "median 3 px" in figure.alt
    assert np.ptp(rendered(figure)) > 100


def test_tiles_show_pictures_as_they_are_and_heat_with_an_outline():
    picture = np.full((8, 8, 3), 90, np.uint8)
    mask = np.zeros((32, 32))
    mask[8:24, 8:24] = 1
    figure = flow.tiles([{"scene": picture, "map": np.eye(4)}] * 2, "two maps", [mask] * 2, "share")
    first, second = figure.axes[:2]
    assert [first.get_title(), second.get_title()] == ["scene", "map"]
    assert not first.collections and len(second.collections) == 1
    assert figure.axes[-1].get_ylabel() == "share"
    line = second.collections[0].get_paths()[0].vertices
    assert line.min() == pytest.approx(0.25, abs=0.02)  # on the border of the mask
    assert line.max() == pytest.approx(0.75, abs=0.02)
    rendered(figure)
    assert len(flow.tiles([{"scene": picture}], "a picture").axes) == 1  # nothing to explain


def test_curves_streams_and_effects_tell_what_they_draw():
    table = pd.DataFrame({"measured": [1.0, 0.5], "formula": [1.0, 0.7]}, [1, 2])
    table.columns.name, table.attrs["log"] = "distance", True
    figure = flow.curves({"noise": table, "plain": table.rename_axis(index="n")})
    assert figure.axes[0].get_xscale() == "log" and figure.axes[0].get_ylabel() == "distance"
    assert "noise, measured: 1 to 0.5" in figure.alt
    rendered(figure)
    figure = flow.streams({"low": (80, 30), "high": (60, 55)}, [("high", "low")])
    assert "low 80 and 30 %, high 60 and 55 %" in figure.alt
    rendered(figure)
    figure = flow.effects(
        {"mIoU": {"with flow": (2.0, -1.0, 4.5)}, "missed": {"with flow": (-3, -4, -1)}}
    )
    assert "mIoU, with flow: +2.0 (-1.0 to +4.5)" in figure.alt
    bar = figure.axes[0].collections[0].get_segments()[0]
    assert bar[:, 0].tolist() == [-1.0, 4.5]
    rendered(figure)
