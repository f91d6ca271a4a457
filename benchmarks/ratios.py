"""Each benchmark: a plain way and ours, checked equal, then timed in turns.

A function gives a dictionary: ways (names), seconds (of each way, by round), aim (least ratio of
the first way to the second), agree (whether the results are equal), note (what was compared), and
where they are meant: bytes and flops that the second way needs at least, memory (peaks of both
ways), aim_memory, clock.
"""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import plain
import torch
import torch.nn.functional as F
from measure import Allocated, all_seconds, in_turns, peak_bytes
from torch.utils.flop_counter import FlopCounterMode


def smooth(generator: torch.Generator, batch: int, channels: int, side: int) -> torch.Tensor:
    coarse = torch.rand(batch, channels, 9, 9, generator=generator)
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


def example(batch: int, side: int, classes: int = 20) -> tuple[torch.Tensor, ...]:
    """Images with a little noise, masks, and labels of one to three classes an image."""
    generator = torch.Generator().manual_seed(side)
    image = smooth(generator, batch, 3, 4 * side - 3)
    image = (image + 0.05 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    masks = (6 * smooth(generator, batch, classes + 1, side)).softmax(1)
    labels = torch.zeros(batch, classes)
    for row in range(batch):
        labels[row, torch.randperm(classes, generator=generator)[: 1 + 2 * (row % 2)]] = 1
    return image, masks, labels


def pamr() -> dict[str, Any]:
    """PAMR of the labels present: 2 images, 21 channels, 81 x 81, 10 iterations, 1 and 3 labels."""
    return _pamr(81, rounds=5) | {"aim": 20, "aim_memory": 15}


def pamr_large() -> dict[str, Any]:
    """The same on masks of 321 x 321, where affinities leave every cache."""
    return _pamr(321, rounds=1) | {"aim": 20, "aim_memory": 15}


def pamr_all() -> dict[str, Any]:
    """PAMR of all 21 channels on 81 x 81: what is gained where no label is known."""
    return _pamr(81, rounds=5, known=False) | {"aim": 5}


def _pamr(side: int, rounds: int, known: bool = True) -> dict[str, Any]:
    from wsfcn.weak import PAMR, refine
    from wsfcn.weak import pamr as module

    image, masks, labels = example(2, side)
    if not known:
        labels = torch.ones_like(labels)
    kept = torch.cat([torch.ones(2, 1), labels], 1)[..., None, None]
    one, shifted = PAMR(), PAMR()
    shifted._multiplies = lambda x: False  # what a CPU without MKL does

    def ours() -> torch.Tensor:
        module._places.cache_clear()  # the numbers of neighbours are part of the work
        return refine(one, image, masks, labels)

    seconds, (expected, found, also) = in_turns(
        lambda: plain.pamr(image, masks),
        ours,
        lambda: refine(shifted, image, masks, labels),
        rounds=rounds,
    )
    difference = max((expected * kept - masks).abs().max() for masks in (found, also))
    pixels, channels = 2 * side * side, int(kept.sum(1).max())
    return {
        "ways": [
            "neighbours stacked, all channels",
            "labels present, sparse",
            "shifted, without MKL",
        ],
        "seconds": seconds,
        "agree": bool(difference < 1e-5),
        "note": "largest difference of a mask below 1e-5",
        # Affinities and masks once an iteration; colours of neighbours once.
        "bytes": 4 * pixels * (10 * (48 + 2 * channels) + 48 + 3),
        "flops": 2 * 48 * pixels * (10 * channels + 3 * 4),
        "memory": [peak_bytes(lambda: plain.pamr(image, masks)), peak_bytes(ours)],
    }


def confusion() -> dict[str, Any]:
    """Confusion matrix of a 500 x 375 label map of 21 classes."""
    from wsfcn.metrics import ConfusionMatrix

    rng = np.random.default_rng(0)
    target = rng.integers(0, 21, (375, 500)).astype(np.uint8)
    prediction = np.where(rng.random(target.shape) < 0.7, target, rng.integers(0, 21, target.shape))
    prediction = prediction.astype(np.uint8)
    target[rng.random(target.shape) < 0.05] = 255

    def ours() -> np.ndarray:
        counts = ConfusionMatrix(21)
        counts.update(prediction, target)
        return counts.matrix

    # Several of ours a turn, so that a pause of the machine does not decide.
    seconds, (expected, _) = in_turns(
        lambda: plain.confusion(prediction, target, 21), lambda: [ours() for _ in range(20)]
    )
    return {
        "ways": ["pixel by pixel", "bincount"],
        "seconds": [seconds[0], [value / 20 for value in seconds[1]]],
        "aim": 100,
        "agree": bool((ours() == expected).all()),
        "note": "the counts are equal",
        "bytes": 2 * target.size,
        "flops": target.size,
    }


def inference() -> dict[str, Any]:
    """Four scales with flips of a 500 x 375 scene: on canvases of 1,024 px, each at its size."""
    import wsfcn
    from wsfcn.data import build
    from wsfcn.predict import label_map, predict
    from wsfcn.protocols import padded, paper
    from wsfcn.views import resized

    network = wsfcn.load("lite-scenes").eval()
    _, scenes = build(network.recipe.change({"data.val": 1}).data)
    image = resized(scenes[0].image, 375, 500)
    seconds, (expected, own) = in_turns(
        lambda: plain.canvas_masks(network, image),
        lambda: predict(network, [image], paper(), size=500)[0],
        rounds=2,
    )
    on_canvas = predict(network, [image], padded(paper()), size=500)[0].masks
    with FlopCounterMode(display=False) as counter:
        predict(network, [image], paper(), size=500)
    same = (label_map(expected.numpy(), image.shape[:2]) == own.labels).mean()
    return {
        "ways": ["padded canvas", "own size"],
        "seconds": seconds,
        "aim": 2.5,
        "agree": bool(np.abs(on_canvas - expected.numpy()).max() < 1e-4)
        and bool(on_canvas[1:].any()),
        "note": "our canvas equals the plain one within 1e-4; without a canvas the network pools "
        f"over the image alone, and {100 * same:.1f} % of the pixels keep their label",
        "bytes": 8 * 3 * 4 * image.shape[0] * image.shape[1],
        "flops": counter.get_total_flops(),
    }


def drawing() -> dict[str, Any]:
    """A training image of 192 px from a photo of 4,000 x 3,000: decoded whole, or at a quarter."""
    from PIL import Image
    from skimage import data

    from wsfcn.data.images import read_image
    from wsfcn.data.transforms import augment, pixels_needed, rng
    from wsfcn.recipes import Augment

    settings = Augment(crop=192)
    photo = np.asarray(Image.fromarray(data.coffee()).resize((4000, 3000)))
    noise = np.random.default_rng(0).normal(0, 6, photo.shape)
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "photo.jpg")
        Image.fromarray((photo + noise).clip(0, 255).astype(np.uint8)).save(file, quality=92)

        def draw(least: int) -> np.ndarray:
            return augment(read_image(file, least=least), settings, rng(0, 0, 0))[0]

        ways = (lambda: draw(0), lambda: draw(pixels_needed(settings)))
        seconds, (whole, small) = in_turns(*ways)
        memory = [peak_bytes(way) for way in ways]
    difference = np.abs(whole.astype(int) - small).mean()
    return {
        "ways": ["decoded whole", "decoded at a quarter"],
        "seconds": seconds,
        "aim": 2,
        "agree": bool(difference < 1.5),
        "note": f"mean difference {difference:.2f} of 255 levels",
        "memory": memory,
    }


def crf() -> dict[str, Any]:
    """CRF of 8 photos of 2 or 3 classes: 21 labels in one process; labels present in two."""
    from skimage import data

    from wsfcn.predict import refined
    from wsfcn.protocols import paper, with_crf
    from wsfcn.segmentation import Segmentation
    from wsfcn.views import resized

    protocol = with_crf(paper()).change({"crf_code": "pydensecrf"})
    generator, work = torch.Generator().manual_seed(0), []
    photos = [data.coffee(), data.chelsea(), data.astronaut(), data.rocket()]
    for number in range(8):
        image = resized(photos[number % 4], 375, 500)[:, :: 1 - 2 * (number // 4)]
        classes = torch.randperm(20, generator=generator)[: 2 + number % 2] + 1
        masks = torch.zeros(21, 375, 500)
        present = smooth(generator, 1, len(classes) + 1, 500)[0, :, :375]
        masks[[0, *classes.tolist()]] = (6 * present).softmax(0)
        labels = np.zeros((375, 500), np.uint8)
        scores, names = np.zeros(20, np.float32), tuple(map(str, range(20)))
        work.append(
            (str(number), Segmentation(image, labels, masks.numpy(), scores, names, protocol))
        )

    def ours(processes: int, count: int = 8) -> list[np.ndarray]:
        return [one.labels for one in refined(work[:count], protocol, processes=processes)]

    def plainly(count: int = 8) -> list[np.ndarray]:
        return [plain.crf(one.image, one.masks) for _, one in work[:count]]

    ways = (plainly, lambda: ours(2), lambda: ours(1))
    seconds, (expected, found, _) = in_turns(*ways, rounds=3, clock=time.perf_counter)
    processor, _ = in_turns(*ways, rounds=1, clock=all_seconds)
    same = np.mean([(a == b).mean() for a, b in zip(expected, found, strict=True)])
    pixels = 8 * 375 * 500
    return {
        "ways": ["21 labels, one process", "present, 2 processes", "present, one process"],
        "seconds": seconds,
        "aim": 4,
        "agree": bool(same > 0.9999),
        "note": f"{100 * same:.3f} % of the pixels have the same label; CPU seconds of the three "
        f"ways {', '.join(f'{turns[0]:.2f}' for turns in processor)}, so that two free cores give "
        f"{2 * processor[0][0] / processor[1][0]:.1f} times",
        "clock": "clock",
        "cores": 2,
        # Per label, pixel and iteration: 3 corners of one lattice, 6 of the other, there and back.
        "bytes": 10 * 4 * 4.5 * 2 * 9 * pixels,
        "flops": 10 * 4.5 * 2 * 2 * 9 * pixels,
        # Of one photo: that of a process does not grow with their number.
        "memory": [peak_bytes(lambda: plainly(1)), peak_bytes(lambda: ours(1, 1))],
    }


def step() -> dict[str, Any]:
    """A training step of lite_scenes after the warm-up, batch 16, pseudo labels at full size."""
    return _step(warm_up=False) | {"aim": 2}


def step_warm_up() -> dict[str, Any]:
    """The same during the warm-up, where PAMR and the mask loss are of no use."""
    return _step(warm_up=True) | {"aim": 2}


def taker(
    model: torch.nn.Module, settings: Any, fused: bool | None = None
) -> Callable[[torch.Tensor], None]:
    """Takes a step of the optimiser from a loss; nothing moves, so that all rounds do the same."""
    from wsfcn.train import parameter_groups

    groups = [group | {"lr": 0.0} for group in parameter_groups(model, settings)]
    optimizer = torch.optim.SGD(groups, momentum=settings.momentum, fused=fused)

    def take(loss: torch.Tensor) -> None:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return take


def _step(warm_up: bool) -> dict[str, Any]:
    import wsfcn
    from wsfcn.data import build
    from wsfcn.features import Views, cached_features
    from wsfcn.model.backbone import Features
    from wsfcn.train import losses

    # A trained network: its pseudo labels are not empty.
    network = wsfcn.load("lite-scenes")
    recipe = network.recipe.change(
        {"data.train": 16, "data.val": 1, "train.views": 1, "weak.label_stride": 1}
    )
    drawn, _ = build(recipe.data)
    views = Views(drawn, recipe.augment, recipe.data.seed, 0)
    images, labels = (
        torch.stack(part) for part in zip(*(views[i] for i in range(16)), strict=True)
    )
    rows, size = np.arange(16), (images.shape[-2], images.shape[-1])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WSFCN_CACHE"] = folder
        try:
            cache = cached_features(network, recipe, drawn, progress=False)
        finally:
            del os.environ["WSFCN_CACHE"]
        network.eval()
        expected = plain.losses(network, images, labels)
        output = network(network.normalise(images))
        found = losses(output, images, labels, recipe.weak, warm_up=False)
        network.train()
        first = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
        finish, finish_first = taker(network, recipe.train), taker(first, recipe.train)

        def plainly() -> None:
            classes, mask = plain.losses(first, images, labels)
            finish_first(classes + (0 if warm_up else mask))

        def ours() -> None:
            batch = cache.batch(0, rows)
            output = network.finish(Features(batch.low, batch.high), size)
            parts = losses(output, batch.image, batch.labels, recipe.weak, warm_up=warm_up)
            finish(parts.classification + parts.mask)

        def halves() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                ours()

        seconds, _ = in_turns(plainly, ours, halves, rounds=3)
        memory = [peak_bytes(plainly), peak_bytes(ours)]
        with FlopCounterMode(display=False) as counter:
            ours()
    pairs = list(zip(expected, (found.classification, found.mask), strict=True))
    return {
        "ways": [
            "plain: images, channels first, PAMR always",
            "cached features, PAMR when needed",
            "the same, bf16-mixed",
        ],
        "seconds": seconds,
        "agree": all(torch.allclose(a, b, rtol=1e-3) for a, b in pairs) and bool(found.mask > 0),
        "note": f"losses in eval mode {found.classification:.4f} and {found.mask:.4f}, "
        "both ways within 0.1 %",
        "bytes": 2 * sum(t.nbytes for t in cache.batch(0, rows)),
        "flops": counter.get_total_flops(),
        "memory": memory,
    }


RATIOS: dict[str, Callable[[], dict[str, Any]]] = {
    f.__name__: f
    for f in (pamr, pamr_all, pamr_large, confusion, inference, drawing, crf, step, step_warm_up)
}


def memory() -> dict[str, float]:
    """Most bytes that a road adds to a process, network and libraries apart."""
    import wsfcn
    from wsfcn.data import build
    from wsfcn.evaluate import evaluate
    from wsfcn.predict import predict
    from wsfcn.protocols import paper, single_scale, with_crf
    from wsfcn.views import resized

    network = wsfcn.load("lite-scenes")
    _, scenes = build(network.recipe.change({"data.val": 128}).data)
    photo, phone = (resized(scenes[0].image, *size) for size in ((375, 500), (3000, 4000)))
    solved = with_crf(single_scale()).change({"crf_code": "pydensecrf"})

    def scored(count: int) -> Callable[[], Any]:
        return lambda: evaluate(network, scenes, single_scale(), limit=count, progress=False)

    roads: dict[str, Callable[[], Any]] = {
        "prediction, 500 x 375, one scale with flip": lambda: predict(
            network, [photo], single_scale()
        ),
        "the same, four scales at 500 px": lambda: predict(network, [photo], paper(), size=500),
        "prediction, 4,000 x 3,000": lambda: predict(network, [phone], single_scale()),
        "prediction with CRF, 500 x 375": lambda: predict(network, [photo], solved),
        "the same, 4,000 x 3,000, CRF at 1,024 px": lambda: predict(network, [phone], solved),
        "evaluation of 32 scenes": scored(32),
        "evaluation of 128 scenes": scored(128),
    }
    return {name: float(peak_bytes(road)) for name, road in roads.items()}


def paper_memory() -> dict[str, float]:
    """Bytes of the paper's training step, batch 16, 321 px, counted on the meta device: peak of
    weights, gradients, momentum and what the backward pass keeps. A library's workspaces are not
    in it. With bf16 the maps are halves, weights, gradients and momentum are not."""
    from wsfcn import recipes
    from wsfcn.build import build_model

    recipe, found = recipes.paper_voc(), {}
    for name, half, checkpointing in (
        ("float32", False, False),
        ("bf16", True, False),
        ("bf16, checkpointing", True, True),
    ):
        with torch.device("meta"), Allocated() as allocated:
            network = build_model(recipe, tuple(map(str, range(20)))).train()
            whole = sum(p.nbytes + 2 * p.nbytes * p.requires_grad for p in network.parameters())
            network.backbone.checkpointing = checkpointing
            network.to(torch.bfloat16 if half else torch.float32)
            held = sum(p.nbytes + p.nbytes * p.requires_grad for p in network.parameters())
            images = torch.empty(16, 3, 321, 321, dtype=network.mean.dtype)
            output = network(images)
            maps = F.interpolate(output.logits.float(), (321, 321), mode="bilinear")
            entropy = F.cross_entropy(maps, torch.empty(16, 321, 321, dtype=torch.long))
            (entropy + output.scores.float().sum()).backward()
        # bf16-mixed keeps float32 weights beside those in half precision.
        found[name] = allocated.peak + whole - (0 if half else held)
    return found
