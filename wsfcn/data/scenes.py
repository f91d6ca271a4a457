"""Emoji scenes: objects with exact masks on grounds, and knobs for what makes the task hard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..recipes import Scenes
from .artwork import Design, Split, designs, draw
from .grounds import FAMILY_OF, grounds
from .sample import IGNORE, VOC_CLASSES, Sample

T = TypeVar("T")
_SOLID = 0.85  # coverage from which a pixel belongs to an object; below 1 - _SOLID it does not
_TRIES = 12  # places tried for an object before it is made smaller
_SMALLEST = 8  # px; a smaller object would be all border


@dataclass(frozen=True)
class Placed:
    """An object of a scene; `box`: left, top, right, bottom in px; `size`: longer side / side of
    the scene before rotation; `hidden`: share of its mask that other objects cover."""

    design: Design
    box: tuple[int, int, int, int]
    size: float
    hidden: float


@dataclass(frozen=True)
class Scene:
    """A sample, its ground and its objects, the hindmost first; `in_place`: the ground was chosen
    for the classes, not at random."""

    sample: Sample
    ground: str
    family: str
    in_place: bool
    objects: tuple[Placed, ...]


class SceneSet:
    """Scenes drawn on demand, the same for the same (settings, seed, split, index).

    Any 20 scenes from a multiple of 20 on show every class (Twemoji has no diningtable: any 19).
    With probability `co_occurrence` a scene has the ground of its classes, and only classes of
    that ground; otherwise ground and classes are independent: 0 means independence.
    """

    classes: tuple[str, ...] = VOC_CLASSES

    def __init__(self, settings: Scenes, count: int, seed: int, split: Split) -> None:
        if split not in ("train", "val"):
            raise ValueError(f"split: must be 'train' or 'val', not {split!r}")
        if count < 1:
            raise ValueError(f"count: must be at least 1, not {count}")
        if seed < 0:
            raise ValueError(f"seed: must be 0 or more, not {seed}")
        self.settings, self.count, self.seed, self.split = settings, count, seed, split
        self._designs = {k: v for k, v in designs(settings.artwork, split).items() if v}
        draw(self._designs["cat"][0], 64)  # a missing package is reported here

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return self.scene(index).sample

    def scene(self, index: int, moved_to: str | None = None) -> Scene:
        """The sample with its ground and objects; moved_to: the same on a ground of that family."""
        if not -self.count <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        index %= self.count
        settings, random = self.settings, _random(self.seed, self.split, 0, index)

        main = self._main_class(index)
        in_place = bool(random.random() < settings.co_occurrence)
        families = grounds(self.split)
        at_random = _choice([*families], random)
        family = FAMILY_OF[main] if in_place else at_random
        ground = _choice(families[family], random)
        pool = [n for n in self._designs if FAMILY_OF[n] == family or not in_place]
        count = int(random.integers(settings.objects[0], settings.objects[1] + 1))
        names = [main, *(_choice(pool, random) for _ in range(count - 1))]

        picture = ground.paint(settings.size, random)
        if moved_to is not None:
            elsewhere = _random(self.seed, self.split, 2, index)
            ground = _choice(families[moved_to], elsewhere)
            in_place, picture = False, ground.paint(settings.size, elsewhere)
        canvas = _Canvas(picture)
        for name in names:
            canvas.place(_choice(self._designs[name], random), settings, random)
        image, mask = np.rint(canvas.picture).astype(np.uint8), canvas.mask
        present = np.isin(np.arange(1, len(self.classes) + 1), mask)
        name = f"{self.split}-{self.seed}-{index:06d}"
        sample = Sample(name, image, present.astype(np.float32), mask)
        return Scene(sample, ground.name, ground.family, in_place, canvas.placed())

    def _main_class(self, index: int) -> str:
        names = list(self._designs)
        turn, place = divmod(index, len(names))
        return names[_random(self.seed, self.split, 1, turn).permutation(len(names))[place]]


def _random(seed: int, split: str, stream: int, index: int) -> np.random.Generator:
    """A generator that depends on its key alone."""
    key = [seed, 0 if split == "train" else 1, stream, index]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _choice(options: Sequence[T], random: np.random.Generator) -> T:
    return options[int(random.integers(len(options)))]


class _Canvas:
    """A picture on which objects are placed one over the other."""

    def __init__(self, picture: NDArray) -> None:
        self.picture = np.clip(picture, 0, 255).astype(np.float32)
        self.side = len(picture)
        self.mask = np.zeros(picture.shape[:2], np.uint8)
        self.owner = np.full(picture.shape[:2], -1, np.int16)  # which object is seen
        self.objects: list[tuple[Design, tuple[int, int, int, int], float, int]] = []

    def place(self, design: Design, settings: Scenes, random: np.random.Generator) -> None:
        """Put an object where it hides no other too much, smaller if need be, or leave it out."""
        smallest, largest = settings.object_size
        size = random.uniform(smallest, largest)
        while True:
            sprite = _sprite(design, max(_SMALLEST, round(size * self.side)), self.side, random)
            coverage = np.asarray(sprite.getchannel("A"), np.float32) / 255
            solid = coverage > 0.5
            height, width = coverage.shape
            for _ in range(_TRIES):
                top = int(random.integers(self.side - height + 1))
                left = int(random.integers(self.side - width + 1))
                region = (slice(top, top + height), slice(left, left + width))
                owner = self.owner.copy()
                owner[region][solid] = len(self.objects)
                if all(h < 1 and h <= settings.occlusion for h in self._hidden(owner)):
                    self.owner = owner
                    box = (left, top, left + width, top + height)
                    self.objects.append((design, box, size, int(solid.sum())))
                    under, labels = self.picture[region], self.mask[region]
                    under += coverage[..., None] * (np.asarray(sprite)[..., :3] - under)
                    labels[coverage > 1 - _SOLID] = IGNORE
                    labels[coverage >= _SOLID] = VOC_CLASSES.index(design.class_name) + 1
                    return
            if size <= smallest:
                return
            size = max(smallest, 0.75 * size)

    def _hidden(self, owner: NDArray) -> list[float]:
        """The share of each object's mask that others cover."""
        visible = np.bincount(owner[owner >= 0], minlength=len(self.objects))
        return [1 - visible[i] / max(1, total) for i, (*_, total) in enumerate(self.objects)]

    def placed(self) -> tuple[Placed, ...]:
        """The objects so far, the hindmost first."""
        hidden = self._hidden(self.owner)
        return tuple(Placed(*o[:3], hidden=h) for o, h in zip(self.objects, hidden, strict=True))


def _sprite(design: Design, side: int, limit: int, random: np.random.Generator) -> Image.Image:
    """The design at a size in px, mirrored and rotated a little, its colours slightly changed."""
    master = draw(design, 1 << max(5, (side - 1).bit_length()))
    if random.random() < 0.5:
        master = master.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned = master.rotate(random.uniform(-12, 12), Image.Resampling.BILINEAR, expand=True)
    scale = min(side / max(master.size), limit / max(turned.size))
    width, height = (max(1, round(length * scale)) for length in turned.size)
    sprite = turned.resize((width, height), Image.Resampling.HAMMING)
    matrix = _colour_change(random.uniform(-0.12, 0.12), random.uniform(0.85, 1.1))
    colours = sprite.convert("RGB").convert("RGB", matrix)
    colours.putalpha(sprite.getchannel("A"))
    return colours


def _colour_change(hue: float, brightness: float) -> tuple[float, ...]:
    """The 3 x 4 matrix that turns RGB about the grey axis by `hue` rad and scales it."""
    cos, sin = np.cos(hue), np.sin(hue) / np.sqrt(3)
    same, other = (1 + 2 * cos) / 3, (1 - cos) / 3
    up, down = other + sin, other - sin
    rows = (same, down, up, 0), (up, same, down, 0), (down, up, same, 0)
    return tuple(float(brightness * value) for row in rows for value in row)
