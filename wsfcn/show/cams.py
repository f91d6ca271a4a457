"""Figures of the notebook 01_cams: photos with heat maps, thresholds, and masks side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from ..data.sample import IGNORE, Sample
from .colours import class_colours, overlay
from .figures import ShownFigure
from .segmentation import percent

Image8 = NDArray[np.uint8]  # (H, W, 3) RGB
Labels = NDArray[np.uint8]  # (H, W), 0 background, 255 ignore
Map = NDArray[np.float32]  # (h, w) in [0, 1]

HEAT = "inferno"  # lightness rises evenly along it, so it reads in grey and by everyone
STRENGTH = 0.62  # of the heat over the photo
BLUE, ORANGE, PURPLE, INK = "#0072B2", "#E69F00", "#CC79A7", "#262626"
VERDICTS = {  # what became of a pixel: colour
    "object found": BLUE,
    "object missed": ORANGE,
    "background claimed": PURPLE,
    "wrong class": INK,
}

# The names behind the numbers that these photos bring up (ILSVRC 2012, WordNet's first word).
IMAGENET_NAMES = {
    281: "tabby",
    282: "tiger cat",
    283: "Persian cat",
    285: "Egyptian cat",
    287: "lynx",
    479: "car wheel",
    504: "coffee mug",
    517: "crane",
    518: "crash helmet",
    535: "disc brake",
    540: "drilling platform",
    657: "missile",
    661: "Model T",
    665: "moped",
    670: "motor scooter",
    671: "mountain bike",
    733: "pole",
    744: "projectile",
    809: "soup bowl",
    812: "space shuttle",
    870: "tricycle",
    904: "window screen",
    925: "consomme",
    960: "chocolate sauce",
    967: "espresso",
    968: "cup",
}


def imagenet_name(index: int) -> str:
    """The name of an ImageNet class, or its number where the photos of the course lack it."""
    if not 0 <= index < 1000:
        raise ValueError(f"ImageNet has classes 0 to 999, not {index}")
    return IMAGENET_NAMES.get(index, f"ImageNet class {index}")


def top_classes(
    photos: Mapping[str, Image8], probabilities: Mapping[str, NDArray[np.float32]], count: int = 5
) -> ShownFigure:
    """Each photo beside the bars of its most probable classes; probabilities: (1000,) a photo."""
    figure = ShownFigure(
        figsize=(10.5, 2.35 * len(photos)), dpi=120, layout="constrained", facecolor="white"
    )
    axes = figure.subplots(len(photos), 2, squeeze=False, width_ratios=(1, 1.25))
    told = []
    for (name, photo), (left, right) in zip(photos.items(), axes, strict=True):
        _picture(left, photo)
        left.set_title(name, fontsize=11, loc="left")
        best = np.argsort(-probabilities[name])[:count]
        names = [imagenet_name(int(index)) for index in best]
        values = 100 * probabilities[name][best]
        bars = right.barh(range(count), values, color=[BLUE] + ["#9EC9E2"] * (count - 1))
        right.bar_label(bars, [percent(value / 100) for value in values], padding=4, fontsize=10)
        right.set_yticks(range(count), names, fontsize=10)
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
    figure = ShownFigure(
        figsize=(10.5, rows * (0.3 + 9.6 / columns * tall) + 0.1),
        dpi=130,
        layout="compressed",
        facecolor="white",
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    for (name, photo), row in zip(photos.items(), axes, strict=True):
        _picture(row[0], photo)
        row[0].set_title(f"{name}: {notes[name]}", fontsize=10, loc="left")
        for axis, (title, of_photo) in zip(row[1:], maps.items(), strict=True):
            _heat(axis, photo, of_photo[name])
            height, width = of_photo[name].shape
            axis.set_title(f"{title}: {height} by {width} cells", fontsize=10)
    _heat_bar(figure, axes)
    figure.alt = (
        f"Class activation maps over photos ({', '.join(photos)}), one column for each of "
        f"{', '.join(maps)}. Bright: strong evidence for the class; a white line at half the "
        "maximum. From left to right the cells get finer, and the bright place stays where it is."
    )
    return figure


def verdict_grid(
    samples: Sequence[Sample], heat: Sequence[Map], found: Mapping[str, Sequence[Labels]]
) -> ShownFigure:
    """A row for each scene: image, heat, and for each of `found` what became of every pixel."""
    figure, axes = _grid(len(samples), 2 + len(found), 9.8, 0.05, 0.6)
    titles = ["scene", "strongest CAM", *found]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    for index, (sample, row) in enumerate(zip(samples, axes, strict=True)):
        _picture(row[0], sample.image)
        _heat(row[1], sample.image, heat[index])
        for axis, labels in zip(row[2:], found.values(), strict=True):
            _picture(axis, _judged(sample, labels[index]))
    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in VERDICTS.items()],
        loc="outside lower center",
        ncols=len(VERDICTS),
        frameon=False,
        fontsize=10,
    )
    _heat_bar(figure, axes)
    figure.alt = (
        f"{len(samples)} scenes, their class activation maps, and the pixels that become object "
        f"at {', '.join(found)}: found, missed, claimed from "
        "the background, or given to a wrong class. Low thresholds claim background, high ones "
        "miss parts of the object."
    )
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
    figure = ShownFigure(figsize=(10.5, 3.7), dpi=120, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    left.plot(
        thresholds,
        100 * np.asarray(found),
        color=BLUE,
        marker="o",
        ms=4,
        label="of the object: found",
    )
    left.plot(
        thresholds,
        100 * np.asarray(claimed),
        color=PURPLE,
        marker="s",
        ms=4,
        label="of the background: claimed",
    )
    left.set(title="What the threshold keeps", ylabel="share of the area, %", ylim=(0, 105))
    styles = zip(quality.items(), ((BLUE, "o", "-"), ("#D55E00", "s", "--")), strict=False)
    for (name, values), (colour, marker, line) in styles:
        right.plot(
            thresholds,
            100 * np.asarray(values),
            color=colour,
            marker=marker,
            ms=4,
            ls=line,
            label=name,
        )
    first = np.asarray(next(iter(quality.values())))
    right.plot(best, 100 * first.max(), "o", ms=13, mfc="none", mec=INK, mew=1.6)
    right.axhline(100 * ceiling, color="0.45", ls=":", label="exact masks on the CAM's grid")
    right.set(title="How good the masks are", ylabel="mIoU, %", ylim=(0, 100))
    for axis in (left, right):
        axis.legend(
            fontsize=9,
            loc="upper right",
            bbox_to_anchor=(1, 1 if axis is left else 0.86),
            framealpha=0.9,
            edgecolor="none",
        )
        axis.axvline(best, color="0.6", lw=1, zorder=0)
        axis.set(xlabel="threshold, share of the CAM's maximum", xlim=(0, 1))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    left.annotate(
        f"best: {best:g}",
        (best, 0),
        (4, 4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=9,
    )
    figure.alt = (
        f"Left: from threshold {thresholds[0]:g} to {thresholds[-1]:g} the share of the object "
        f"that is found falls from {100 * found[0]:.0f} to {100 * found[-1]:.0f} %, the share of "
        f"the background that is claimed from {100 * claimed[0]:.0f} to {100 * claimed[-1]:.0f} "
        f"%. Right: mIoU is highest, {100 * first.max():.1f} %, at {best:g}; the exact masks on "
        f"the same grid would have {100 * ceiling:.1f} %."
    )
    return figure


def mask_grid(
    samples: Sequence[Sample],
    masks: Mapping[str, Sequence[Labels]],
    scores: Mapping[str, Sequence[float]],
    classes: Sequence[str],
) -> ShownFigure:
    """A row for each scene: image, the masks of each method with their IoU, the exact mask."""
    figure, axes = _grid(len(samples), 2 + len(masks), 10.4, 0.28, 0.35)
    colours = class_colours(len(classes) + 1)
    for axis, title in zip(axes[0], ("scene", *masks, "exact mask"), strict=True):
        axis.annotate(
            title,
            (0.5, 1.0),
            (0, 20),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontsize=11,
            fontweight="bold",
        )
    told = []
    for index, (sample, row) in enumerate(zip(samples, axes, strict=True)):
        assert sample.mask is not None
        present = [classes[k] for k in np.flatnonzero(sample.labels).tolist()]
        _picture(row[0], sample.image)
        row[0].set_title(" + ".join(present), fontsize=10)
        words = []
        for axis, (method, labels) in zip(row[1:-1], masks.items(), strict=True):
            _picture(axis, _tinted(sample.image, labels[index], colours))
            _names(axis, labels[index], classes)
            value = 100 * float(scores[method][index])
            axis.set_title(f"IoU {value:.0f} %", fontsize=10)
            words.append(f"{method} {value:.0f} %")
        _picture(row[-1], _tinted(sample.image, sample.mask, colours))
        _names(row[-1], sample.mask, classes)
        told.append(f"{' and '.join(present)}: {', '.join(words)}")
    figure.alt = "Masks beside the exact ones, with their IoU. " + "; ".join(told)
    return figure


def _grid(
    rows: int, columns: int, width: float, gap: float, head: float
) -> tuple[ShownFigure, Any]:
    """Square cells in `width` inches, with `gap` inches between rows and `head` around all."""
    side = width / columns
    figure = ShownFigure(
        figsize=(10.5, rows * (side + gap) + head),
        dpi=130,
        layout="compressed",
        facecolor="white",
    )
    return figure, figure.subplots(rows, columns, squeeze=False)


def _picture(axis: Axes, image: Image8) -> None:
    axis.imshow(image, interpolation="antialiased")
    axis.set_axis_off()


def _heat(axis: Axes, image: Image8, heat: Map) -> None:
    """The heat over the image in grey, smoothly enlarged, with a line at half the maximum."""
    grey = np.asarray(Image.fromarray(image).convert("L"))
    size = (image.shape[1], image.shape[0])
    fine = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
    axis.imshow(grey, cmap="gray", vmin=0, vmax=255)
    axis.imshow(fine, cmap=HEAT, vmin=0, vmax=1, alpha=STRENGTH)
    if fine.max() > 0.5:
        axis.contour(fine, levels=[0.5], colors="white", linewidths=1.4)
    axis.set_axis_off()


def _heat_bar(figure: ShownFigure, axes: Any) -> None:
    bar = figure.colorbar(
        ScalarMappable(cmap=HEAT), ax=axes, fraction=0.02, pad=0.01, aspect=40, shrink=0.75
    )
    bar.set_label("evidence, share of the map's maximum", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.ax.axhline(0.5, color="white", lw=1.4)


def _judged(sample: Sample, labels: Labels) -> Image8:
    """The image in pale grey, every pixel that counts tinted by its verdict."""
    assert sample.mask is not None
    truth, counts = sample.mask, sample.mask != IGNORE
    verdicts = np.zeros(truth.shape, np.uint8)
    verdicts[counts & (truth > 0) & (labels == truth)] = 1
    verdicts[counts & (truth > 0) & (labels == 0)] = 2
    verdicts[counts & (truth == 0) & (labels > 0)] = 3
    verdicts[counts & (truth > 0) & (labels > 0) & (labels != truth)] = 4
    rgb = [tuple(bytes.fromhex(colour[1:])) for colour in ("#FFFFFF", *VERDICTS.values())]
    return _tinted(sample.image, verdicts, np.array(rgb, np.uint8), 0.75)


def _tinted(image: Image8, labels: Labels, colours: Image8, alpha: float = 0.65) -> Image8:
    """The image in pale grey, three times as large, with tinted and outlined labels."""
    size = (3 * image.shape[1], 3 * image.shape[0])
    grey = Image.fromarray(image).convert("L").resize(size, Image.Resampling.BICUBIC)
    pale = (120 + 0.5 * np.asarray(grey, np.float32)).astype(np.uint8)
    fine = labels.repeat(3, 0).repeat(3, 1)
    return overlay(np.repeat(pale[..., None], 3, 2), fine, alpha, colours)


def _names(axis: Axes, labels: Labels, classes: Sequence[str]) -> None:
    """The names of the classes in the picture, where each has most of its pixels."""
    for value in np.unique(labels[(labels > 0) & (labels < IGNORE)]):
        rows, columns = np.nonzero(labels == value)
        if len(rows) < 0.01 * labels.size:
            continue
        axis.text(
            3 * float(np.median(columns)),
            3 * float(np.median(rows)),
            classes[int(value) - 1],
            fontsize=8.5,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1.2},
        )
