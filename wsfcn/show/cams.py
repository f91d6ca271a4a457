"""Figures of the notebook 01_cams: photos with heat maps, thresholds, and masks side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgba_array
from numpy.typing import NDArray
from PIL import Image

from ..data.sample import IGNORE, Sample
from ..segmentation import Segmentation
from .figures import ShownFigure
from .panels import BLUE, ORANGE, PURPLE, Image8, Labels, painted, plain, present, show, swatches
from .segmentation import percent

Map = NDArray[np.float32]  # (h, w) in [0, 1]

HEAT = "inferno"  # lightness rises evenly along it, so it reads in grey and by everyone
VERDICTS = {  # what became of a pixel: colour
    "object found": BLUE,
    "object missed": "#E69F00",
    "background claimed": PURPLE,
    "wrong class": "#262626",
}
_VERDICT_COLOURS = np.rint(255 * to_rgba_array(["w", *VERDICTS.values()])[:, :3]).astype(np.uint8)

# The names behind the numbers that these photos bring up (ILSVRC 2012, WordNet's first word).
_NAMES = """281 tabby, 282 tiger cat, 283 Persian cat, 285 Egyptian cat, 287 lynx, 479 car wheel,
504 coffee mug, 517 crane, 518 crash helmet, 535 disc brake, 540 drilling platform, 657 missile,
661 Model T, 665 moped, 670 motor scooter, 671 mountain bike, 733 pole, 744 projectile,
809 soup bowl, 812 space shuttle, 870 tricycle, 904 window screen, 925 consomme,
960 chocolate sauce, 967 espresso, 968 cup"""
IMAGENET_NAMES = {int(n): name for n, name in (s.split(maxsplit=1) for s in _NAMES.split(","))}


def imagenet_name(index: int) -> str:
    """The name of an ImageNet class, or its number where the photos of the course lack it."""
    return IMAGENET_NAMES.get(index, f"ImageNet class {index}")


def top_classes(
    photos: Mapping[str, Image8], probabilities: Mapping[str, NDArray[np.float32]], count: int = 5
) -> ShownFigure:
    """Each photo beside the bars of its most probable classes; probabilities: (1000,) a photo."""
    figure = ShownFigure(10.5, 2.35 * len(photos))
    axes = figure.subplots(len(photos), 2, squeeze=False, width_ratios=(1, 1.25))
    told = []
    for (name, photo), (left, right) in zip(photos.items(), axes, strict=True):
        show(left, photo, name)
        best = np.argsort(-probabilities[name])[:count]
        names, values = [imagenet_name(int(i)) for i in best], 100 * probabilities[name][best]
        bars = right.barh(range(count), values, color=[BLUE] + ["#9EC9E2"] * (count - 1))
        right.bar_label(bars, [percent(value / 100) for value in values], padding=4)
        right.set_yticks(range(count), names)
        right.set(xlim=(0, 100), ylim=(count - 0.4, -0.6))
        right.tick_params(length=0, labelbottom=False)
        right.spines[["top", "right", "bottom"]].set_visible(False)
        told.append(f"{name}: {names[0]} {values[0]:.0f} %, then {names[1]} {values[1]:.0f} %")
    axes[0, 1].set_title("probability, the five highest", fontsize=11, loc="left")
    figure.alt = "Photos with the classes that the classifier gives them. " + "; ".join(told)
    return figure


def heat_grid(
    photos: Mapping[str, Image8], maps: Mapping[str, Mapping[str, Map]], notes: Mapping[str, str]
) -> ShownFigure:
    """A row for each photo: as it is, then under each of its maps (column title -> photo -> map).

    notes: a line under the photo's name, such as the class that the maps are of.
    """
    rows, columns = len(photos), 1 + len(maps)
    tall = max(photo.shape[0] / photo.shape[1] for photo in photos.values())
    alt = (
        f"Class activation maps over photos ({', '.join(photos)}), one column for each of "
        f"{', '.join(maps)}. Bright: strong evidence; white line: half the maximum. From left to "
        "right the cells get finer, and the bright place stays where it is."
    )
    height = rows * (0.3 + 9.6 / columns * tall) + 0.1
    figure = ShownFigure(10.5, height, alt, layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    for (name, photo), row in zip(photos.items(), axes, strict=True):
        show(row[0], photo, f"{name}: {notes[name]}")
        for axis, (title, of_photo) in zip(row[1:], maps.items(), strict=True):
            high, wide = of_photo[name].shape
            _heat(axis, photo, of_photo[name], f"{title}: {high} by {wide} cells")
    _heat_bar(figure, axes)
    return figure


def verdict_grid(
    samples: Sequence[Sample], heat: Sequence[Map], found: Mapping[str, Sequence[Labels]]
) -> ShownFigure:
    """A row for each scene: image, heat, and for each of `found` what became of every pixel."""
    rows, columns = len(samples), 2 + len(found)
    alt = (
        f"{rows} scenes, their class activation maps, and for {', '.join(found)} which pixels are "
        "found, missed, claimed from the background, or given to a wrong class"
    )
    height = rows * (9.8 / columns + 0.05) + 0.6
    figure = ShownFigure(10.5, height, alt, layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    for index, (sample, row) in enumerate(zip(samples, axes, strict=True)):
        show(row[0], sample.image)
        _heat(row[1], sample.image, heat[index])
        for axis, labels in zip(row[2:], found.values(), strict=True):
            show(axis, _judged(sample, labels[index]))
    for axis, title in zip(axes[0], ("scene", "strongest CAM", *found), strict=True):
        axis.set_title(title, fontsize=11)
    handles = swatches(dict(zip(VERDICTS, _VERDICT_COLOURS[1:], strict=True)))
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": len(VERDICTS)}
    figure.legend(handles=handles, frameon=False, **place)
    _heat_bar(figure, axes)
    return figure


def threshold_curves(
    thresholds: Sequence[float],
    found: Sequence[float],
    claimed: Sequence[float],
    quality: Mapping[str, Sequence[float]],
    best: float,
    ceiling: float,
) -> ShownFigure:
    """The two shares (left) and the mIoU (right) along the threshold, the best one marked.

    All values are fractions. quality: name -> mIoU for each threshold, the first is marked.
    ceiling: mIoU of the exact masks at the resolution of the CAMs.
    """
    top = 100 * max(next(iter(quality.values())))
    ends = [100 * share for share in (found[0], found[-1], claimed[0], claimed[-1])]
    alt = (
        f"Left: from threshold {thresholds[0]:g} to {thresholds[-1]:g} the share of the object "
        "that is found falls from {:.0f} to {:.0f} %, the share of the background that is claimed "
        f"from {{:.0f}} to {{:.0f}} %. Right: mIoU is highest, {top:.1f} %, at {best:g}; the "
        f"exact masks on the same grid would have {100 * ceiling:.1f} %."
    ).format(*ends)
    figure = ShownFigure(10.5, 3.7, alt)
    left, right = figure.subplots(1, 2)
    shares = {"of the object: found": found, "of the background: claimed": claimed}
    for axis, curves, second in ((left, shares, (PURPLE, "s-")), (right, quality, (ORANGE, "s--"))):
        for (name, values), (colour, style) in zip(
            curves.items(), ((BLUE, "o-"), second), strict=False
        ):
            percents = 100 * np.asarray(values)
            axis.plot(thresholds, percents, style, color=colour, ms=4, label=name)
        axis.axvline(best, color="0.6", lw=1, zorder=0)
        axis.set(xlabel="threshold, share of the CAM's maximum", xlim=(0, 1))
        plain(axis)
    left.set(title="What the threshold keeps", ylabel="share of the area, %", ylim=(0, 105))
    right.set(title="How good the masks are", ylabel="mIoU, %", ylim=(0, 100))
    right.plot(best, top, "o", ms=13, mfc="none", mec="0.2", mew=1.6)
    right.axhline(100 * ceiling, color="0.45", ls=":", label="exact masks on the CAM's grid")
    left.legend(frameon=False, loc="upper right")
    right.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.86))
    left.annotate(f"best: {best:g}", (best, 0), (4, 4), textcoords="offset points")
    return figure


def mask_grid(
    samples: Sequence[Sample],
    masks: Mapping[str, Sequence[Labels]],
    scores: Mapping[str, Sequence[float]],
    classes: Sequence[str],
) -> ShownFigure:
    """A row for each scene: image, the masks of each method with their IoU, the exact mask."""
    rows, columns = len(samples), 2 + len(masks)
    figure = ShownFigure(10.5, rows * (10.4 / columns + 0.28) + 0.35, layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False)
    told = []
    for index, (sample, row) in enumerate(zip(samples, axes, strict=True)):
        assert sample.mask is not None
        names = [*present(sample.labels, classes).values()]
        show(row[0], sample.image, " + ".join(names))
        values = {method: f"{100 * scores[method][index]:.0f} %" for method in masks}
        for axis, method in zip(row[1:-1], masks, strict=True):
            _masked(axis, sample.image, masks[method][index], classes, f"IoU {values[method]}")
        _masked(row[-1], sample.image, sample.mask, classes)
        told.append(f"{' and '.join(names)}: {', '.join(f'{m} {v}' for m, v in values.items())}")
    above = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center"}
    for axis, title in zip(axes[0], ("scene", *masks, "exact mask"), strict=True):
        axis.annotate(fill(title, 14), (0.5, 1), (0, 22), fontsize=11, fontweight="bold", **above)
    figure.alt = "Masks beside the exact ones, with their IoU. " + "; ".join(told)
    return figure


def photo_grid(
    results: Mapping[str, Segmentation], maps: Mapping[str, tuple[str, Map, Map]]
) -> ShownFigure:
    """A row for each photo: image, CAM and mask of one class as heat, the label map with names.

    maps: photo -> name of the class, its CAM, and its share of each pixel in the network's masks.
    """
    tall = [one.image.shape[0] / one.image.shape[1] for one in results.values()]
    figure = ShownFigure(10.5, 2.4 * sum(tall) + 0.55 * len(tall), layout="compressed")
    axes = figure.subplots(len(tall), 4, squeeze=False, height_ratios=tall)
    told = []
    for (name, one), row in zip(results.items(), axes, strict=True):
        kind, *heats = maps[name]
        score = percent(float(one.scores[one.classes.index(kind)]))
        show(row[0], one.image, name)
        for axis, heat, title in zip(
            row[1:], heats, (f"CAM: {kind}", f"mask: {kind}"), strict=False
        ):
            _heat(axis, one.image, heat, title)
        row[1].set_xlabel(f"score of {kind}: {score}", fontsize=9)
        _masked(row[3], one.image, one.labels, one.classes, "label map")
        areas = one.areas()
        found = ", ".join(f"{n} {percent(areas[n])}" for n in one.found) or "no class found"
        row[3].set_xlabel(found, fontsize=9)
        told.append(f"{name}: {kind} scores {score}; {found}")
    figure.alt = "Photos, CAMs and masks of a class, label maps. " + "; ".join(told)
    _heat_bar(figure, axes, "CAM: evidence; mask: share of a pixel")
    return figure


def _heat(axis: Axes, image: Image8, heat: Map, title: str = "") -> None:
    """The heat over the image in grey, smoothly enlarged, with a line at half the maximum."""
    size = (image.shape[1], image.shape[0])
    fine = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
    show(axis, np.asarray(Image.fromarray(image).convert("L")), cmap="gray", vmin=0, vmax=255)
    show(axis, fine, title, cmap=HEAT, vmin=0, vmax=1, alpha=0.62)
    if fine.max() > 0.5:
        axis.contour(fine, levels=[0.5], colors="white", linewidths=1.4)


def _heat_bar(
    figure: ShownFigure, axes: Any, label: str = "evidence, share of the map's maximum"
) -> None:
    place: dict[str, Any] = {"fraction": 0.02, "pad": 0.01, "aspect": 40, "shrink": 0.75}
    bar = figure.colorbar(ScalarMappable(cmap=HEAT), ax=axes, **place)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.ax.axhline(0.5, color="white", lw=1.4)


def _judged(sample: Sample, labels: Labels) -> Image8:
    """The image in pale grey, every pixel that counts tinted by its verdict."""
    truth = sample.mask
    assert truth is not None
    right, nothing, empty = labels == truth, labels == 0, truth == 0
    conditions = [(truth == IGNORE) | (right & empty), right, nothing, empty]
    verdicts = np.select(conditions, range(4), 4).astype(np.uint8)
    return painted(sample.image, verdicts, colours=_VERDICT_COLOURS)


def _masked(
    axis: Axes, image: Image8, labels: Labels, classes: Sequence[str], title: str = ""
) -> None:
    """The painted labels, and the names of the classes where each has most of its pixels."""
    picture = painted(image, labels, 0.65)
    show(axis, picture, title)
    scale = len(picture) / len(labels)
    box = {"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1.2}
    for value, name in enumerate(classes, 1):
        places = np.argwhere(labels == value)
        if len(places) >= max(1, 0.01 * labels.size):
            y, x = scale * np.median(places, axis=0)
            axis.text(x, y, name, fontsize=8.5, ha="center", va="center", bbox=box)
