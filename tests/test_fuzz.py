"""A few dozen mutants of each kind of file; `python -m proofs.fuzz --count 1000` reads more."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from proofs import fuzz


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", fuzz.NAMES)
def test_mutants_are_read_or_refused_by_name(name):
    result = fuzz.fuzz(name, 40)
    assert not result.wrong
    assert sum(result.outcomes.values()) == 40 and result.outcomes["refused"] > 0
    assert result.peak < fuzz.MEMORY


def test_every_kind_is_fuzzed():
    assert tuple(fuzz.kinds()) == fuzz.NAMES


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.kill(os.getpid(), 11)", "ended (-11)"),
        ("import time; time.sleep(99)", "took more than"),
        ("raise KeyError('odd')", "KeyError: 'odd'"),
        ("raise DataError('no name')", "badly told: 'no name'"),
    ],
)
def test_what_goes_wrong_would_be_seen(tmp_path, monkeypatch, code, words):
    """The watcher, watched: a reader that crashes, hangs, or fails in another way."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from proofs import fuzz\n"
        "from wsfcn.data.sample import DataError\n"
        f"def read(path):\n    {code}\n"
        "usual = fuzz.kinds()['labels']\n"
        "fuzz.kinds = lambda: {'labels': usual._replace(read=read)}\n"
        "sys.exit(fuzz.main())\n"
    )
    monkeypatch.setattr(fuzz, "__file__", str(program))
    monkeypatch.setattr(fuzz, "SECONDS", 15)
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    begun = time.monotonic()
    result = fuzz.fuzz("labels", 1)
    assert result.outcomes == {"wrong": 1} and words in result.wrong[0][1]
    assert time.monotonic() - begun < 110
