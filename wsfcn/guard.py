"""No step on a loss or gradient that is not finite; the batch that had one is kept for a replay."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from . import build, weights
from .batches import Batch
from .data.sample import Dataset
from .model.backbone import Features
from .model.network import Network
from .state import State

KEPT = 3  # files of bad batches a run; each holds the network


def total(gradients: list[Tensor]) -> Tensor:
    """Not finite where any gradient is not; a norm takes a hundred times as long."""
    return torch.stack([gradient.sum() for gradient in gradients]).sum()


class Pass(NamedTuple):
    """A forward pass as it was begun: its batch and the states of the generators."""

    batch: Batch
    random: dict[str, Tensor]


class Watched(NamedTuple):
    """A step whose flag is on its way from the device. good: (loss, gradient) were finite."""

    good: Tensor
    arrived: Any
    passes: list[Pass]
    buffers: list[Tensor]
    place: tuple[int, int]


class Guard:
    """Takes the steps of an optimiser, but those that are not finite.

    The statistics of batch norms then stay, too, as they were before the forward pass. On a CPU
    all is done at once. On a GPU nothing waits for the device: the fused optimiser leaves the
    step out there, and the host reads the flag a step later, before weights change again. A loss
    scaler has its own way to leave steps out, and a gradient too large for it is no bad batch.

    limit: so many steps in a row that could not be taken raise FloatingPointError.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: Network,
        optimizer: torch.optim.SGD,
        state: State,
        data: Dataset,
        folder: Path,
        limit: int = 10,
    ) -> None:
        self.fabric, self.network, self.optimizer = fabric, network, optimizer
        self.state, self.data, self.folder, self.limit = state, data, folder, limit
        self.fused = state.optimizer.defaults["fused"]
        self.scaled = getattr(fabric.strategy.precision, "scaler", None) is not None
        self._passes: list[Pass] = []
        self._total = torch.zeros((), device=fabric.device)
        self._watched: Watched | None = None
        self._norms: dict[str, Tensor] = {}
        self._before: list[Tensor] = []
        if self.fused:  # it would begin with momentum from nowhere if its first step were left out
            for group in state.optimizer.param_groups:
                for p in group["params"]:
                    state.optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)

    def watch(self, batch: Batch) -> None:
        """Call before every forward pass."""
        if not self._passes:
            self._total = torch.zeros((), device=self.fabric.device)
            self._norms = self._norms or {
                f"{name}.{own}": buffer
                for name, module in self.network.named_modules()
                if isinstance(module, nn.BatchNorm2d) and module.training
                for own, buffer in module.named_buffers(recurse=False)
            }
            self._before = [buffer.clone() for buffer in self._norms.values()]
        self._passes.append(Pass(batch, self.state.generators()))

    def add(self, loss: Tensor) -> None:
        """Call with the loss of every pass."""
        self._total = self._total + loss.detach()

    def step(self) -> None:
        """Take the step of the passes since the last one, if all of them were finite."""
        parameters = (p for group in self.state.optimizer.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        good = torch.stack([self._total, total(gradients)]).isfinite()
        # Every process comes to the same answer.
        every = self.fabric.all_reduce(good.float(), reduce_op="mean")
        assert isinstance(every, Tensor)
        bad = every.min() < 1
        self.settle()
        for buffer, old in zip(self._norms.values(), self._before, strict=True):
            buffer.copy_(torch.where(bad, old, buffer))
        if self.scaled:
            gradients[0].masked_fill_(bad, math.nan)  # tells the scaler
            self.optimizer.step()
        elif self.fused:
            self.state.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not bad:
            self.optimizer.step()
        place = (self.state.epoch, self.state.step)
        arrived = None
        told = torch.stack([every[0] == 1, every[1] == 1, good[0]])
        if self.fabric.device.type == "cuda":
            told = told.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._watched = Watched(told, arrived, self._passes, self._before, place)
        self._passes = []
        if not self.fused:
            self.settle()

    def settle(self) -> None:
        """Wait for what became of the last step, and deal with it if it was not taken."""
        watched, self._watched = self._watched, None
        if watched is None:
            return
        if watched.arrived is not None:
            watched.arrived.synchronize()
        loss, gradient, own = watched.good.tolist()
        if loss and gradient:
            self.state.failed = 0
            return
        self.state.failed += 1
        self.state.skipped += 1
        stopping = self.state.failed >= self.limit
        if loss and self.scaled and not stopping:  # the scaler looks for its scale
            return
        what = "gradient" if loss else "loss"
        epoch, step = watched.place
        said = f"{what} not finite in epoch {epoch + 1}, step {step + 1}: the step was not taken"
        # Each process keeps the part of the batch whose loss it was; a gradient is that of all.
        mine = self.fabric.is_global_zero if loss else not own
        warnings.warn(said + (self._keep(watched) if mine else ""), stacklevel=3)
        if stopping:
            raise FloatingPointError(
                f"{said}, the last of {self.state.failed} in a row; lower train.learning_rate, or "
                f"look at the batches in {self.folder}"
            )

    def _keep(self, watched: Watched) -> str:
        """Write what `replay` needs; the end of a message that says where."""
        if len([*self.folder.glob("*.safetensors")]) >= KEPT:
            return ""
        epoch, step = watched.place
        rank = f"-process-{self.fabric.global_rank}" if self.fabric.world_size > 1 else ""
        path = self.folder / f"epoch-{epoch + 1:03d}-step-{step + 1:05d}{rank}.safetensors"
        before = dict(zip(self._norms, watched.buffers, strict=True))
        tensors = {f"network.{k}": v for k, v in (self.network.state_dict() | before).items()}
        for number, (batch, states) in enumerate(watched.passes):
            low, high = batch.inputs if isinstance(batch.inputs, Features) else (batch.inputs, None)
            parts = {"inputs": low, "high": high, "image": batch.image, "labels": batch.labels}
            parts["masks"] = batch.masks
            parts |= {f"random.{kind}": state for kind, state in states.items()}
            tensors |= {f"{number}.{k}": v for k, v in parts.items() if v is not None}
        recipe, rows = self.network.recipe, np.concatenate([p.batch.rows for p in watched.passes])
        header = {
            "recipe": recipe.model_dump(mode="json"),
            "classes": list(self.network.classes),
            "seed": recipe.train.seed,
            "epoch": epoch,
            "step": step,
            "rows": rows.tolist(),
            "ids": [self.data[row].id for row in rows.tolist()],
        }
        try:
            weights.write_safetensors(path, tensors, header)
        except OSError as error:
            return f" (its batch could not be kept: {error})"
        return f"; its batch is in {path}"


def replay(path: str | Path) -> dict[str, float]:
    """The pass of a kept batch once more: its losses and the largest gradient, as the training
    had them (on the same kind of device)."""
    from .train import losses, new_fabric  # which need this module

    tensors, header = weights.read_safetensors(path)
    recipe, classes = build.recipe_in(header, path)
    fabric = new_fabric(recipe.train.precision)
    bare = recipe.change({"model.pretrained": False})
    network = build.build_model(bare, classes)
    own = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    weights.load_state(network, own, str(path))
    wrapped = fabric.setup(network.train())
    wrapped.mark_forward_method("finish")
    found = torch.zeros(2)
    for number in range(recipe.train.accumulate):
        part = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(f"{number}.")}
        torch.set_rng_state(part["random.torch"])
        if "random.cuda" in part and fabric.device.type == "cuda":
            torch.cuda.set_rng_state(part["random.cuda"], fabric.device)
        part = {k: fabric.to_device(v) for k, v in part.items()}
        inputs = Features(part["inputs"], part["high"]) if "high" in part else part["inputs"]
        rows = np.array(header["rows"])
        batch = Batch(inputs, part["image"], part["labels"], rows, part.get("masks"))
        warm_up = header["epoch"] < recipe.train.warmup_epochs
        with fabric.autocast():
            output = batch.forward(wrapped, recipe.augment.crop)
        taught = {"warm_up": warm_up, "masks": batch.masks}
        lost = losses(output, batch.image, batch.labels, recipe.weak, **taught)
        fabric.backward(lost.classification + recipe.weak.weight * lost.mask)
        found += torch.stack([lost.classification, lost.mask]).detach().cpu()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    largest = float(get_total_norm(gradients, math.inf))
    return dict(zip(("classification_loss", "mask_loss"), found.tolist(), strict=True)) | {
        "largest_gradient": largest
    }
