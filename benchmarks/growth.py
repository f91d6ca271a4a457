"""How time and memory grow with image size, classes, batch, scale; exponents and a figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import exponent, in_turns, peak_bytes

# Of one axis: its values, and for each road the call at a value.
Axis = tuple[list[float], dict[str, Callable[[float], Callable[[], Any]]]]


def axes() -> dict[str, Axis]:
    from skimage import data

    import wsfcn
    from wsfcn.predict import label_map, predict
    from wsfcn.protocols import single_scale
    from wsfcn.views import resized
    from wsfcn.weak import PAMR

    network, coffee = wsfcn.load("lite-scenes"), data.coffee()
    one, plain = PAMR(), single_scale().change({"flip": False})

    def refine(batch: int, channels: int, side: int) -> Callable[[], Any]:
        image, masks = torch.rand(batch, 3, side, side), torch.rand(batch, channels, side, side)
        return lambda: one(image, masks)

    def look(batch: int, side: int, scale: float = 1.0) -> Callable[[], Any]:
        images, protocol = [resized(coffee, side, side)] * batch, plain.change({"scales": (scale,)})
        return lambda: predict(network, images, protocol, size=side)

    def choose(classes: int) -> Callable[[], Any]:
        masks = np.random.default_rng(0).random((classes, 96, 128), np.float32)
        return lambda: label_map(masks, (375, 500))

    def side(pixels: float) -> int:
        return round(pixels**0.5)

    return {
        "pixels of an image": (
            [float(s * s) for s in (96, 128, 192, 256, 384)],
            {
                "PAMR": lambda n: refine(1, 4, side(n)),
                "prediction": lambda n: look(1, side(n)),
            },
        ),
        "classes": (
            [2, 4, 8, 16, 32, 64],
            {"PAMR": lambda n: refine(1, int(n), 81), "label map": lambda n: choose(int(n))},
        ),
        "batch": (
            [1, 2, 4, 8, 16],
            {"PAMR": lambda n: refine(int(n), 4, 64), "prediction": lambda n: look(int(n), 128)},
        ),
        "scale": ([0.5, 0.75, 1, 1.5, 2], {"prediction": lambda n: look(1, 256, n)}),
    }


def measured() -> dict[str, Any]:
    """By axis and road: values, seconds, bytes, and exponents of both."""
    found: dict[str, Any] = {}
    for axis, (values, roads) in axes().items():
        for road, make in roads.items():
            calls = [make(value) for value in values]
            for call in calls:
                call()
            seconds = [min(turns) for turns in in_turns(*calls, rounds=4)[0]]
            memory = [max(peak_bytes(call), 1) for call in calls]
            found.setdefault(axis, {})[road] = {
                "values": values,
                "seconds": seconds,
                "bytes": memory,
                "time exponent": exponent(values, seconds),
                "memory exponent": exponent(values, memory),
            }
    return found


def draw(found: dict[str, Any], file: Path) -> None:
    """Time above, memory below, a column for each axis; logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure = Figure(figsize=(11, 5.6), layout="constrained")
    panels = figure.subplots(2, len(found), squeeze=False)
    colours = {"PAMR": "#0072b2", "prediction": "#d55e00", "label map": "#009e73"}
    for column, (axis, roads) in enumerate(found.items()):
        for panel, kind, unit, scale in (
            (panels[0][column], "seconds", "CPU time, ms", 1e3),
            (panels[1][column], "bytes", "peak memory, MiB", 2**-20),
        ):
            for road, row in roads.items():
                power = row["time exponent" if kind == "seconds" else "memory exponent"]
                panel.loglog(
                    row["values"],
                    [scale * value for value in row[kind]],
                    "o-",
                    color=colours[road],
                    label=f"{road}: {power:.2f}",
                )
            panel.set_xlabel(axis)
            values = next(iter(roads.values()))["values"]
            panel.set_xticks(
                values, [f"{value:g}" if value < 1e3 else f"{value / 1e3:.0f}k" for value in values]
            )
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            panel.minorticks_off()
            panel.legend(title="exponent", fontsize=8, title_fontsize=8)
            if not column:
                panel.set_ylabel(unit)
    file.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(file, dpi=110)
