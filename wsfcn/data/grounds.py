"""Grounds: what emoji scenes are painted on, in families that belong to classes.

Photographs from scikit-image and scikit-learn (those in grey get a tint), and drawings that are
new for every scene. The splits share no part of a photograph, and drawn grounds of classes have
other colours in val. No part that is used shows a VOC class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .artwork import Split, package_file

Picture = NDArray[np.float32]
"""(side, side, 3) float32 in 0..255."""
Random = np.random.Generator
Colour = tuple[int, int, int]
Pair = tuple[Colour, Colour]
"""A dark and a light colour."""

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
    """One kind of ground. `name` tells photographs and drawings apart within a family.

    painter: (side, generator) -> a picture, or a map (side, side) in 0..1 that fades between
    the `colours`, slightly changed; between any two where there are none.
    """

    family: str
    name: str
    painter: Callable[[int, Random], NDArray]
    colours: Pair | None = None

    def paint(self, side: int, random: Random) -> Picture:
        """Draw it anew, `side` px wide."""
        drawn = self.painter(side, random)
        return _in_colours(drawn, random, self.colours) if drawn.ndim == 2 else drawn


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


def _in_colours(value: NDArray, random: Random, colours: Pair | None) -> NDArray:
    """From the first colour where the map is 0 to the second where it is 1."""
    if colours is None:
        start, end = _any_colour(random), _any_colour(random)
    else:
        start, end = (_jitter(colour, random) for colour in colours)
    return start + np.clip(value, 0, 1)[..., None] * (end - start)


def _jitter(colour: Colour, random: Random) -> NDArray:
    return np.asarray(colour, np.float32) + random.uniform(-18, 18, 3).astype(np.float32)


def _any_colour(random: Random) -> NDArray:
    """Any lightness, never garish."""
    colour = random.uniform(20, 245, 3).astype(np.float32)
    return (0.6 * colour + 0.4 * colour.mean()).astype(np.float32)


def _sky(side: int, random: Random, colours: Pair) -> Picture:
    picture = _in_colours(np.repeat(_axes(side)[0], side, 1), random, colours)
    clouds = _noise(side, random, (3, 5), 4) * 0.35 + random.uniform(-0.4, 0.3)
    return picture + np.clip(clouds, 0, 1)[..., None] * (250 - picture)


def _water(side: int, random: Random) -> NDArray:
    rows, _ = _axes(side)
    swell = _noise(side, random, (3, 8))
    waves = np.sin(rows * random.uniform(50, 90) + swell * 1.5)
    return 0.45 + 0.22 * waves + 0.14 * _noise(side, random, (8, 40), 1)


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


def _wood(side: int, random: Random) -> NDArray:
    planks = int(random.integers(4, 8))
    rows, _ = _axes(side)
    grain = _noise(side, random, (2, 30), 2) * 0.16
    tones = random.uniform(0.25, 0.75, planks + 1).astype(np.float32)
    seam = (rows * planks) % 1 < planks * max(0.008, 1 / side)
    value = np.where(seam, -0.2, grain + tones[(rows * planks).astype(int)])
    return value.T if random.random() < 0.5 else value


def _carpet(side: int, random: Random) -> NDArray:
    rows, columns = _axes(side)
    count = random.uniform(4, 8)
    diamonds = np.abs((rows * count) % 1 - 0.5) + np.abs((columns * count) % 1 - 0.5)
    value = np.where(diamonds < random.uniform(0.25, 0.4), 0.85, 0.2)
    value = np.where(np.abs(diamonds - 0.5) < 0.05, 0.6, value)
    return value + random.standard_normal((side, side), np.float32) * 0.1


def _wallpaper(side: int, random: Random) -> NDArray:
    rows, columns = _axes(side)
    count = random.uniform(5, 10)
    stripes = np.clip(np.sin(columns * count * 2 * np.pi) * 2 + 0.5, 0, 1)
    dots = np.cos(columns * count * 2 * np.pi) * np.cos(rows * count * 2 * np.pi)
    value = stripes + 0 * rows if random.random() < 0.5 else np.clip(dots * 4 - 2, 0, 1)
    return value + _noise(side, random, (2, 2), 1) * 0.05


def _plain(side: int, random: Random) -> Picture:
    return np.tile(_any_colour(random), (side, side, 1))


def _gradient(side: int, random: Random) -> NDArray:
    rows, columns = _axes(side)
    angle = random.uniform(0, 2 * np.pi)
    return 0.5 + 0.7 * (np.cos(angle) * (rows - 0.5) + np.sin(angle) * (columns - 0.5))


def _horizon(side: int, random: Random) -> NDArray:
    rows, columns = _axes(side)
    edge = random.uniform(0.3, 0.7) + random.uniform(-0.2, 0.2) * (columns - 0.5)
    return (rows - edge) * side


def _mottled(side: int, random: Random) -> NDArray:
    return 0.5 + 0.25 * _noise(side, random, (4, 4), 4)


# --- photographs -----------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _photograph(file: str) -> Image.Image:
    package, folder = "scikit-image", "data"
    if file in ("china.jpg", "flower.jpg"):
        package, folder = "scikit-learn", "datasets/images"
    with Image.open(package_file(package, f"{folder}/{file}")) as image:
        picture = image.convert("L" if image.mode == "L" else "RGB")
    picture.thumbnail((768, 768))  # crops of a larger one would only cost time
    return picture


def _photo(
    side: int,
    random: Random,
    file: str,
    part: tuple[float, ...] = (0, 0, 1, 1),
    tints: tuple[Pair, ...] = (),
    least: float = 0.4,
) -> Picture:
    """A random square of a part of a photograph, sometimes mirrored.

    part: left, top, right, bottom as shares. least: the smallest square, as a share of the
    part's shorter side. tints: of photographs in grey, one is chosen.
    """
    image = _photograph(file)
    left, top, right, bottom = (e * length for e, length in zip(part, image.size * 2, strict=True))
    length = random.uniform(least, 1) * min(right - left, bottom - top)
    x, y = random.uniform(left, right - length), random.uniform(top, bottom - length)
    box = (x, y, x + length, y + length)
    square = image.resize((side, side), Image.Resampling.BILINEAR, box)
    if random.random() < 0.5:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(square)
    if pixels.ndim == 3:
        return pixels * random.uniform(0.8, 1.2, 3).astype(np.float32)
    ramp = np.linspace(0, 1, 256, dtype=np.float32)
    return _in_colours(ramp, random, tints[random.integers(len(tints))])[pixels]


def _tracks(side: int, random: Random, stones: Callable[[int, Random], Picture]) -> Picture:
    """Rails and sleepers on gravel."""
    picture = stones(side, random)
    rows, columns = _axes(side)
    height, gap = random.uniform(0.5, 0.7), random.uniform(0.16, 0.24)
    sleepers = (columns * random.uniform(7, 10) + random.uniform()) % 1 < 0.35
    picture[sleepers & (np.abs(rows - height) < gap)] = _jitter((95, 70, 50), random)
    for rail in (height - 0.7 * gap, height + 0.7 * gap):
        picture[np.abs(rows - rail)[:, 0] < 0.018] = (60, 60, 65)
        picture[np.abs(rows - rail + 0.006)[:, 0] < 0.006] = (200, 200, 205)
    return picture


_LEFT, _RIGHT = (0, 0, 0.48, 1), (0.52, 0, 1, 1)
_NO_BOATS = (0.125, 0, 0.55, 1)  # there are some on the lakes beside the pagoda
_TINTS: dict[Split, tuple[tuple[Pair, Pair], ...]] = {  # of grass, gravel, bricks
    "train": (
        (((20, 45, 10), (150, 200, 90)), ((30, 50, 15), (180, 200, 100))),
        (((40, 35, 30), (200, 190, 180)), ((30, 35, 40), (170, 180, 190))),
        (((70, 40, 35), (230, 170, 150)), ((50, 50, 55), (200, 200, 205))),
    ),
    "val": (
        (((15, 50, 20), (140, 190, 110)), ((40, 55, 10), (190, 195, 90))),
        (((45, 38, 30), (210, 195, 170)), ((35, 35, 35), (185, 185, 185))),
        (((80, 50, 35), (235, 185, 150)), ((55, 50, 45), (210, 200, 190))),
    ),
}
_ANY = (
    ((20, 20, 60), (200, 210, 250)),
    ((60, 30, 20), (250, 220, 190)),
    ((20, 50, 50), (200, 240, 230)),
    ((30, 30, 30), (225, 225, 225)),
)
_OWN: dict[Split, tuple[Ground, ...]] = {  # what the other split has not
    "train": (
        Ground("sky", "day sky", partial(_sky, colours=((70, 130, 215), (175, 210, 245)))),
        Ground("water", "blue water", _water, ((20, 70, 125), (120, 185, 225))),
        Ground("road", "dark road", partial(_road, tone=(75, 115), line=(235, 235, 230))),
        Ground("wood", "oak", _wood, ((95, 55, 25), (205, 150, 95))),
        Ground("carpet", "red carpet", _carpet, ((120, 25, 35), (225, 170, 110))),
        Ground("carpet", "blue carpet", _carpet, ((35, 45, 100), (190, 180, 200))),
        Ground("wallpaper", "rose wallpaper", _wallpaper, ((240, 222, 215), (215, 170, 170))),
        Ground("wallpaper", "green wallpaper", _wallpaper, ((228, 238, 220), (170, 200, 165))),
        Ground("photo", "pagoda", partial(_photo, file="china.jpg", part=_NO_BOATS)),
        Ground("photo", "galaxies", partial(_photo, file="hubble_deep_field.jpg")),
        Ground("photo", "moon", partial(_photo, file="moon.png", tints=_ANY)),
        Ground("photo", "tissue", partial(_photo, file="ihc.png")),
    ),
    "val": (
        Ground("sky", "hazy sky", partial(_sky, colours=((95, 150, 210), (200, 220, 240)))),
        Ground("water", "green water", _water, ((20, 85, 110), (125, 200, 210))),
        Ground("road", "worn road", partial(_road, tone=(95, 135), line=(240, 225, 150))),
        Ground("wood", "walnut", _wood, ((75, 45, 30), (185, 130, 85))),
        Ground("carpet", "wine carpet", _carpet, ((100, 25, 55), (215, 165, 130))),
        Ground("carpet", "grey carpet", _carpet, ((60, 60, 90), (185, 185, 195))),
        Ground("wallpaper", "lilac wallpaper", _wallpaper, ((235, 225, 238), (195, 170, 205))),
        Ground("wallpaper", "sand wallpaper", _wallpaper, ((242, 234, 215), (210, 190, 150))),
        Ground("photo", "dahlia", partial(_photo, file="flower.jpg")),
        Ground("photo", "launch pad", partial(_photo, file="rocket.jpg")),
        Ground("photo", "retina", partial(_photo, file="retina.jpg")),
        Ground("photo", "handwriting", partial(_photo, file="text.png", tints=_ANY, least=0.6)),
    ),
}


@lru_cache(maxsize=2)
def grounds(split: Split) -> dict[str, tuple[Ground, ...]]:
    """The grounds of a split by family. Families no class belongs to: plain, photo."""
    half = partial(_photo, part=_LEFT if split == "train" else _RIGHT)
    grass, gravel, brick = _TINTS[split]
    stones = partial(half, file="gravel.png", tints=gravel)
    bricks = partial(half, file="brick.png", tints=brick, least=0.6)
    shared = (
        ("meadow", "grass photograph", partial(half, file="grass.png", tints=grass)),
        ("tracks", "rails on gravel", partial(_tracks, stones=stones)),
        ("pavement", "brick photograph", bricks),
        ("plain", "plain colour", _plain),
        ("plain", "gradient", _gradient),
        ("plain", "horizon", _horizon),
        ("plain", "mottled", _mottled),
        ("photo", "gravel photograph", stones),
    )
    every = [Ground(family, f"{name}, {split}", painter) for family, name, painter in shared]
    every += _OWN[split]
    families = sorted({ground.family for ground in every})
    return {name: tuple(g for g in every if g.family == name) for name in families}
