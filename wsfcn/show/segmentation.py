"""Pictures of a segmentation: coloured classes over the photo, with a legend that can be read."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..data.sample import IGNORE
from .colours import class_colours, overlay, voc_palette

Picture = Image.Image

SMALLEST = 320  # px, longest side; smaller photos are enlarged so that the legend can be read
STRIP_PIXELS = 1 << 20  # painted at a time
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

    image: (H, W, 3) uint8; labels: (H, W) uint8, 0 background, 1..K `classes`, 255 ignore (not
    drawn). Small photos are enlarged by a whole factor to at least 320 px; text grows with the
    picture. longest: shrink to at most this longest side in px.
    """
    if labels.shape != image.shape[:2]:
        raise ValueError(f"labels: shape {labels.shape} does not fit an image {image.shape}")
    image, labels = _shrink(image, labels, longest)
    factor = ceil(SMALLEST / max(labels.shape))
    image, labels = (np.repeat(np.repeat(x, factor, 0), factor, 1) for x in (image, labels))
    painted = _painted(image, labels, alpha, class_colours(len(classes) + 1))
    _outline(painted, labels)
    picture = Image.fromarray(painted)
    shares = _shares(labels)
    text = max(13, round(max(picture.size) / 32))
    _write_names(
        picture, labels, [(c, classes[c - 1]) for c, share in shares if share >= 0.01], text
    )
    return _with_legend(picture, [(c, classes[c - 1], share) for c, share in shares], text)


def _painted(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], alpha: float, colours: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """As `overlay`, but in strips of rows: its real numbers for a whole photo take a gigabyte."""
    painted = np.empty_like(image)
    rows = max(16, STRIP_PIXELS // image.shape[1])
    for top in range(0, len(image), rows):
        above = min(1, top)  # a neighbour row on both sides, for the borders
        part = slice(top - above, top + rows + 1)
        strip = overlay(image[part], labels[part], alpha, colours)
        painted[top : top + rows] = strip[above : above + rows]
    return painted


def _shrink(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], longest: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if longest is None or max(labels.shape) <= longest:
        return image, labels
    ratio = longest / max(labels.shape)
    size = max(1, round(ratio * labels.shape[1])), max(1, round(ratio * labels.shape[0]))
    small = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(small), np.asarray(Image.fromarray(labels).resize(size, 0))


def _outline(painted: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """A white line where the class changes: seen on any colour, also without colour vision."""
    thick = max(1, round(max(labels.shape) / 500))
    for axis in (0, 1):
        ahead = np.take(labels, range(thick, labels.shape[axis]), axis)
        behind = np.take(labels, range(labels.shape[axis] - thick), axis)
        edge = ahead != behind
        place = (slice(None),) * axis + (slice(thick // 2, thick // 2 + edge.shape[axis]),)
        painted[place][edge] = 255


def _write_names(
    picture: Picture, labels: NDArray[np.uint8], names: Sequence[tuple[int, str]], text: int
) -> None:
    """Each name on the innermost place of its class: colours alone are hard to look up."""
    font = ImageFont.load_default(text)
    draw = ImageDraw.Draw(picture)
    step = ceil(max(labels.shape) / 128)
    coarse = labels[::step, ::step]
    for index, name in names:
        half = font.getlength(name) / 2 + 2
        if 2 * half > picture.width or not (coarse == index).any():
            continue
        y, x = _innermost(coarse == index)
        x = min(max(step * (x + 0.5), half), picture.width - half)
        y = min(max(step * (y + 0.5), text), picture.height - text)
        stroke = max(1, text // 9)
        draw.text((x, y), name, PAPER, font, "mm", stroke_width=stroke, stroke_fill=INK)


def _innermost(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Row and column of the place that survives the most erosions."""
    left = np.pad(mask, 1)
    depth = left.astype(int)
    while left.any():
        inner = left.copy()
        for axis in (0, 1):
            inner &= np.roll(left, 1, axis) & np.roll(left, -1, axis)
        left = inner
        depth += left
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row) - 1, int(column) - 1


def _with_legend(picture: Picture, shares: Sequence[tuple[int, str, float]], text: int) -> Picture:
    """The picture on a white sheet, rows of swatch + "name 12 %" underneath."""
    font = ImageFont.load_default(text)
    gap, swatch = text // 2, text
    table = class_colours(max([0, *(c for c, _, _ in shares)]) + 1).tolist()
    entries: list[tuple[tuple[int, ...], str]] = [
        (tuple(table[c]), f"{name} {percent(share)}") for c, name, share in shares
    ]
    if not entries:
        entries = [(PAPER, "no class found")]
    placed: list[tuple[int, int, tuple[int, ...], str]] = []
    x, row, widest = gap, 0, picture.width
    for colour, name in entries:
        wide = swatch + gap // 2 + ceil(font.getlength(name))
        if x > gap and x + wide > picture.width - gap:
            x, row = gap, row + 1
        placed.append((x, row, colour, name))
        widest = max(widest, x + wide + gap)
        x += wide + 2 * gap
    line = round(1.5 * text)
    sheet = Image.new("RGB", (widest, picture.height + line * (row + 1) + gap), PAPER)
    sheet.paste(picture)
    draw = ImageDraw.Draw(sheet)
    for x, row, colour, name in placed:
        middle = picture.height + gap // 2 + line * (row + 0.5)
        if shares:
            box = (x, middle - swatch / 2, x + swatch, middle + swatch / 2)
            draw.rectangle(box, fill=colour, outline=INK, width=max(1, text // 12))
        draw.text((x + swatch + gap // 2, middle), name, INK, font, anchor="lm")
    return sheet


def _shares(labels: NDArray[np.uint8]) -> list[tuple[int, float]]:
    """(class, fraction of the picture), largest first."""
    counts = np.bincount(labels.ravel(), minlength=256)
    present = [c for c in range(1, IGNORE) if counts[c]]
    present.sort(key=lambda c: -counts[c])
    return [(c, float(counts[c] / labels.size)) for c in present]


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
    picture.putpalette(np.asarray(voc_palette(), np.uint8).tobytes())
    return png(picture)


def html(picture: bytes, areas: Mapping[str, float], caption: str) -> str:
    """A figure with the PNG, a table of areas and a caption; names are escaped."""
    found = ", ".join(f"{name} {percent(area)}" for name, area in areas.items())
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{percent(area)}</td></tr>" for name, area in areas.items()
    )
    source = base64.b64encode(picture).decode()
    return (
        f'<figure style="margin:0"><img style="max-width:100%" '
        f'alt="Segmented photo: {escape(found)}" src="data:image/png;base64,{source}">'
        f"<table><tr><th>class</th><th>area</th></tr>{rows}</table>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
