"""Kill a training again and again, go on each time, and compare with the undisturbed one.

`python -m proofs.kills --kills 25` prints what was done and whether every bit is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from wsfcn import recipes
from wsfcn.recipes import Recipe
from wsfcn.weights import read_safetensors

# The lite recipe on fewer scenes, drawn by workers instead of cached, dropout and gate drawing.
LITE = recipes.lite_scenes().change(
    {
        "data.train": 240,
        "data.val": 12,
        "train.views": 0,
        "train.epochs": 5,
        "train.warmup_epochs": 1,
        "train.batch_size": 12,
        "model.context_dropout": 0.5,
        "model.decoder_dropout": (0.5, 0.1),
    }
)
SCRIPT = """
import sys, torch
from wsfcn import recipes
from wsfcn.train import train
torch.set_num_threads(1)
recipe = recipes.Recipe.model_validate_json(sys.argv[2])
told = lambda step, rows: print("step", step, flush=True)
train(recipe, sys.argv[1], resume=True, monitor=2, every=2, progress=False, on_step=told)
"""


def differences(file: Path, other: Path) -> list[str]:
    """The names of tensors that are not the same bits in two files."""
    (first, _), (second, _) = read_safetensors(file), read_safetensors(other)
    if first.keys() != second.keys():
        return sorted(first.keys() ^ second.keys())
    return [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]


def _start(folder: Path, recipe: Recipe) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), recipe.model_dump_json()],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def prove(place: Path, kills: int, recipe: Recipe = LITE, seed: int = 0, say=None) -> list[str]:
    """Train undisturbed and with so many SIGKILLs; what differs in the end: nothing, hopefully.

    A process is killed at a random moment of one of its first steps, at times also while it
    starts, and started again with 0 to 3 workers.
    """
    say = say or (lambda line: None)
    whole = _start(place / "whole", recipe)
    assert whole.wait() == 0, whole.stderr.read()
    draw = random.Random(seed)
    total = recipe.train.epochs * (recipe.data.train // recipe.train.batch_size)
    reached = killed = done = 0
    while True:
        workers = draw.randint(0, 3)
        process = _start(place / "killed", recipe.change({"train.workers": workers}))
        if killed == kills:
            said = process.communicate()[1]
            assert process.returncode == 0, said
            break
        # Far enough on the way to be through with the kills just before the end.
        goal = reached + draw.randint(0, max(1, 2 * (total - reached) // (kills - killed + 1)))
        if goal == reached:
            time.sleep(draw.uniform(0, 4))
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        done = reached
        while done < min(goal, total - 1):
            line = process.stdout.readline()
            assert line, f"ended by itself after step {done}: {process.wait()}"
            done = int(line.split()[1])
        time.sleep(draw.uniform(0, 0.5))
        assert process.poll() is None, "the training ended before all kills were done"
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        files = sorted((place / "killed" / "checkpoints").glob("step-*.safetensors"))
        reached = int(files[-1].stem.removeprefix("step-")) if files else 0
        say(
            f"kill {killed}: {workers} workers, in step {done + 1} of {total}; goes on at {reached}"
        )
    wrong = []
    for name in ("model.safetensors", "best.safetensors"):
        wrong += [
            f"{name}: {k}" for k in differences(place / "whole" / name, place / "killed" / name)
        ]
    newest = [sorted((place / k / "checkpoints").glob("step-*"))[-1] for k in ("whole", "killed")]
    wrong += [f"checkpoint: {name}" for name in differences(*newest)]
    logs = []
    for kind in ("whole", "killed"):
        rows = map(json.loads, (place / kind / "metrics.jsonl").read_text().splitlines())
        logs.append([{k: v for k, v in row.items() if k != "seconds"} for row in rows])
    return wrong + (["metrics.jsonl"] if logs[0] != logs[1] else [])


def main() -> int:
    """The command line; exit code 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        begun = time.perf_counter()
        wrong = prove(Path(place), given.kills, seed=given.seed, say=print)
        seconds = time.perf_counter() - begun
    print(f"{given.kills} kills, {seconds:.0f} s; different: {', '.join(wrong) or 'nothing'}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
