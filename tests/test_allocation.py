"""Freed memory is kept where the C library can be told so."""

import subprocess
import sys

import pytest

# Pages that rounds of freeing and taking 80 MB bring in.
ROUNDS = """
import resource, torch
from wsfcn.allocation import keep_freed_memory
torch.set_num_threads(1)
{call}
def round():
    return [torch.ones(5_000_000) for _ in range(4)]
round(), round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    round()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS.format(call=call)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc alone is told")
def test_maps_are_not_paged_in_anew():
    assert faults("keep_freed_memory()") < 0.1 * faults("")


def test_elsewhere_nothing_happens(monkeypatch):
    from wsfcn.allocation import keep_freed_memory

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)  # would fail if it were called
    keep_freed_memory()
