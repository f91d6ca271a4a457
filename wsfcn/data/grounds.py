"""Grounds: what emoji scenes are painted on, in families that belong to classes.

Some are photographs that scikit-image and scikit-learn carry in their wheels (those in grey get a
tint), the others are drawn anew for every scene. The splits share no part of a photograph: where
both use one, train sees its left half and val its right half. Drawn grounds of classes have other
colours in val. No part that is used shows a VOC class.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .artwork import Split

Picture = NDArray[np.float32]
"""(side, side, 3) float32 in 0..255."""
Random = np.random.Generator
Colour = tuple[int, int, int]
Painter = Callable[[int, Random], Picture]

_FAMILIES = {
    "sky": "aeroplane bird",
    "road": "bicycle bus car motorbike",
    "water": "boat",
    "wood": "bottle chair diningtable",
    "carpet": "cat dog",
    "meadow": "cow horse sheep",
    "pavement": "person",
    "wallpaper": "pottedplant sofa tvmonitor",
    "tracks": "train",
}
FAMILY_OF = {name: family for family, names in _FAMILIES.items() for name in names.split()}


@dataclass(frozen=True)
class Ground:
    """One kind of ground. `name` tells photographs and drawings apart within a family."""

    family: str
    name: str
    painter: Callable[..., Picture]
    colours: tuple[tuple[int, ...], ...] = ()

    def paint(self, side: int, random: Random) -> Picture:
        """Draw it anew, `side` px wide."""
        return self.painter(side, random, *self.colours)


# --- drawing -------------------------------------------------------------------------------


def _noise(side: int, random: Random, cells: tuple[int, int], octaves: int = 3) -> NDArray:
    """Smooth noise of mean 0 and deviation about 1; cells (across, down) of the coarsest octave."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        across, down = (min(side, max(2, c << octave)) for c in cells)
        grid = random.standard_normal((down, across), np.float32) / 2**octave
        image = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC)
        total += np.asarray(image)
    return total


def _axes(side: int) -> tuple[NDArray, NDArray]:
    """Rows (side, 1) and columns (1, side), 0..1."""
    steps = (np.arange(side, dtype=np.float32) + 0.5) / side
    return steps[:, None], steps[None, :]


def _between(dark: Colour | NDArray, light: Colour | NDArray, value: NDArray) -> Picture:
    """Colours between two, by a map that is clipped to 0..1."""
    start = np.asarray(dark, np.float32)
    span = np.asarray(light, np.float32) - start
    return start + np.clip(value, 0, 1)[..., None] * span


def _jitter(colour: Colour | NDArray, random: Random, amount: float = 18) -> NDArray:
    return np.asarray(colour, np.float32) + random.uniform(-amount, amount, 3).astype(np.float32)


def _any_colour(random: Random) -> NDArray:
    """Any lightness, never garish."""
    colour = random.uniform(20, 245, 3).astype(np.float32)
    return (0.6 * colour + 0.4 * colour.mean()).astype(np.float32)


def _sky(side: int, random: Random, top: Colour, bottom: Colour) -> Picture:
    rows, _ = _axes(side)
    fade = np.broadcast_to(rows, (side, side))
    picture = _between(_jitter(top, random), _jitter(bottom, random), fade)
    clouds = _noise(side, random, (3, 5), 4) * 0.35 + random.uniform(-0.4, 0.3)
    picture += np.clip(clouds, 0, 1)[..., None] * (250 - picture)
    return picture


def _water(side: int, random: Random, dark: Colour, light: Colour) -> Picture:
    rows, _ = _axes(side)
    swell = _noise(side, random, (3, 8), 3)
    waves = np.sin(rows * random.uniform(50, 90) + swell * 1.5)
    ripples = _noise(side, random, (8, 40), 1)
    value = 0.45 + 0.22 * waves + 0.14 * ripples
    return _between(_jitter(dark, random), _jitter(light, random), value)


def _road(side: int, random: Random, tone: tuple[int, int], line: Colour) -> Picture:
    rows, columns = _axes(side)
    grain = random.standard_normal((side, side), np.float32) * 9
    level = random.uniform(*tone) + grain + _noise(side, random, (3, 3), 2) * 6
    picture = np.repeat(level[..., None], 3, axis=2) + random.uniform(-5, 5, 3)
    slope = random.uniform(-0.15, 0.15)
    for start in (random.uniform(0.1, 0.45), random.uniform(0.6, 0.95)):
        across = rows - start - slope * columns
        dashes = np.sin(columns * random.uniform(18, 26) + random.uniform(0, 6)) > -0.3
        picture[(np.abs(across) < 0.014) & dashes] = line
    return picture.astype(np.float32)


def _wood(side: int, random: Random, dark: Colour, light: Colour) -> Picture:
    planks = int(random.integers(4, 8))
    rows, _ = _axes(side)
    grain = _noise(side, random, (2, 30), 2) * 0.16
    tones = random.uniform(0.25, 0.75, planks + 1).astype(np.float32)
    value = grain + tones[(rows * planks).astype(int)]
    seam = (rows * planks) % 1 < planks * max(0.008, 1 / side)
    value = np.where(seam, -0.2, value)
    if random.random() < 0.5:
        value = value.T
    return _between(_jitter(dark, random), _jitter(light, random), value)


def _carpet(side: int, random: Random, dark: Colour, light: Colour) -> Picture:
    rows, columns = _axes(side)
    count = random.uniform(4, 8)
    diamonds = np.abs((rows * count) % 1 - 0.5) + np.abs((columns * count) % 1 - 0.5)
    value = np.where(diamonds < random.uniform(0.25, 0.4), 0.85, 0.2)
    value = np.where(np.abs(diamonds - 0.5) < 0.05, 0.6, value)
    weave = random.standard_normal((side, side), np.float32) * 0.1
    return _between(_jitter(dark, random), _jitter(light, random), value + weave)


def _wallpaper(side: int, random: Random, dark: Colour, light: Colour) -> Picture:
    rows, columns = _axes(side)
    count = random.uniform(5, 10)
    stripes = np.clip(np.sin(columns * count * 2 * np.pi) * 2 + 0.5, 0, 1)
    dots = np.cos(columns * count * 2 * np.pi) * np.cos(rows * count * 2 * np.pi)
    value = stripes + 0 * rows if random.random() < 0.5 else np.clip(dots * 4 - 2, 0, 1)
    value = value + _noise(side, random, (2, 2), 1) * 0.05
    return _between(_jitter(dark, random), _jitter(light, random), value)


def _plain(side: int, random: Random) -> Picture:
    return np.broadcast_to(_any_colour(random), (side, side, 3)) + np.float32(0)


def _gradient(side: int, random: Random) -> Picture:
    rows, columns = _axes(side)
    angle = random.uniform(0, 2 * np.pi)
    value = 0.5 + 0.7 * (np.cos(angle) * (rows - 0.5) + np.sin(angle) * (columns - 0.5))
    return _between(_any_colour(random), _any_colour(random), value)


def _horizon(side: int, random: Random) -> Picture:
    rows, columns = _axes(side)
    edge = random.uniform(0.3, 0.7) + random.uniform(-0.2, 0.2) * (columns - 0.5)
    value = np.clip((rows - edge) * side, 0, 1)
    return _between(_any_colour(random), _any_colour(random), value)


def _mottled(side: int, random: Random) -> Picture:
    value = 0.5 + 0.25 * _noise(side, random, (4, 4), 4)
    return _between(_any_colour(random), _any_colour(random), value)


# --- photographs -----------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _photograph(package: str, path: str) -> Image.Image:
    """A photograph from a package's folder; the package is not imported."""
    found = importlib.util.find_spec(package)
    file = Path(next(iter(found.submodule_search_locations or ()), "")) / path if found else None
    if file is None or not file.is_file():
        name = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
        raise ImportError(f"the scenes need {path}, which comes with pip install {name}")
    with Image.open(file) as image:
        picture = image.convert("L" if image.mode == "L" else "RGB")
    picture.thumbnail((768, 768))  # crops of a larger one would only cost time
    return picture


def _photo(
    source: str,
    part: tuple[float, float, float, float] = (0, 0, 1, 1),
    tints: tuple[tuple[Colour, Colour], ...] = (),
    cover: tuple[float, float] = (0.4, 1.0),
) -> Painter:
    """A random square of a part of a photograph, sometimes mirrored.

    cover: least and greatest share of the part's shorter side. tints: dark and light colours, one
    pair chosen at random, for photographs in grey.
    """
    package, _, path = source.partition(":")

    def paint(side: int, random: Random) -> Picture:
        image = _photograph(package, path)
        left, top, right, bottom = (
            edge * length for edge, length in zip(part, image.size * 2, strict=True)
        )
        length = random.uniform(*cover) * min(right - left, bottom - top)
        x = random.uniform(left, right - length)
        y = random.uniform(top, bottom - length)
        square = image.resize(
            (side, side), Image.Resampling.BILINEAR, box=(x, y, x + length, y + length)
        )
        if random.random() < 0.5:
            square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.asarray(square)
        if pixels.ndim == 3:
            return pixels * random.uniform(0.8, 1.2, 3).astype(np.float32)
        dark, light = tints[random.integers(len(tints))]
        ramp = np.linspace(0, 1, 256, dtype=np.float32)
        return _between(_jitter(dark, random), _jitter(light, random), ramp)[pixels]

    return paint


_LEFT, _RIGHT = (0, 0, 0.48, 1), (0.52, 0, 1, 1)
_NO_BOATS = (0.125, 0, 0.55, 1)  # there are some on the lakes beside the pagoda
_GREENS = {
    "train": (((20, 45, 10), (150, 200, 90)), ((30, 50, 15), (180, 200, 100))),
    "val": (((15, 50, 20), (140, 190, 110)), ((40, 55, 10), (190, 195, 90))),
}
_STONES = {
    "train": (((40, 35, 30), (200, 190, 180)), ((30, 35, 40), (170, 180, 190))),
    "val": (((45, 38, 30), (210, 195, 170)), ((35, 35, 35), (185, 185, 185))),
}
_BRICKS = {
    "train": (((70, 40, 35), (230, 170, 150)), ((50, 50, 55), (200, 200, 205))),
    "val": (((80, 50, 35), (235, 185, 150)), ((55, 50, 45), (210, 200, 190))),
}
_ANY = (
    ((20, 20, 60), (200, 210, 250)),
    ((60, 30, 20), (250, 220, 190)),
    ((20, 50, 50), (200, 240, 230)),
    ((30, 30, 30), (225, 225, 225)),
)


def _tracks(stones: Painter) -> Painter:
    """Rails and sleepers on gravel."""

    def paint(side: int, random: Random) -> Picture:
        picture = stones(side, random)
        rows, columns = _axes(side)
        height, gap = random.uniform(0.5, 0.7), random.uniform(0.16, 0.24)
        sleepers = (columns * random.uniform(7, 10) + random.uniform()) % 1 < 0.35
        bed = np.abs(rows - height) < gap
        picture[sleepers & bed] = _jitter((95, 70, 50), random)
        for rail in (height - 0.7 * gap, height + 0.7 * gap):
            picture[np.broadcast_to(np.abs(rows - rail) < 0.018, (side, side))] = (60, 60, 65)
            bright = np.abs(rows - rail + 0.006) < 0.006
            picture[np.broadcast_to(bright, (side, side))] = (200, 200, 205)
        return picture

    return paint


def _split_grounds(split: Split) -> tuple[Ground, ...]:
    train = split == "train"
    half = _LEFT if train else _RIGHT
    grass = _photo("skimage:data/grass.png", half, _GREENS[split])
    gravel = _photo("skimage:data/gravel.png", half, _STONES[split])
    brick = _photo("skimage:data/brick.png", half, _BRICKS[split], (0.6, 1.0))
    shared = (
        Ground("meadow", f"grass photograph, {split} half", grass),
        Ground("tracks", f"rails on gravel, {split} half", _tracks(gravel)),
        Ground("pavement", f"brick photograph, {split} half", brick),
        Ground("plain", f"plain colour, {split}", _plain),
        Ground("plain", f"gradient, {split}", _gradient),
        Ground("plain", f"horizon, {split}", _horizon),
        Ground("plain", f"mottled, {split}", _mottled),
        Ground("photo", f"gravel photograph, {split} half", gravel),
    )
    if train:
        return (
            *shared,
            Ground("sky", "day sky", _sky, ((70, 130, 215), (175, 210, 245))),
            Ground("water", "blue water", _water, ((20, 70, 125), (120, 185, 225))),
            Ground("road", "dark road", _road, ((75, 115), (235, 235, 230))),
            Ground("wood", "oak", _wood, ((95, 55, 25), (205, 150, 95))),
            Ground("carpet", "red carpet", _carpet, ((120, 25, 35), (225, 170, 110))),
            Ground("carpet", "blue carpet", _carpet, ((35, 45, 100), (190, 180, 200))),
            Ground("wallpaper", "rose wallpaper", _wallpaper, ((240, 222, 215), (215, 170, 170))),
            Ground("wallpaper", "green wallpaper", _wallpaper, ((228, 238, 220), (170, 200, 165))),
            Ground("photo", "pagoda", _photo("sklearn:datasets/images/china.jpg", _NO_BOATS)),
            Ground("photo", "galaxies", _photo("skimage:data/hubble_deep_field.jpg")),
            Ground("photo", "moon", _photo("skimage:data/moon.png", tints=_ANY)),
            Ground("photo", "tissue", _photo("skimage:data/ihc.png")),
        )
    return (
        *shared,
        Ground("sky", "hazy sky", _sky, ((95, 150, 210), (200, 220, 240))),
        Ground("water", "green water", _water, ((20, 85, 110), (125, 200, 210))),
        Ground("road", "worn road", _road, ((95, 135), (240, 225, 150))),
        Ground("wood", "walnut", _wood, ((75, 45, 30), (185, 130, 85))),
        Ground("carpet", "wine carpet", _carpet, ((100, 25, 55), (215, 165, 130))),
        Ground("carpet", "grey carpet", _carpet, ((60, 60, 90), (185, 185, 195))),
        Ground("wallpaper", "lilac wallpaper", _wallpaper, ((235, 225, 238), (195, 170, 205))),
        Ground("wallpaper", "sand wallpaper", _wallpaper, ((242, 234, 215), (210, 190, 150))),
        Ground("photo", "dahlia", _photo("sklearn:datasets/images/flower.jpg")),
        Ground("photo", "launch pad", _photo("skimage:data/rocket.jpg")),
        Ground("photo", "retina", _photo("skimage:data/retina.jpg")),
        Ground("photo", "handwriting", _photo("skimage:data/text.png", tints=_ANY, cover=(0.6, 1))),
    )


@lru_cache(maxsize=2)
def grounds(split: Split) -> dict[str, tuple[Ground, ...]]:
    """The grounds of a split by family. Families no class belongs to: plain, photo."""
    families: dict[str, list[Ground]] = {}
    for ground in _split_grounds(split):
        families.setdefault(ground.family, []).append(ground)
    return {name: tuple(families[name]) for name in sorted(families)}
