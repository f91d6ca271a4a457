"""All that a training is made of between two steps, into a checkpoint and back."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

from . import weights
from .model.network import Network

PARTS = ("network", "average", "momentum", "random", "window")


class Losses(NamedTuple):
    """Losses of one batch; `mask` and `gate_open` are zero during the warm-up."""

    classification: Tensor
    mask: Tensor
    gate_open: Tensor


class Average:
    """The running mean of a network's weights; the network itself where the decay is 0.

    At a constant learning rate the last weights are as noisy as any; their mean is not. Early on
    the mean is short, so that it does not remember the initial weights.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.decay, self.source = decay, network
        self.network = copy.deepcopy(network) if decay else network

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after so many steps."""
        if self.network is self.source:
            return
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._tensors(self.network), self._tensors(self.source), weight)

    @staticmethod
    def _tensors(network: Network) -> list[Tensor]:
        trained = [p for p in network.parameters() if p.requires_grad]
        return trained + [b for b in network.buffers() if b.is_floating_point()]


class State:
    """Where a training stands: `epoch` epochs are finished and `step` steps of the next.

    window: losses since the last row of the log. best: the highest mIoU of a monitor so far.
    failed: steps in a row that were not finite; skipped: since the last row of the log. seconds:
    spent on the epoch.
    """

    def __init__(self, fabric: Fabric, average: Average, optimizer: torch.optim.SGD) -> None:
        self.fabric, self.average, self.optimizer = fabric, average, optimizer
        self.epoch = self.step = self.failed = self.skipped = 0
        self.seconds, self.best = 0.0, -1.0
        self.window: list[Losses] = []
        self.rows: list[dict[str, Any]] = []

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values. Every process must call it, having generators of its own."""
        network, mean = self.average.source, self.average.network
        groups = self.optimizer.state_dict()["param_groups"]
        found = {
            "network": network.state_dict(),
            "average": {} if mean is network else mean.state_dict(),
            "momentum": {
                str(i): self.optimizer.state[p]["momentum_buffer"]
                for i, p in enumerate(self._parameters())
                if self.optimizer.state.get(p, {}).get("momentum_buffer") is not None
            },
            "random": {k: self._of_all(v) for k, v in self.generators().items()},
            "window": {"losses": torch.stack([torch.stack(list(w)) for w in self.window])}
            if self.window
            else {},
        }
        tensors = {f"{part}.{k}": v for part in PARTS for k, v in found[part].items()}
        drawn: Any = np.random.get_state(legacy=False)
        drawn["state"]["key"] = drawn["state"]["key"].tolist()
        return tensors, {
            **{name: getattr(self, name) for name in self._plain},
            "groups": groups,
            "scaler": self.fabric.strategy.precision.state_dict(),
            "numpy": drawn,
            "python": random.getstate(),
        }

    def unpack(self, tensors: dict[str, Tensor], values: dict[str, Any], source: str) -> None:
        """Become what was packed. Raises WeightsError naming the source for other tensors."""
        found: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
        try:
            for name, tensor in tensors.items():
                part, _, key = name.partition(".")
                found[part][key] = tensor
            for name in self._plain:
                setattr(self, name, values[name])
            window = found["window"].get("losses", torch.empty(0, 3))
            self.window = [Losses(*losses) for losses in self.fabric.to_device(window)]
            network, mean = self.average.source, self.average.network
            weights.load_state(network, found["network"], source)
            if mean is not network:
                weights.load_state(mean, found["average"], source)
            momentum = {
                # In the layout of its parameter: others are added by other instructions.
                i: {"momentum_buffer": torch.empty_like(p).copy_(found["momentum"][str(i)])}
                for i, p in enumerate(self._parameters())
                if str(i) in found["momentum"]
            }
            self.optimizer.load_state_dict({"state": momentum, "param_groups": values["groups"]})
            self.fabric.strategy.precision.load_state_dict(values["scaler"])
            self._seed(found["random"], values)
        except KeyError as error:
            raise weights.WeightsError(f"{source}: is no checkpoint, {error} is missing") from None

    _plain = ("epoch", "step", "failed", "skipped", "seconds", "best", "rows")

    def _parameters(self) -> Iterator[Tensor]:
        return (p for group in self.optimizer.param_groups for p in group["params"])

    def generators(self) -> dict[str, Tensor]:
        """The states of torch's generators of this process."""
        found = {"torch": torch.get_rng_state()}
        if self.fabric.device.type == "cuda":
            found["cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        return found

    def _of_all(self, state: Tensor) -> Tensor:
        if self.fabric.world_size == 1:
            return state[None]
        own = self.fabric.to_device(state)
        found = [torch.empty_like(own) for _ in range(self.fabric.world_size)]
        dist.all_gather(found, own)
        return torch.stack(found).cpu()

    def _seed(self, states: dict[str, Tensor], values: dict[str, Any]) -> None:
        rank = self.fabric.global_rank
        if len(states["torch"]) != self.fabric.world_size:  # other processes than before
            torch.manual_seed(hash((rank, self.epoch, self.step)))
            return
        torch.set_rng_state(states["torch"][rank].clone())  # torch misreads a view into others
        if "cuda" in states and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"][rank].clone(), self.fabric.device)
        drawn = values["numpy"]
        drawn["state"]["key"] = np.array(drawn["state"]["key"], np.uint32)
        np.random.set_state(drawn)
        version, numbers, gauss = values["python"]
        random.setstate((version, tuple(numbers), gauss))
