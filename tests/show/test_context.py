"""The figures of notebook 02 say in their alt text what they show."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from wsfcn.show import context as draw

SCENE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


def pixels(figure):
    """What a notebook shows."""
    content = base64.b64decode(figure._repr_mimebundle_()[0]["image/png"])
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize(
    ("cells", "strips", "told"),
    [
        (16, [(1, 1), (7, 2)], "1 of 1 cells, 49 of 49 cells"),
        (41, [(3, 12), (5, 24), (7, 36)], "9 of 9 cells, 1 of 25 cells, 1 of 49 cells"),
    ],
)
def test_reach_counts_the_cells_inside(cells, strips, told):
    figure = draw.reach(SCENE, cells, strips)
    assert told in figure.alt
    assert len(figure.axes) == len(strips)
    assert pixels(figure).std() > 10


def test_map_grid_scales_each_map_by_itself_or_to_one():
    ramp = np.linspace(0, 0.5, 16).reshape(4, 4)
    figure = draw.map_grid([SCENE], ["one"], {"a": [ramp], "b (0 to 1)": [ramp]}, "share", "a text")
    own, absolute = (axes.images[0].get_clim() for axes in figure.axes[1:3])
    assert own == (0, 0.5)
    assert absolute == (0, 1)
    assert figure.axes[0].get_ylabel() == "one"
    assert figure.alt == "a text"


def test_switches_say_how_many_are_settled():
    values = np.array([[0.0, 1.0], [0.5, 0.99]])
    figure = draw.switches({"one": values, "two": np.full((2, 2), 0.5)}, ["k = 1", "k = 3"])
    assert figure.alt.endswith("75% of the values for one, 0% of the values for two")


def test_bill_sorts_by_parameters():
    figure = draw.bill({"small": {"FCA": (3.0, 30.0), "ASPP": (2.0, 20.0)}})
    assert figure.alt == "small: ASPP 2 M, 20 GFLOP, FCA 3 M, 30 GFLOP. "
    assert [bar.get_width() for bar in figure.axes[0].patches] == [2.0, 3.0]


def test_taps_without_gradient_are_crosses():
    figure = draw.taps({(3, 2): np.ones(3), (5, 9): np.array([0, 1, 2, 1, 0.0])}, 16)
    assert figure.alt.endswith("0 of 3 for k = 3, 2 of 5 for k = 5")
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[], [-18, 18]]


def test_intervals_draw_every_value():
    rows = {"ASPP": (50.0, 45.0, 56.0), "FCA": (52.0, 47.0, 58.0)}
    figure = draw.intervals({"mIoU": rows, "claimed": rows})
    assert "mIoU, FCA: 52.0 (47.0 to 58.0)" in figure.alt
    assert len(figure.axes) == 2
    spans = [tuple(line.get_xdata()) for line in figure.axes[0].lines if len(line.get_xdata()) > 1]
    assert spans == [(45.0, 56.0), (47.0, 58.0)]
