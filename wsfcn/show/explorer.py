"""The CAM explorer: every stage between a photo and its mask, under the reader's hand.

`explore` runs a network once and keeps its maps as whole numbers; `Explorer` hands them to the
browser, where threshold, class, curtain and PAMR need no kernel. The script beside this file
computes what `State.labels` does, from the same numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import traitlets
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor

from ..data.sample import Sample
from ..data.transforms import to_tensor
from ..model.decoder import with_background
from ..model.layers import resize
from ..model.network import Network
from ..predict import _evaluating, protocol_of, shrunk, working_size
from ..protocols import Protocol, single_scale
from ..settings import Settings
from ..weak.crf import dense_crf
from ..weak.pamr import DILATIONS, PAMR
from .colours import class_colours
from .figures import ShownFigure
from .panels import painted, show
from .widget import Interactive

Fraction = Annotated[float, Field(ge=0, le=1)]
Stage = Literal["image", "cam", "fca", "sf2", "gate", "pamr", "crf", "truth"]
Allowed = Literal["guessed", "given", "all"]
SHOWN = 500  # px, longest side of a picture in the browser
ITERATIONS = 10  # of PAMR
EVIDENCE = 5  # classes of an image, at most, that get a CAM


class View(Settings):
    """What the explorer shows at first, and after the reader changed it.

    shown: 0 for a label map of all classes, k for the map of class k. allowed: which classes a
    pixel may have. exponent: of the background's map. left: what is left of the curtain, which
    stands between 0 and 1. stream: what is decoded at the gate. pixel: (row, column) inspected.
    """

    picture: int = Field(0, ge=0)
    stage: Stage = "gate"
    shown: int = Field(0, ge=0)
    allowed: Allowed = "guessed"
    threshold: Fraction = 0.3
    exponent: float = Field(1.0, ge=0.25, le=8)
    opacity: Fraction = 0.65
    curtain: Fraction = 0.25
    left: Literal["image", "before", "truth"] = "image"
    stream: Literal["gate", "deep", "shallow"] = "gate"
    step: int = Field(ITERATIONS, ge=0, le=ITERATIONS)
    pixel: tuple[int, int] | None = None


@dataclass(frozen=True)
class Maps:
    """Maps as whole numbers: value = low + (high - low) * number / 255.

    values: (C, h, w) uint8; channels: what they are, for class maps 0 = background and 1..K. Class
    maps that round to 0 everywhere are left out. A value is off by at most (high - low) / 510.
    """

    values: NDArray[np.uint8]
    channels: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of_classes(cls, maps: Tensor | NDArray[np.float32], first: int = 0) -> Maps:
        """From (C, h, w) in 0..1, whose first channel is class `first`."""
        values = np.rint(255 * np.clip(np.asarray(maps), 0, 1)).astype(np.uint8)
        kept = [c for c, one in enumerate(values) if one.any() or c + first == 0]
        return cls(values[kept], tuple(c + first for c in kept))

    @classmethod
    def signed(cls, maps: Tensor) -> Maps:
        """From (C, h, w) of either sign; 0 stays 0."""
        limit = max(float(maps.abs().max()), 1e-6)
        values = (maps / limit * 127).round().numpy().astype(np.int16) + 128
        channels = tuple(range(len(maps)))
        return cls(values.astype(np.uint8), channels, -limit * 128 / 127, limit)

    def decoded(self) -> NDArray[np.float32]:
        """(C, h, w), the values that the browser sees."""
        return np.float32(self.low) + self.values * np.float32((self.high - self.low) / 255)

    def of(self, channel: int) -> NDArray[np.float32]:
        """(h, w), one channel as `decoded`; zeros for a class that is nowhere."""
        if channel not in self.channels:
            return np.zeros(self.values.shape[1:], np.float32)
        return self.decoded()[self.channels.index(channel)]


@dataclass(frozen=True)
class Picture:
    """One picture and its maps by stage; `truth` (H, W) and `labels` (K,) where known.

    maps: "cam" and "crf" of classes; "fca" the spatial attention (1, h, w); "sf2" how far, in
    pixels of the image and across/down, the deep map is sampled from each place (2, h, w);
    "gate", and the masks decoded from its two inputs alone, "deep" and "shallow". A network
    without FCA or SF2 has none of their maps.
    """

    name: str
    image: NDArray[np.uint8]
    scores: NDArray[np.float32]
    maps: Mapping[str, Maps]
    labels: NDArray[np.bool_] | None = None
    truth: NDArray[np.uint8] | None = None

    def kept(self, allowed: Allowed, class_filter: float) -> NDArray[np.bool_]:
        """(K,): which classes a pixel may have; guessed are those that score above the filter."""
        if allowed == "given" and self.labels is not None:
            return self.labels
        return (self.scores > class_filter) | (allowed == "all")


@dataclass(frozen=True)
class State:
    """All that the explorer knows; cams: whose they are; dilations: the rings of PAMR.

    class_filter and exponent, at which the background's map starts: as the network's protocol.
    """

    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    cams: Literal["network", "classifier"] = "network"
    dilations: tuple[int, ...] = DILATIONS
    class_filter: float = single_scale().class_filter
    exponent: float = 1.0

    def labels(self, view: View) -> NDArray[np.uint8]:
        """Label map (H, W) of a view's stage: cam, gate, pamr or crf.

        A pixel goes to its strongest class where that is above the threshold and above the
        background's map raised to the exponent (CAMs have none), else to the background. Maps
        are enlarged bilinearly, corners aligned.
        """
        picture = self.pictures[view.picture]
        name = {"gate": view.stream, "pamr": "gate"}.get(view.stage, view.stage)
        stored = picture.maps[name]
        maps = torch.from_numpy(stored.decoded())[None]
        if view.stage == "pamr":
            maps = PAMR(view.step, self.dilations)(to_tensor(picture.image)[None], maps)
        height, width = picture.image.shape[:2]
        values = resize(maps, (height, width))[0].double().numpy()
        kept = picture.kept(view.allowed, self.class_filter)
        places = [i for i, c in enumerate(stored.channels) if c > 0 and kept[c - 1]]
        if not places:
            return np.zeros((height, width), np.uint8)
        strongest = values[places].max(0)
        winner = np.array(stored.channels)[places][values[places].argmax(0)]
        won = strongest > view.threshold
        if stored.channels[0] == 0:
            won &= strongest > values[0] ** view.exponent
        return np.where(won, winner, 0).astype(np.uint8)

    def packed(self) -> tuple[dict[str, Any], bytes]:
        """What the browser gets: names and places, and all arrays one after the other, deflated."""
        arrays: list[bytes] = []

        def put(array: NDArray[Any] | None, **more: Any) -> dict[str, Any] | None:
            if array is None:
                return None
            arrays.append(np.ascontiguousarray(array, np.uint8).tobytes())
            return {"at": sum(map(len, arrays[:-1])), "shape": array.shape, **more}

        def entry(p: Picture) -> dict[str, Any]:
            return {
                "name": p.name,
                "image": put(p.image),
                "truth": put(p.truth),
                "scores": np.round(p.scores.astype(float), 4).tolist(),
                "labels": None if p.labels is None else p.labels.tolist(),
                "maps": {
                    n: put(m.values, channels=m.channels, low=m.low, high=m.high)
                    for n, m in p.maps.items()
                },
            }

        meta = {
            "pictures": [entry(p) for p in self.pictures],
            "cams": self.cams,
            "classes": self.classes,
            "colours": class_colours(len(self.classes) + 1).tolist(),
            "dilations": self.dilations,
            "iterations": ITERATIONS,
            "filter": self.class_filter,
        }
        return meta, zlib.compress(b"".join(arrays))


Samples = Sequence[Sample] | Mapping[str, NDArray[np.uint8]]


def explore(
    network: Network,
    samples: Samples,
    *,
    cams: Callable[[Tensor], tuple[Tensor, Any]] | None = None,
    size: int | None = None,
    crf: bool = True,
) -> State:
    """Run the network once on each sample, or on photos by name, at one scale, without mirroring.

    cams: images (1, 3, H, W) -> CAMs (1, K, h, w) and anything, such as `CamFloor.maps`. Without:
    what in the backbone's features speaks for a class in this network, gradient times feature
    (HiResCAM; for a classifier that ends in global average pooling this is its CAM), for the
    classes that score highest. size: longest side at which the network works. PAMR has the rings
    of the network's recipe.
    """
    if isinstance(samples, Mapping):
        blank = np.zeros(len(network.classes), np.float32)
        samples = [Sample(name, image, blank, None) for name, image in samples.items()]
    longest, protocol = working_size(network, size), protocol_of(network)
    with _evaluating(network):
        pictures = tuple(_picture(network, one, longest, cams, crf, protocol) for one in samples)
    exponent = protocol.background_value if protocol.background == "power" else 1.0
    exponent = min(max(exponent, 0.25), 8.0)  # the slider's ends
    return State(
        tuple(network.classes),
        pictures,
        "classifier" if cams else "network",
        network.recipe.weak.pamr_dilations,
        protocol.class_filter,
        exponent,
    )


def _picture(
    network: Network, sample: Sample, longest: int, cams: Any, crf: bool, protocol: Protocol
) -> Picture:
    image = shrunk(sample.image, SHOWN)
    height, width = image.shape[:2]
    pixels = to_tensor(shrunk(image, longest))[None].to(network.device)
    with torch.enable_grad():
        output = network(network.normalise(pixels).requires_grad_(), stages=True)
        scores = output.scores[0].sigmoid().detach().cpu().numpy()
        stages = output.stages or {}
        evidence = cams(pixels)[0][0] if cams else _evidence(output.scores[0], stages["high"])
    maps = {"cam": Maps.of_classes(evidence.detach().cpu(), 1)}
    stages = {name: value.detach() for name, value in stages.items()}
    with torch.no_grad():
        if "spatial_attention" in stages:
            maps["fca"] = Maps.of_classes(stages["spatial_attention"][0].cpu())
        if "flow" in stages:
            flow = stages["flow"][0].cpu()
            # One unit is 1/w of the normalised width 2, which spans width - 1 pixels.
            unit = torch.tensor([(width - 1) / flow.shape[2] / 2, (height - 1) / flow.shape[1] / 2])
            maps["sf2"] = Maps.signed(flow * unit[:, None, None])
        for name, stream in {"gate": "gated", "deep": "deep", "shallow": "shallow"}.items():
            masks = with_background(network.decoder(stages[stream])).softmax(1)
            maps[name] = Maps.of_classes(masks[0].cpu())
        if crf:
            full = resize(output.probabilities.detach(), (height, width))[0].cpu().numpy()
            full[1:] *= (scores > protocol.class_filter)[:, None, None]
            maps["crf"] = Maps.of_classes(dense_crf(image, full))
    labels, truth = sample.labels > 0.5, sample.mask
    if truth is not None:
        resized = Image.fromarray(truth).resize((width, height), Image.Resampling.NEAREST)
        truth = np.asarray(resized)
    return Picture(sample.id, image, scores, maps, labels if labels.any() else None, truth)


def _evidence(scores: Tensor, features: Tensor) -> Tensor:
    """(K, h, w) in 0..1: gradient times features, negative evidence cut off, by class."""
    maps = features.new_zeros((len(scores), *features.shape[2:]))
    for k in scores.argsort(descending=True)[:EVIDENCE].tolist():
        (gradient,) = torch.autograd.grad(scores[k], features, retain_graph=True)
        found = (gradient * features).detach().sum(1)[0].relu()
        maps[k] = found / found.max().clamp(min=1e-12)
    return maps


class Explorer(Interactive):
    """The explorer of a `State`, or of what `explore` makes of its other arguments.

    Settings of `View` come by name: Explorer(explore(network, samples), stage="pamr"), and so do
    those of `explore`. `view` follows the reader while a kernel runs. Raises SettingsError for a
    setting that does not exist.
    """

    _esm = Path(__file__).with_suffix(".js")
    meta = traitlets.Dict().tag(sync=True)
    data = traitlets.Bytes().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)

    def __init__(self, network: Network | State, samples: Samples = (), **settings: Any) -> None:
        own = {n: settings.pop(n) for n in ("cams", "size", "crf") if n in settings}
        self.state = network if isinstance(network, State) else explore(network, samples, **own)
        view = View(**{"exponent": self.state.exponent, **settings}).model_dump(mode="json")
        meta, data = self.state.packed()
        super().__init__(meta=meta, data=data, view=view)
        names = ", ".join(p.name for p in self.state.pictures)
        self.alt = f"CAM explorer of {names}: each stage from the image to its mask"

    def still(self) -> Image.Image:
        """Some pictures in rows: image, CAM, masks of the network, after PAMR, the exact mask."""
        some = self.state.pictures[:3]
        columns = 5 if any(picture.truth is not None for picture in some) else 4
        tall = [picture.image.shape[0] / picture.image.shape[1] for picture in some]
        figure = ShownFigure(8.5, 0.4 + 8.5 / columns * sum(tall), dpi=110)
        grid = figure.subplots(len(some), columns, squeeze=False, height_ratios=tall)
        for row, picture in enumerate(some):
            first = {"picture": row, "exponent": self.state.exponent}
            views = (View(stage=stage, **first) for stage in ("cam", "gate", "pamr"))
            maps = [None, *map(self.state.labels, views), picture.truth]
            titles = ("image", "CAM", "masks", "after PAMR", "exact mask")
            for axes, title, labels in zip(grid[row], titles, maps, strict=False):
                image = picture.image if labels is None else painted(picture.image, labels)
                show(axes, image, title if row == 0 else "")
            grid[row, -1].set_visible(columns == 4 or picture.truth is not None)
        file = BytesIO()
        figure.savefig(file, format="png")
        return Image.open(file)
