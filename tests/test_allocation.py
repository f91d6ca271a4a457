"""Freed memory is kept where the C library can be told so."""

import subprocess
import sys

import pytest

# Memory that the process still holds after it has freed 80 MB.
HELD = """
import torch
from wsfcn.allocation import keep_freed_memory
torch.set_num_threads(1)
{call}
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
torch.ones(10).sum()
before = resident()
maps = [torch.ones(5_000_000) for _ in range(4)]
del maps
print(resident() - before)
"""


def held(call: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", HELD.format(call=call)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc alone is told")
def test_freed_memory_is_kept():
    assert held("") < 20e6
    assert held("keep_freed_memory()") > 60e6


def test_elsewhere_nothing_happens(monkeypatch):
    from wsfcn.allocation import keep_freed_memory

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)  # would fail if it were called
    keep_freed_memory()
