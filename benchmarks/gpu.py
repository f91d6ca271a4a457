"""What a GPU has to show: PAMR's kernels, the paper's training step, its memory and its schedule.

The same runs on a CPU at small `Sizes`, which tests that it works and not how fast.
"""

from __future__ import annotations

import copy
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import plain
import torch
from measure import in_turns, peak_bytes
from ratios import example, taker
from torch.utils.flop_counter import FlopCounterMode

from wsfcn.build import build_model
from wsfcn.data.images import read_image
from wsfcn.data.sample import VOC_CLASSES
from wsfcn.data.transforms import augment, rng, to_tensor
from wsfcn.recipes import Augment, Recipe, paper_voc
from wsfcn.train import losses
from wsfcn.weak import PAMR

Way = Callable[[], Any]


@dataclass(frozen=True)
class Sizes:
    """What is measured; the paper's figures unless told otherwise. images: of its training set."""

    recipe: Recipe = field(default_factory=lambda: paper_voc().change({"train.compile": True}))
    sides: tuple[int, ...] = (81, 321)
    images: int = 10_582
    copied: int = 1 << 28  # float32 values
    product: int = 8192  # side of a matrix
    rounds: int = 5


def turns(ways: Sequence[Way], device: torch.device, rounds: int) -> list[list[float]]:
    """Seconds that the device works at each way in every round, the ways taking turns.

    A GPU is given other work first, so that it never waits for Python: in a training it does not.
    """
    seconds: list[list[float]] = [[] for _ in ways]
    for way in ways:
        way()
    if device.type != "cuda":
        for _ in range(rounds):
            for kept, way in zip(seconds, ways, strict=True):
                start = time.perf_counter()
                way()
                kept.append(time.perf_counter() - start)
        return seconds
    busy = torch.ones(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(rounds):
        for kept, way in zip(seconds, ways, strict=True):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            for _ in range(20):
                torch.mm(busy, busy)
            begin.record()
            way()
            end.record()
            end.synchronize()
            kept.append(begin.elapsed_time(end) / 1000)
    return seconds


def peak(call: Way, device: torch.device) -> int:
    """Most bytes of the device that a call adds."""
    if device.type != "cuda":
        return peak_bytes(call)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def ceilings(device: torch.device, sizes: Sizes) -> dict[str, float]:
    """Bytes a second of a copy (read and written), FLOPs a second of a product in bf16."""
    source = torch.ones(sizes.copied, device=device)
    target = torch.empty_like(source)
    matrix = torch.ones(sizes.product, sizes.product, device=device, dtype=torch.bfloat16)
    ways = (lambda: target.copy_(source), lambda: torch.mm(matrix, matrix))
    copies, products = turns(ways, device, 2 * sizes.rounds)
    return {
        "bytes": 2 * source.nbytes / min(copies),
        "flops": 2 * sizes.product**3 / min(products),
    }


def pamr(device: torch.device, *, sizes: Sizes, side: int) -> dict[str, Any]:
    """PAMR of all channels, 10 iterations, on the masks of a batch."""
    batch = sizes.recipe.train.batch_size
    image, masks, _ = (part.to(device) for part in example(batch, side))
    one = PAMR()
    ways = (lambda: plain.pamr(image, masks), lambda: one(image, masks))
    difference = float((ways[0]() - ways[1]()).abs().max())
    pixels, channels = batch * side * side, masks.shape[1]
    return {
        "ways": ["neighbours stacked", "ours"],
        "seconds": turns(ways, device, sizes.rounds),
        "aim": 20,
        "aim_share": 0.6,
        "agree": difference < 1e-5,
        "note": f"batch {batch}, {channels} channels, {side} x {side}; masks differ by "
        f"{difference:.1g} at most",
        # As in ratios.pamr.
        "bytes": 4 * pixels * (10 * (48 + 2 * channels) + 48 + 3),
        "flops": 2 * 48 * pixels * (10 * channels + 3 * 4),
        "memory": [peak(way, device) for way in ways],
        "clock": "device",
    }


def step(device: torch.device, *, sizes: Sizes) -> dict[str, Any]:
    """The paper's training step; peak memory with weights and momentum."""
    torch.manual_seed(0)
    recipe, size = sizes.recipe, sizes.recipe.augment.crop
    network = build_model(recipe, VOC_CLASSES).to(device).train()
    first = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    batch = recipe.train.batch_size
    images = torch.rand(batch, 3, size, size, device=device)
    labels = (torch.rand(batch, len(VOC_CLASSES), device=device) < 0.1).float()
    labels[:, 0] = 1

    take_first, take = (
        taker(first, recipe.train),
        taker(network, recipe.train, fused=device.type == "cuda" or None),
    )

    def plainly(tf32: bool = False) -> None:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32):
            take_first(sum(plain.losses(first, images, labels)))

    def ours(forward: Callable[..., Any], warm_up: bool = False) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            output = forward(network.normalise(images))
        lost = losses(output, images, labels, recipe.weak, warm_up=warm_up)
        take(lost.classification + lost.mask)

    def smaller() -> None:
        network.backbone.checkpointing = True
        ours(network.forward)
        network.backbone.checkpointing = False

    for model in (network, first):
        model.eval()
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = plain.losses(first, images, labels)
        output = network(network.normalise(images))
        found = losses(output, images, labels, recipe.weak, warm_up=False)
        del output
    for model in (network, first):
        model.train()
    with FlopCounterMode(display=False) as counter:
        ours(network.forward)
    if recipe.train.compile:
        network.compile()  # forward stays as it is
    ways = (plainly, lambda: ours(network), lambda: ours(network, True), smaller)
    seconds = turns((*ways, lambda: plainly(True)), device, sizes.rounds)
    held = sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
    held += sum(p.nbytes for p in network.parameters() if p.requires_grad)
    pairs = zip(expected, (found.classification, found.mask), strict=True)
    kind = "bf16, channels last" + (", compiled" if recipe.train.compile else "")
    return {
        "ways": [
            "plain: float32, channels first, PAMR stacked",
            f"ours: {kind}",
            "ours in the warm-up",
            "ours with checkpointing, not compiled",
            "plain, TF32 allowed",
        ],
        "seconds": seconds,
        "aim": 3,
        "aim_share": 0.45,
        "agree": all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in pairs),
        "note": f"{recipe.name}, batch {batch}, {size} x {size}; losses in float32 and eval mode "
        f"{found.classification:.4f} and {found.mask:.4f}, both ways within 0.1 %",
        "bytes": 2 * images.nbytes,
        "flops": counter.get_total_flops(),
        "memory": [held + peak(way, device) for way in ways],
        "clock": "device",
    }


def seconds_to_draw(crop: int, rounds: int = 9) -> float:
    """Of a CPU: to read a JPEG of 500 x 375 and to make a training image of it."""
    from PIL import Image
    from skimage import data

    photo = Image.fromarray(data.coffee()).resize((500, 375))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "photo.jpg")
        photo.save(file, quality=92)

        def draw() -> torch.Tensor:
            return to_tensor(augment(read_image(file), Augment(crop=crop), rng(0, 0, 0))[0])

        return min(in_turns(draw, rounds=rounds)[0][0])


def schedule(result: dict[str, Any], sizes: Sizes) -> dict[str, float]:
    """Seconds of all steps of the recipe, from the medians of `step`."""
    train = sizes.recipe.train
    _, late, early, *_ = (statistics.median(rounds) for rounds in result["seconds"])
    steps = sizes.images // train.batch_size
    warm = min(train.warmup_epochs, train.epochs)
    draw = seconds_to_draw(sizes.recipe.augment.crop)
    return {
        "steps": steps * train.epochs,
        "seconds": steps * (warm * early + (train.epochs - warm) * late),
        "seconds to draw an image": draw,
        "workers": math.ceil(train.batch_size * draw / min(early, late)),
    }


def told(found: dict[str, float]) -> list[str]:
    """The schedule in lines of Markdown."""
    hours = found["seconds"] / 3600
    return [
        f"**schedule** {found['steps']:,} steps of the recipe, extrapolated: {hours:.2f} hours of "
        f"the device (aim 1): {'ok' if hours <= 1 else 'MISSED'}. An image takes a core "
        f"{1000 * found['seconds to draw an image']:.1f} ms to read and augment, so that "
        f"{found['workers']} workers keep up.",
        "",
    ]


def rows(sizes: Sizes) -> dict[str, Callable[[torch.device], dict[str, Any]]]:
    """By name what is measured against a plain way."""
    found = {f"gpu_pamr_{side}": partial(pamr, sizes=sizes, side=side) for side in sizes.sides}
    return found | {"gpu_step": partial(step, sizes=sizes)}
