"""Training: image labels in, a segmentation network out (section III-D).

One loop. Warm-up epochs train the classification loss alone; after them the network's own masks,
refined by PAMR, become pseudo labels for the mask loss.
"""

from __future__ import annotations

import copy
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import build
from .data import build as build_data
from .data import scored
from .data.sample import Dataset
from .evaluate import Score, evaluate
from .features import FeatureCache, Views, cached_features
from .model.backbone import Features
from .model.layers import sync_batch_norms
from .model.network import Network, Output
from .recipes import Recipe, Train, Weak
from .runs import RunFolder
from .weak.losses import gate_open, mask_loss
from .weak.pamr import PAMR
from .weak.pseudo import pseudo_labels, refine
from .weak.scores import classification_loss


class Losses(NamedTuple):
    """Losses of one batch; `mask` and `gate_open` are zero during the warm-up."""

    classification: Tensor
    mask: Tensor
    gate_open: Tensor


def losses(output: Output, image: Tensor, labels: Tensor, weak: Weak, *, warm_up: bool) -> Losses:
    """Classification loss, and after the warm-up the mask loss against PAMR's pseudo labels.

    image: (B, 3, h, w) in [0, 1], any size; labels: (B, K).
    """
    classification = classification_loss(output.scores, labels)
    if warm_up:
        zero = classification.new_zeros(())
        return Losses(classification, zero, zero)
    pamr = PAMR(weak.pamr_iterations, weak.pamr_dilations)
    masks = output.probabilities.detach().float()
    settings = {
        "size": tuple(side // weak.label_stride for side in output.size),
        "background_factor": weak.background_factor,
        "foreground_factor": weak.foreground_factor,
        "floor": weak.floor,
    }
    logits = output.logits.float()
    pseudo = pseudo_labels(refine(pamr, image, masks, labels), labels, **settings)
    mask = mask_loss(logits, pseudo, labels)
    if weak.before_pamr:
        mask = mask + mask_loss(logits, pseudo_labels(masks, labels, **settings), labels)
    return Losses(classification, mask.mean(), gate_open(pseudo, labels).float().mean())


def parameter_groups(model: Network, settings: Train) -> list[dict[str, Any]]:
    """The optimiser's four groups: pretrained weights and biases, new weights and biases.

    New layers learn `new_factor` times faster, biases `bias_factor` times faster and without
    weight decay. Batch norm scales count as weights, as in the released code.
    """
    pretrained = {id(p) for p in model.backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (id(parameter) not in pretrained, name.endswith("bias"))
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": settings.learning_rate
            * (settings.new_factor if new else 1)
            * (settings.bias_factor if bias else 1),
            "weight_decay": 0.0 if bias else settings.weight_decay,
        }
        for (new, bias), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of an epoch; depends on (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch, 0x0DE5]).permutation(count)


class Batch(NamedTuple):
    """inputs: normalised images (B, 3, H, W), or cached Features; image in [0, 1] for PAMR."""

    inputs: Tensor | Features
    image: Tensor
    labels: Tensor


def _batches(
    fabric: Fabric,
    model: Network,
    data: Dataset,
    cache: FeatureCache | None,
    recipe: Recipe,
    epoch: int,
) -> Iterator[Batch]:
    """This process's parts of an epoch's batches, `train.accumulate` of them to a step.

    The order is the epoch's; a last incomplete batch is dropped.
    """
    settings, world, rank = recipe.train, fabric.world_size, fabric.global_rank
    order = epoch_order(len(data), settings.seed, epoch)
    steps = len(order) // settings.batch_size
    rows = order[: steps * settings.batch_size].reshape(steps * settings.accumulate, world, -1)
    rows = rows[:, rank]
    if cache is not None:
        view = epoch % recipe.train.views
        for row in rows:
            found = fabric.to_device(cache.batch(view, row))
            yield Batch(Features(found.low, found.high), found.image, found.labels)
        return
    loader = torch.utils.data.DataLoader(
        Views(data, recipe.augment, recipe.train.seed, epoch),
        batch_sampler=rows.tolist(),
        num_workers=recipe.train.workers,
        generator=torch.Generator(),  # or the loader draws from the one that dropout and gate use
    )
    for images, labels in loader:
        images, labels = fabric.to_device((images, labels))
        yield Batch(model.normalise(images), images, labels)


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: the network in eval mode, its folder, all logged rows, the val score.

    With train.average the network has the running mean of the weights.
    """

    model: Network
    folder: Path
    rows: list[dict[str, Any]] = field(repr=False)
    score: Score


EpochHook = Callable[[int, Network, list[dict[str, Any]]], None]
StepHook = Callable[[int, list[dict[str, Any]]], None]


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    datasets: tuple[Dataset, Dataset] | None = None,
    resume: bool = False,
    monitor: int = 64,
    on_epoch: EpochHook | None = None,
    on_step: StepHook | None = None,
    progress: bool = True,
    fabric: Fabric | None = None,
) -> TrainingResult:
    """Train a recipe into a folder and score it on the validation images.

    folder receives recipe.json, metrics.jsonl (one row every ten steps and one an epoch),
    TensorBoard events where tensorboard is installed, a checkpoint an epoch (the last two are
    kept), model.safetensors and score.json. `monitor` validation images are scored after every
    epoch (one scale, no flip; 0: none), all of them by the recipe's protocol at the end.
    `on_epoch(epoch, model, rows)` is called after every epoch, `epoch` counting those finished,
    `on_step(step, rows)` after every step. What they raise stops the training there; resume=True
    goes on after the last finished epoch.

    Under `torchrun` or `fabric run` every process trains on its share of each batch: the batch
    size is that of all together, gradients are averaged, batch norms that train share their
    statistics, and only the first process writes.

    With resume=True an interrupted run goes on after its last finished epoch, and a finished one
    is read back. Raises FileExistsError where the folder holds a run and resume is False, and
    ValueError where it holds a run of another recipe.
    """
    fabric = fabric or _fabric(recipe.train.precision)
    fabric.launch()
    train_data, val_data = datasets or build_data(recipe.data)
    val_data = scored(val_data)
    if not len(val_data):
        warnings.warn("no validation image has a mask, so nothing is scored", stacklevel=2)
        monitor = 0
    if not recipe.model.pretrained and not recipe.model.backbone.startswith("efficientnet"):
        warnings.warn(
            f"{recipe.model.backbone} starts from random weights; model.pretrained takes the file "
            "of its ImageNet weights",
            stacklevel=2,
        )
    _check_batch(recipe.train, len(train_data), fabric.world_size)
    with fabric.rank_zero_first():
        run = RunFolder(Path(folder), recipe, resume, writes=fabric.is_global_zero)
    torch.manual_seed(recipe.train.seed)
    network = build.build_model(recipe, train_data.classes)
    if run.finished:
        network = build.load(run.folder / "model.safetensors")
        return TrainingResult(network, run.folder, run.rows, Score.read(run.folder / "score.json"))
    network.to(fabric.device)
    cache = None
    if recipe.train.views:
        cache = cached_features(network, recipe, train_data, progress=progress)
    if fabric.world_size > 1:
        sync_batch_norms(network)
    average = _Average(network, recipe.train.average)
    network.backbone.checkpointing = recipe.train.checkpointing
    if recipe.train.compile:
        network.compile()
    optimizer = torch.optim.SGD(
        parameter_groups(network, recipe.train), momentum=recipe.train.momentum
    )
    wrapped, optimizer = fabric.setup(network, optimizer)
    wrapped.mark_forward_method("finish")
    first = run.restore(network, average.network, optimizer)
    if fabric.global_rank:  # other dropout and gates in every process; the first is as if alone
        torch.manual_seed(hash((recipe.train.seed, first, fabric.global_rank)))
    writer = _tensorboard(run.folder) if fabric.is_global_zero else None
    parts = recipe.train.accumulate
    for epoch in range(first, recipe.train.epochs):
        started = time.perf_counter()
        wrapped.train()
        steps = len(train_data) // recipe.train.batch_size
        bar = tqdm(
            total=steps,
            desc=f"epoch {epoch + 1}/{recipe.train.epochs}",
            disable=not (progress and fabric.is_global_zero),
        )
        window: list[Losses] = []
        for number, batch in enumerate(_batches(fabric, network, train_data, cache, recipe, epoch)):
            if isinstance(batch.inputs, Features):
                output = wrapped.finish(batch.inputs, (recipe.augment.crop,) * 2)
            else:
                output = wrapped(batch.inputs)
            warm_up = epoch < recipe.train.warmup_epochs
            found = losses(output, batch.image, batch.labels, recipe.weak, warm_up=warm_up)
            loss = found.classification + recipe.weak.mask_weight * found.mask
            last = number % parts == parts - 1
            with fabric.no_backward_sync(wrapped, enabled=not last):
                fabric.backward(loss / parts)
            window.append(Losses(*(v.detach() for v in found)))
            if not last:
                continue
            optimizer.step()
            optimizer.zero_grad()
            step = number // parts
            average.update(epoch * steps + step)
            bar.update()
            if len(window) == 10 * parts or step == steps - 1:
                row = _mean_row(
                    fabric, window, epoch * steps + step + 1, epoch + (step + 1) / steps
                )
                if not np.isfinite(row["classification_loss"] + row["mask_loss"]):
                    raise FloatingPointError(f"loss not finite at step {row['step']}: {row}")
                run.log(row, writer)
                bar.set_postfix(
                    cls=f"{row['classification_loss']:.3f}", mask=f"{row['mask_loss']:.3f}"
                )
                window = []
            if on_step is not None:
                on_step(epoch * steps + step + 1, run.rows)
        bar.close()
        row = {"epoch": epoch + 1, "seconds": round(time.perf_counter() - started, 2)}
        if monitor:
            quick = recipe.protocol.change({"name": "monitor", "flip": False, "scales": (1.0,)})
            score = evaluate(average.network, val_data, quick, limit=monitor, progress=False)
            row |= {"mean_iou": score.mean_iou, "pixel_accuracy": score.pixel_accuracy}
        run.log(row, writer)
        run.checkpoint(epoch + 1, network, average.network, optimizer)
        if on_epoch is not None:
            on_epoch(epoch + 1, average.network, run.rows)
    final = average.network.eval()
    score = evaluate(final, val_data, recipe.protocol, progress=progress)
    run.finish(final, score)
    if writer is not None:
        writer.close()
    return TrainingResult(final, run.folder, run.rows, score)


def _fabric(precision: Any) -> Fabric:
    """One device, or all that `torchrun` or `fabric run` started this process for."""
    if "LT_CLI_USED" in os.environ:
        return Fabric(precision=precision)
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        return Fabric(accelerator="auto", devices=1, precision=precision)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    return Fabric(
        accelerator="auto",
        strategy="ddp",
        devices=local,
        num_nodes=world // local,
        precision=precision,
    )


def _check_batch(settings: Train, images: int, world: int) -> None:
    if images < settings.batch_size:
        raise ValueError(
            f"train.batch_size: {settings.batch_size} is more than the {images} "
            "training images; take a smaller one"
        )
    if settings.batch_size % (world * settings.accumulate):
        raise ValueError(
            f"train.batch_size: {settings.batch_size} cannot be split over {world} processes "
            f"times {settings.accumulate} passes (train.accumulate)"
        )
    if settings.compile and settings.views:
        raise ValueError(
            "train.compile: compiles the way from images; with cached features (train.views) "
            "there is none"
        )


class _Average:
    """The running mean of a network's weights; the network itself where the decay is 0.

    At a constant learning rate the last weights are as noisy as any; their mean is not. Early on
    the mean is short, so that it does not remember the initial weights.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.decay, self.source = decay, network
        self.network = copy.deepcopy(network) if decay else network

    @torch.no_grad()
    def update(self, step: int) -> None:
        if self.network is self.source:
            return
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for mean, value in zip(
            self._tensors(self.network), self._tensors(self.source), strict=True
        ):
            mean.lerp_(value, weight)

    @staticmethod
    def _tensors(network: Network) -> Iterator[Tensor]:
        yield from (p for p in network.parameters() if p.requires_grad)
        yield from (b for b in network.buffers() if b.is_floating_point())


def _mean_row(fabric: Fabric, window: list[Losses], step: int, epoch: float) -> dict[str, Any]:
    # One transfer from the device for the whole window.
    stacked = torch.stack([torch.stack(list(found)) for found in window])
    means = fabric.all_reduce(stacked.float().mean(0), reduce_op="mean")
    assert isinstance(means, Tensor)
    names = ("classification_loss", "mask_loss", "gate_open")
    return {"step": step, "epoch": round(epoch, 4), **dict(zip(names, means.tolist(), strict=True))}


def _tensorboard(folder: Path) -> Any:
    with suppress(ImportError):
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder / "tensorboard"))
    return None
