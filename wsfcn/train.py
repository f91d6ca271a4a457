"""Training: image labels in, a segmentation network out (section III-D).

One loop. Warm-up epochs train the classification loss alone; after them the network's own masks,
refined by PAMR, become pseudo labels for the mask loss.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import build
from .batches import batches, steps_of
from .data import build as build_data
from .data import fingerprint, scored
from .data.sample import Dataset
from .evaluate import Score, evaluate
from .features import Remembered, cached_features
from .guard import Guard
from .model.layers import sync_batch_norms
from .model.network import Network, Output
from .recipes import Recipe, Train, Weak
from .runs import RunFolder, circumstances
from .state import Average, Losses, State
from .stop import Stop
from .weak.losses import gate_open, mask_loss, true_mask_loss
from .weak.pamr import PAMR
from .weak.pseudo import pseudo_labels, refine
from .weak.scores import classification_loss

SECONDS = 300  # between checkpoints, at most


def losses(
    output: Output,
    image: Tensor,
    labels: Tensor,
    weak: Weak,
    *,
    warm_up: bool,
    masks: Tensor | None = None,
) -> Losses:
    """Classification loss, and after the warm-up the mask loss against PAMR's pseudo labels.

    image: (B, 3, h, w) in [0, 1], any size; labels: (B, K). masks: the true ones (B, H, W), of
    weak.supervision = "masks": they teach instead of pseudo labels, in the warm-up too.
    """
    classification = classification_loss(output.scores, labels)
    if masks is not None:
        height, width = (side // weak.label_stride for side in output.size)
        mask = true_mask_loss(output.logits.float(), masks, (height, width))
        return Losses(classification, mask, mask.new_ones(()))
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
    every: int = 0,
    keep: int = 2,
    bad: int = 10,
    on_epoch: EpochHook | None = None,
    on_step: StepHook | None = None,
    progress: bool = True,
    fabric: Fabric | None = None,
) -> TrainingResult:
    """Train a recipe into a folder and score it on the validation images.

    folder receives recipe.json, starts.jsonl (data, versions, device of every start),
    metrics.jsonl (one row every ten steps and one an epoch), TensorBoard events where tensorboard
    is installed, checkpoints (the newest `keep`), model.safetensors and score.json. `monitor`
    validation images are scored after every epoch (one scale, no flip; 0: none), the best network
    by them is kept as best.safetensors, and all images are scored by the recipe's protocol at the
    end. `on_epoch(epoch, model, rows)` is called after every epoch, `epoch` counting those
    finished (the last one again where a training goes on after it), `on_step(step, rows)` after
    every step. What they raise stops the training there.

    A checkpoint is written after every epoch, after a step where five minutes have passed since
    the last one, and after every so many steps (`every`; 0: not by steps). SIGINT and SIGTERM
    write one and raise Interrupted. With resume=True a training goes on where its newest whole
    checkpoint stands, on a CPU to the same bits as if it had never stopped, and a finished one is
    read back. A batch whose loss or gradient is not finite changes nothing and is kept in bad/
    (see guard.py); `bad` of them in a row raise FloatingPointError.

    Under `torchrun` or `fabric run` every process trains on its share of each batch: the batch
    size is that of all together, gradients are averaged, batch norms that train share their
    statistics, and only the first process writes.

    Raises FileExistsError where the folder holds a run and resume is False, and RunError where it
    holds a run of another recipe or of data that have changed, or another process trains in it.
    """
    fabric = fabric or new_fabric(recipe.train.precision)
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
    if every < 0 or bad < 1:
        raise ValueError(f"every: needs 0 steps or more, bad: 1 batch or more, got {every}, {bad}")
    with fabric.rank_zero_first():
        run = RunFolder(Path(folder), recipe, resume, fabric.is_global_zero, keep)
    hint = f"go on with: wsfcn train --resume {folder}"
    with run, Stop(hint) as stop:
        torch.manual_seed(recipe.train.seed)
        network = build.build_model(recipe, train_data.classes)
        if run.finished:
            network = build.load(run.folder / "model.safetensors")
            score = Score.read(run.folder / "score.json")
            return TrainingResult(network, run.folder, run.rows(), score)
        network.to(fabric.device)
        cache = None
        if recipe.train.views:
            cache = cached_features(network, recipe, train_data, progress=progress)
        if fabric.world_size > 1:
            sync_batch_norms(network)
        average = Average(network, recipe.train.average)
        network.backbone.checkpointing = recipe.train.checkpointing
        if recipe.train.compile:
            network.compile()
        sgd = torch.optim.SGD(
            parameter_groups(network, recipe.train),
            momentum=recipe.train.momentum,
            fused=fabric.device.type == "cuda" or None,  # leaves out steps without being asked to
        )
        rates = [group["lr"] for group in sgd.param_groups]  # before a checkpoint's come in
        wrapped, optimizer = fabric.setup(network, sgd)
        wrapped.mark_forward_method("finish")
        state = State(fabric, average, sgd)
        guard = Guard(fabric, network, optimizer, state, train_data, run.folder / "bad", bad)
        if fabric.global_rank:  # other dropout and gates in every process; the first's as if alone
            torch.manual_seed(hash((recipe.train.seed, fabric.global_rank)))
        with fabric.rank_zero_first():
            found = run.newest()
        if found is not None:
            state.unpack(found[1], found[2], str(found[0]))
            del found
        scorer = Remembered(average.network) if cache else average.network
        steps, parts = steps_of(recipe.train, len(train_data)), recipe.train.accumulate
        total = steps * recipe.train.epochs
        if fabric.is_global_zero:
            prints = {"train": fingerprint(train_data), "val": fingerprint(val_data)}
            facts = {"data": prints, "protocol": recipe.protocol.describe()}
            facts |= circumstances(fabric.device, fabric.world_size)
            run.begin(facts, state.epoch * steps + state.step)
        run.rewind(state.rows)
        writer = _tensorboard(run.folder) if fabric.is_global_zero else None
        saved, saved_at = time.perf_counter(), state.epoch * steps + state.step
        stop.waits = True
        if on_epoch is not None and state.epoch and not state.step:
            on_epoch(state.epoch, average.network, state.rows)  # perhaps not reached the last time
        for epoch in range(state.epoch, recipe.train.epochs):
            started = time.perf_counter() - state.seconds
            wrapped.train()
            bar = tqdm(
                total=steps,
                initial=state.step,
                desc=f"epoch {epoch + 1}/{recipe.train.epochs}",
                disable=not (progress and fabric.is_global_zero),
            )
            rest = batches(fabric, network, train_data, cache, recipe, epoch, state.step)
            for number, batch in enumerate(rest):
                guard.watch(batch)
                with fabric.autocast():  # which Fabric leaves out of methods other than forward
                    output = batch.forward(wrapped, recipe.augment.crop)
                warm_up = epoch < recipe.train.warmup_epochs
                lost = losses(
                    output,
                    batch.image,
                    batch.labels,
                    recipe.weak,
                    warm_up=warm_up,
                    masks=batch.masks,
                )
                loss = lost.classification + recipe.weak.weight * lost.mask
                last = number % parts == parts - 1
                with fabric.no_backward_sync(wrapped, enabled=not last):
                    fabric.backward(loss / parts)
                guard.add(loss)
                state.window.append(Losses(*(v.detach() for v in lost)))
                if not last:
                    continue
                share = (1 - (epoch * steps + state.step) / total) ** recipe.train.decay
                for group, rate in zip(sgd.param_groups, rates, strict=True):
                    group["lr"] = rate * share
                guard.step()
                optimizer.zero_grad()
                average.update(epoch * steps + state.step)
                state.step += 1
                bar.update()
                step = epoch * steps + state.step
                logged = len(state.window) == 10 * parts or state.step == steps
                if logged:
                    guard.settle()
                    row = _mean_row(fabric, state.window, step, epoch + state.step / steps)
                    if state.skipped:
                        row["skipped"] = state.skipped
                    state.rows.append(row)
                    run.log(row, writer)
                    bar.set_postfix(
                        cls=f"{row['classification_loss']:.3f}", mask=f"{row['mask_loss']:.3f}"
                    )
                    state.window, state.skipped = [], 0
                if on_step is not None:
                    on_step(step, state.rows)
                due = time.perf_counter() - saved > SECONDS or 0 < every <= step - saved_at
                # Several processes ask one another with the log, since it waits for them anyway.
                if (logged or fabric.world_size == 1) and _any(fabric, due or stop.signal):
                    state.seconds = time.perf_counter() - started
                    _checkpoint(run, state, guard, step)
                    saved, saved_at = time.perf_counter(), step
                    if _any(fabric, stop.signal):
                        stop.leave(f"stopped after step {step} of {total}, nothing is lost")
            bar.close()
            row = {"epoch": epoch + 1, "seconds": round(time.perf_counter() - started, 2)}
            if monitor:
                quick = recipe.protocol.change({"name": "monitor", "flip": False, "scales": (1.0,)})
                score = evaluate(scorer, val_data, quick, limit=monitor, progress=False)
                row |= {"mean_iou": score.mean_iou, "pixel_accuracy": score.pixel_accuracy}
                if score.mean_iou > state.best:
                    state.best = score.mean_iou
                    run.best(average.network, row)
            state.rows.append(row)
            run.log(row, writer)
            state.epoch, state.step, state.seconds = epoch + 1, 0, 0.0
            _checkpoint(run, state, guard, state.epoch * steps)
            saved, saved_at = time.perf_counter(), state.epoch * steps
            if on_epoch is not None:
                on_epoch(epoch + 1, average.network, state.rows)
            if _any(fabric, stop.signal):
                stop.leave(f"stopped after step {state.epoch * steps} of {total}, nothing is lost")
        stop.waits = False
        final = average.network.eval()
        score = evaluate(scorer, val_data, recipe.protocol, progress=progress)
        run.finish(final, score)
        if writer is not None:
            writer.close()
        return TrainingResult(final, run.folder, state.rows, score)


def _checkpoint(run: RunFolder, state: State, guard: Guard, step: int) -> None:
    guard.settle()
    run.checkpoint(step, *state.pack())


def _any(fabric: Fabric, asked: float) -> bool:
    """Whether a process of all asks for it."""
    if fabric.world_size == 1:
        return bool(asked)
    told = fabric.all_reduce(
        torch.tensor(float(bool(asked)), device=fabric.device), reduce_op="sum"
    )
    assert isinstance(told, Tensor)
    return bool(told)


def new_fabric(precision: Any) -> Fabric:
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


def _mean_row(fabric: Fabric, window: list[Losses], step: int, epoch: float) -> dict[str, Any]:
    # One transfer from the device for the whole window; losses of steps not taken do not count.
    stacked = torch.stack([torch.stack(list(found)) for found in window]).float()
    finite = stacked[stacked.isfinite().all(1)]
    means = fabric.all_reduce(finite.mean(0), reduce_op="mean")
    assert isinstance(means, Tensor)
    names = ("classification_loss", "mask_loss", "gate_open")
    return {"step": step, "epoch": round(epoch, 4), **dict(zip(names, means.tolist(), strict=True))}


def _tensorboard(folder: Path) -> Any:
    with suppress(ImportError):
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder / "tensorboard"))
    return None
