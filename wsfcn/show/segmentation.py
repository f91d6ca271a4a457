"""Pictures of a segmentation: coloured classes over the photo, with a legend that can be read."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from ..data.sample import IGNORE
from .colours import class_colours, overlay, voc_palette

Picture = Image.Image

SMALLEST = 320  # px, longest side; smaller photos are enlarged so that the legend can be read
INK, PAPER = (25, 25, 25), (255, 255, 255)


def overlay_picture(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    classes: Sequence[str],
    *,
    alpha: float = 0.55,
    longest: int | None = None,
) -> Picture:
    """The photo with outlined, coloured classes, and below it a legend with names and areas.

    image: (H, W, 3) uint8; labels: (H, W) uint8, 0 background, 1..K `classes`, 255 not drawn.
    Small photos are enlarged by a whole factor to at least 320 px. longest: shrink to it, px.
    """
    if labels.shape != image.shape[:2]:
        raise ValueError(f"labels: shape {labels.shape} does not fit an image {image.shape}")
    side = max(labels.shape)
    ratio = min(1, (longest or side) / side)
    ratio *= ceil(SMALLEST / (ratio * side))
    if ratio != 1:
        size = tuple(max(1, round(ratio * length)) for length in reversed(labels.shape))
        method = Image.Resampling.BICUBIC if ratio < 1 else Image.Resampling.NEAREST
        image = np.asarray(Image.fromarray(image).resize(size, method))
        labels = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    colours = class_colours(len(classes) + 1)
    painted = overlay(image, labels, alpha, colours)
    window = 1 + max(1, round(max(labels.shape) / 500))
    edge = ndimage.maximum_filter(labels, window) != ndimage.minimum_filter(labels, window)
    painted[edge] = 255  # a white outline is seen on any colour, also without colour vision
    picture = Image.fromarray(painted)
    areas = np.bincount(labels.ravel(), minlength=256) / labels.size
    shares = {c: areas[c] for c in np.argsort(-areas).tolist() if areas[c] and 0 < c < IGNORE}
    text = max(13, round(max(picture.size) / 32))
    named = {c: classes[c - 1] for c, share in shares.items() if share >= 0.01}
    _write_names(picture, labels, named, text)
    told = {f"{classes[c - 1]} {percent(share)}": colours[c] for c, share in shares.items()}
    return _with_legend(picture, told or {"no class found": None}, text)


def _write_names(
    picture: Picture, labels: NDArray[np.uint8], names: Mapping[int, str], text: int
) -> None:
    """Each name on the innermost place of its class: colours alone are hard to look up."""
    font = ImageFont.load_default(text)
    draw = ImageDraw.Draw(picture)
    step = ceil(max(labels.shape) / 128)
    coarse = np.pad(labels[::step, ::step], 1)
    for index, name in names.items():
        half = font.getlength(name) / 2 + 2
        if 2 * half > picture.width or not (coarse == index).any():
            continue
        depth = ndimage.distance_transform_edt(coarse == index)
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        x = min(max(step * (column - 0.5), half), picture.width - half)
        y = min(max(step * (row - 0.5), text), picture.height - text)
        stroke = max(1, text // 9)
        draw.text((x, y), name, PAPER, font, "mm", stroke_width=stroke, stroke_fill=INK)


def _with_legend(picture: Picture, entries: Mapping[str, Any], text: int) -> Picture:
    """The picture on a white sheet, rows of swatch (name -> colour) and text underneath."""
    font = ImageFont.load_default(text)
    gap, line = text // 2, round(1.5 * text)
    placed, x, row, widest = [], gap, 0, picture.width
    for name, colour in entries.items():
        wide = text + gap // 2 + ceil(font.getlength(name))
        if x > gap and x + wide > picture.width - gap:
            x, row = gap, row + 1
        placed.append((x, picture.height + gap // 2 + line * (row + 0.5), colour, name))
        widest = max(widest, x + wide + gap)
        x += wide + 2 * gap
    sheet = Image.new("RGB", (widest, picture.height + line * (row + 1) + gap), PAPER)
    sheet.paste(picture)
    draw = ImageDraw.Draw(sheet)
    for x, middle, colour, name in placed:
        if colour is not None:
            box = (x, middle - text / 2, x + text, middle + text / 2)
            draw.rectangle(box, fill=tuple(colour.tolist()), outline=INK, width=max(1, text // 12))
        draw.text((x + text + gap // 2, middle), name, INK, font, anchor="lm")
    return sheet


def percent(fraction: float) -> str:
    """ "12 %", and "< 1 %" rather than 0 %."""
    return "< 1 %" if 0 < fraction < 0.01 else f"{100 * fraction:.0f} %"


def png(picture: Picture) -> bytes:
    """The picture as a PNG file."""
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def index_png(labels: NDArray[np.uint8]) -> bytes:
    """Class indices as a palette PNG in the colours of PASCAL VOC; reads back exactly."""
    picture = Image.fromarray(labels)
    picture.putpalette(voc_palette().tobytes())
    return png(picture)


def html(picture: bytes, areas: Mapping[str, float], caption: str) -> str:
    """A figure with the PNG, a table of areas and a caption; names are escaped."""
    found = {escape(name): percent(area) for name, area in areas.items()}
    told = ", ".join(f"{name} {area}" for name, area in found.items())
    rows = "".join(f"<tr><td>{name}</td><td>{area}</td></tr>" for name, area in found.items())
    source = base64.b64encode(picture).decode()
    return (
        f'<figure style="margin:0"><img style="max-width:100%" '
        f'alt="Segmented photo: {told}" src="data:image/png;base64,{source}">'
        f"<table><tr><th>class</th><th>area</th></tr>{rows}</table>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
