"""One run of an experiment: `run_one` in this process, `execute` in a process of its own.

A run of its own process has its own threads, random numbers and GPU, gives its memory back, and
may be killed without harm to the others. It reads what to do from its input, as JSON, answers on
its output with the record, and leaves when its parent does.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import pandas as pd

from ..allocation import keep_freed_memory
from .experiments import Run
from .kernel import variables
from .provenance import provenance

RETRIES = 2
RECALL = 2 << 30  # bytes of network outputs that the protocols of a run share
Json = dict[str, Any]


class RunError(Exception):
    """A run that failed; the message is the last line it said, `log` all of it."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message, log)  # both, so that it can be sent from another machine
        self.message, self.log = message, log

    def __str__(self) -> str:
        return self.message


def run_one(run: Mapping[str, Any], folder: str = "") -> Json:
    """The record of a run, given as plain values (`Run.model_dump`); both are plain JSON.

    A training is that of the cache: finished ones are read back, others go on. Executed notebooks
    are kept in `folder`.
    """
    started, made = time.perf_counter(), Run(**run)
    record = _notebook(made, folder) if made.notebook else _training(made)
    record["seconds"]["whole"] = round(time.perf_counter() - started, 1)
    return {"key": made.key, "run": made.told(), **record, **provenance()}


def _training(run: Run) -> Json:
    import torch

    from ..data import build_split
    from ..features import Remembered
    from ..model.network import count_parameters
    from .cam_floor import cam_floor
    from .measures import measure
    from .provenance import data_fingerprint
    from .trained import trained

    recipe = run.recipe
    assert recipe is not None
    train = build_split(recipe.data, "train")
    result = trained(recipe, progress=False)
    model = result.model.to("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    scorer = Remembered(model, recall=RECALL) if recipe.train.views else model
    scores = {
        name: measure(scorer, scoring.data_of(recipe), scoring.protocol_of(recipe))
        for name, scoring in run.scores.items()
    }
    training = sum(row.get("seconds", 0) for row in result.rows)
    metrics = {"parameters, M": count_parameters(model) / 1e6, "minutes": round(training / 60, 4)}
    if run.floor:
        cam = cam_floor(recipe, progress=False)
        told = {"best CAM": "class filter", "best CAM, labels given": "image labels given"}
        metrics |= {name: round(100 * cam.best(curve)[1], 4) for name, curve in told.items()}
    seconds = {"training": round(training, 1), "scores": round(time.perf_counter() - started, 1)}
    files = getattr(train, "fingerprint", str)()  # of photos; scenes follow from the settings
    data = {"train": data_fingerprint(recipe.data, files)}
    return {"scores": scores, "metrics": metrics, "data": data, "seconds": seconds}


def _notebook(run: Run, folder: str) -> Json:
    from .notebooks import run_notebook

    done = run_notebook(
        run.notebook, run.parameters, folder or "runs/notebooks", keyed=True, progress=False
    )
    numbers = pd.json_normalize(done.records).iloc[0].to_dict() if done.records else {}
    metrics = {k: v for k, v in numbers.items() if isinstance(v, (int, float))}
    metrics["minutes"] = round(done.seconds / 60, 4)
    found = {"scores": {}, "metrics": metrics, "records": done.records, "data": done.data}
    return {**found, "seconds": {"notebook": done.seconds}}


def execute(run: Mapping[str, Any], folder: str = "", threads: int = 0) -> Json:
    """`run_one` in a process of its own, on a GPU of its own where there are GPUs.

    threads: of the process; 0: as many as it likes. A process that was killed is started again,
    RETRIES times. Raises RunError with the last line that the run said.
    """
    environment = os.environ | variables()
    environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    devices = _devices()
    device = devices.get() if devices is not None else ""
    try:
        if device:
            environment["CUDA_VISIBLE_DEVICES"] = device
        for _ in range(RETRIES + 1):
            code, answer, said = _call({"run": dict(run), "folder": folder}, environment)
            if code >= 0 or leaving.is_set():
                break
    finally:
        if devices is not None:
            devices.put(device)
    if code == 0:
        record: Json = json.loads(answer)
        return record
    last = (said.strip().splitlines() or ["said nothing"])[-1]
    if code < 0:
        why = {-signal.SIGBUS: "is the disk full?", -signal.SIGKILL: "was memory short?"}
        hint = why.get(code, f"it last said: {last}")
        last = f"its process was killed {RETRIES + 1} times, by signal {-code}; {hint}"
    raise RunError(last, said)


leaving = threading.Event()
"""Set while the runs of this process are given up."""
_running: set[subprocess.Popen[str]] = set()


def stop() -> None:
    """Kill the runs of this process; what they have trained so far stays and is gone on with."""
    leaving.set()
    for process in [*_running]:
        process.kill()


def _call(payload: Json, environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit code, output and messages of a process that runs the payload."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=messages,
            env=environment,
            text=True,
            start_new_session=True,  # an interrupt of the terminal reaches the parent alone
        )
        _running.add(process)
        try:
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(payload) + "\n")
                process.stdin.flush()
            except BrokenPipeError:
                pass  # it is dead already; its exit code says how
            process.wait()
        finally:
            process.kill()
            process.wait()
            _running.discard(process)
        output.seek(0), messages.seek(0)
        return process.returncode, output.read(), messages.read()


@cache
def _devices() -> queue.LifoQueue[str] | None:
    """The GPUs of this process that no run has; None where there are none at all."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else map(str, range(torch.cuda.device_count()))
    free: queue.LifoQueue[str] = queue.LifoQueue()
    for name in reversed([n for n in names if torch.cuda.is_available()]):
        free.put(name)
    return free if free.qsize() else None


def gpus() -> int:
    """How many GPUs this process may use."""
    devices = _devices()
    return 0 if devices is None else devices.qsize()


def _leave_with_parent() -> None:
    # Not through sys.stdin: a process forked while a thread holds its lock, as those that load
    # data are, would wait for that lock for ever.
    while os.read(0, 4096):  # ends when the parent does, however it ends
        pass
    os._exit(1)


def main() -> int:
    """What the process of a run does."""
    keep_freed_memory()
    payload = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        record = run_one(payload["run"], payload["folder"])
    except Exception as error:
        import traceback

        traceback.print_exc()
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    with answer:
        json.dump(record, answer, allow_nan=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
