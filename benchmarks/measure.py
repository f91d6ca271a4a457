"""Clocks, peaks of memory, and what this machine can do at best."""

from __future__ import annotations

import ctypes
import gc
import resource
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

Clock = Callable[[], float]


def cpu_seconds() -> float:
    """Of this process; with one thread what a clock shows on a machine at rest."""
    return time.process_time()


def all_seconds() -> float:
    """CPU seconds of this process and of its finished children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + used.ru_utime + used.ru_stime


def in_turns(
    *ways: Callable[[], Any], rounds: int = 5, clock: Clock = cpu_seconds
) -> tuple[list[list[float]], list[Any]]:
    """Seconds of each way in every round, the ways taking turns; their last results."""
    seconds: list[list[float]] = [[] for _ in ways]
    results: list[Any] = [None] * len(ways)
    for _ in range(rounds):
        for index, way in enumerate(ways):
            start = clock()
            results[index] = way()
            seconds[index].append(clock() - start)
    return seconds, results


def spread(values: Sequence[float]) -> float:
    """(largest - smallest) / median."""
    return (max(values) - min(values)) / statistics.median(values)


def peak_bytes(call: Callable[[], Any]) -> int:
    """Most memory that a call adds to this process (Linux; 0 elsewhere)."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return 0
    call()  # what is loaded and kept at first use does not count
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    reset.write_text("5")  # the high-water mark starts at what is in use now
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def ceilings() -> dict[str, float]:
    """Bytes a second of a copy (read and written); FLOPs a second of a matrix product or of a
    convolution, whichever library is better at them here."""
    source, target = torch.ones(1 << 25), torch.empty(1 << 25)
    a, b, c = torch.ones(1536, 1536), torch.ones(1536, 1536), torch.empty(1536, 1536)
    maps, taps = torch.ones(8, 256, 32, 32), torch.ones(256, 256, 3, 3)
    maps, taps = (t.contiguous(memory_format=torch.channels_last) for t in (maps, taps))
    (copies, products, convolutions), _ = in_turns(
        lambda: target.copy_(source),
        lambda: torch.mm(a, b, out=c),
        lambda: F.conv2d(maps, taps, padding=1),
        rounds=9,
    )
    flops = max(2 * 1536**3 / min(products), 2 * 9 * 256**2 * 8 * 32**2 / min(convolutions))
    return {"bytes": 2 * source.nbytes / min(copies), "flops": flops}


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """p of the fit values ~ sizes^p."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


class Allocated(TorchDispatchMode):
    """Counts the bytes of all tensors that live at a time, on the meta device too."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.known = 0, 0, set()

    def add(self, tensor: torch.Tensor) -> None:
        if tensor.layout != torch.strided:  # the parts of a sparse one have been counted
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.add, result)
        return result
