"""Training at scale: processes, passes, precision and memory change speed, not the result."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import wsfcn.build
from wsfcn import recipes
from wsfcn.model.layers import FixedStatsBatchNorm2d
from wsfcn.train import train
from wsfcn.weights import read_safetensors

# Four images are one batch; nothing is random but the initial weights.
STEP = recipes.smoke_scenes().change(
    {
        "data.scenes.size": 64,
        "augment.crop": 64,
        "data.train": 4,
        "data.val": 3,
        "model.frozen": 5,
        "model.gate_rate": 0.0,
        "train.views": 0,
        "train.batch_size": 4,
        "train.learning_rate": 1e-3,
        "weak.floor": 0.0,
        "weak.background_factor": 0.9,
        "train.epochs": 1,
        "train.warmup_epochs": 0,
        "train.average": 0.0,
    }
)


def start() -> torch.nn.Module:
    torch.manual_seed(STEP.train.seed)
    return wsfcn.build_model(STEP)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return read_safetensors(folder / "model.safetensors")[0]


def one_process(folder: Path, recipe: recipes.Recipe = STEP) -> dict[str, torch.Tensor]:
    train(recipe, folder, monitor=2, progress=False)
    return tensors_of(folder)


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest difference, relative to values above 1 (variances of features are)."""
    assert found.keys() == expected.keys()
    pairs = ((found[k].double(), expected[k].double()) for k in expected)
    return max(float(((a - b).abs() / b.abs().clamp(min=1)).max()) for a, b in pairs)


def torchrun(folder: Path, recipe: recipes.Recipe, before: str = "", resume: bool = False) -> str:
    """Train on two processes, `before` being run first in each; what they printed."""
    script = folder.with_suffix(".py")
    script.write_text(
        "import os, sys, torch\n"
        "from wsfcn import recipes\n"
        f"{before}\n"
        "from wsfcn.train import train\n"
        "torch.set_num_threads(1)\n"
        f"recipe = recipes.Recipe.model_validate_json({recipe.model_dump_json()!r})\n"
        f"result = train(recipe, sys.argv[1], monitor=2, progress=False, resume={resume})\n"
        "print('SCORE', result.score.images, result.score.mean_iou, flush=True)\n"
        "os._exit(0)\n"  # as `wsfcn train` does
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), str(script), str(folder)]
    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, Path, str]:
    """The run of one process, that of two, and what the two printed."""
    folder = tmp_path_factory.mktemp("distributed")
    one_process(folder / "one")
    return folder / "one", folder / "two", torchrun(folder / "two", STEP)


def test_a_step_on_two_processes_equals_the_step_on_one(both):
    one, two, _ = both
    expected = tensors_of(one)
    assert distance(dict(start().state_dict()), expected) > 1e-3  # the step has moved something
    assert distance(tensors_of(two), expected) < 1e-5


def test_batch_norms_see_the_batch_of_all_processes(both):
    expected, found = (tensors_of(folder) for folder in both[:2])
    statistics = [k for k in expected if k.startswith("decoder.") and "running_" in k]
    assert statistics
    for name in statistics:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_processes_share_the_scoring_and_one_writes(both):
    one, two, printed = both
    scores = [line.split() for line in printed.splitlines() if line.startswith("SCORE")]
    assert len(scores) == 2 and scores[0] == scores[1]
    assert scores[0][1] == "3"  # all three validation images
    rows = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (one, two)]
    assert len(rows[0]) == len(rows[1]) == 2
    losses = [json.loads(own[0]) for own in rows]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0]["mask_loss"] > 0  # some image's gate was open


def test_passes_of_a_batch_add_up_to_the_batch(tmp_path, monkeypatch):
    usual = wsfcn.build.build_model

    def without_batch_statistics(*arguments, **named):
        network = usual(*arguments, **named)
        for module in network.modules():
            if type(module) is torch.nn.BatchNorm2d:
                module.__class__ = FixedStatsBatchNorm2d
                module.eval()
        return network

    monkeypatch.setattr(wsfcn.build, "build_model", without_batch_statistics)
    whole = one_process(tmp_path / "whole")
    parts = one_process(tmp_path / "parts", STEP.change({"train.accumulate": 2}))
    assert distance(parts, whole) < 1e-6


def test_checkpointing_changes_nothing(tmp_path):
    plain = one_process(tmp_path / "plain")
    saving = one_process(tmp_path / "saving", STEP.change({"train.checkpointing": True}))
    assert distance(saving, plain) == 0


def test_compiled_training_equals_plain(tmp_path, monkeypatch):
    usual = torch.compile
    # The default backend needs a compiler and minutes; this one traces, and runs what it traced.
    monkeypatch.setattr(
        torch,
        "compile",
        lambda module, **named: usual(module, **(named | {"backend": "eager"})),
    )
    plain = one_process(tmp_path / "plain")
    compiled = one_process(tmp_path / "compiled", STEP.change({"train.compile": True}))
    assert distance(compiled, plain) < 1e-5


def test_bf16_training_stays_close(tmp_path):
    plain = one_process(tmp_path / "plain")
    half = one_process(tmp_path / "half", STEP.change({"train.precision": "bf16-mixed"}))
    assert all(v.dtype == plain[k].dtype for k, v in half.items())
    moved = distance(plain, dict(start().state_dict()))
    assert 0 < distance(half, plain) < 0.2 * moved


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.accumulate": 3}, "batch_size: 4 cannot be split over 1 processes times 3 passes"),
        ({"train.compile": True, "train.views": 1}, "train.compile: compiles the way from images"),
    ],
)
def test_what_cannot_be_is_said(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        one_process(tmp_path / "run", STEP.change(changes))


@pytest.mark.timeout(300)
def test_no_process_takes_a_step_that_is_not_finite_in_one(tmp_path):
    poison = """
import os
import wsfcn.train as module
usual = module.losses
def losses(output, *rest, **named):
    found = usual(output, *rest, **named)
    bad = float("nan") if os.environ["RANK"] == "1" and named["warm_up"] else 0.0
    return found._replace(classification=found.classification + bad)
module.losses = losses
"""
    recipe = STEP.change({"train.epochs": 2, "train.warmup_epochs": 1})
    torchrun(tmp_path / "run", recipe, poison)
    [file] = (tmp_path / "run" / "bad").iterdir()
    assert file.stem == "epoch-001-step-00001-process-1"
    kept = read_safetensors(file)[0]
    before = {k.removeprefix("network."): v for k, v in kept.items() if k.startswith("network.")}
    assert distance(before, dict(start().state_dict())) == 0
    steps = [json.loads(s) for s in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("skipped") for row in steps if "step" in row] == [1, None]
    expected = one_process(tmp_path / "one", recipe.change({"train.warmup_epochs": 0}))
    found = tensors_of(tmp_path / "run")
    assert all(v.isfinite().all() for v in found.values()) and expected.keys() == found.keys()


@pytest.mark.timeout(600)
def test_processes_go_on_where_they_stopped(tmp_path):
    recipe = STEP.change({"train.epochs": 3, "model.gate_rate": 0.3, "model.context_dropout": 0.5})
    torchrun(tmp_path / "whole", recipe)
    stop = """
import signal
import wsfcn.train as module
usual = module.train
def train(*rest, **named):
    def hook(step, rows):
        if step == 2 and module.torch.distributed.get_rank() == 1:
            signal.raise_signal(signal.SIGTERM)
    try:
        usual(*rest, **named, on_step=hook)
    except KeyboardInterrupt as error:
        print(error, flush=True)
        os._exit(0)
module.train = train
"""
    said = torchrun(tmp_path / "cut", recipe, stop)
    torchrun(tmp_path / "cut", recipe, resume=True)
    assert said.count("stopped after step 2 of 3, nothing is lost") == 2
    assert distance(tensors_of(tmp_path / "cut"), tensors_of(tmp_path / "whole")) == 0
