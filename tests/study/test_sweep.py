"""Sweeps: real runs in processes of their own; killed, stopped and failing ones."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from wsfcn import recipes
from wsfcn.settings import SettingsError
from wsfcn.study import execute as one
from wsfcn.study import sweep as module
from wsfcn.study.ablations import frame, read
from wsfcn.study.experiments import Experiment, Run
from wsfcn.study.sweep import SweepError, sweep

ROOT = Path(__file__).parents[2]
TINY = """\
recipe: smoke_scenes
rows: [baseline, sf2]
seeds: [0, 1]
changes: {data.train: 8, data.val: 3, train.epochs: 2, train.batch_size: 4}
scores: {as trained: {}, elsewhere: {elsewhere: true}}
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("spec") / "tiny.yml"
    path.write_text(TINY)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "cache"


def scores(folder):
    """All that a table says, but how long it took."""
    return (
        frame(read(folder))
        .drop(columns="minutes")
        .sort_values(["score", "row", "seed"], ignore_index=True)
    )


@pytest.fixture(scope="module")
def whole(spec, tmp_path_factory):
    """The folder of a sweep that ran through."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSFCN_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        records = sweep(Experiment.read(spec).runs(), folder / "out", jobs=2, progress=False)
    assert [(r["run"]["row"], r["run"]["seed"]) for r in records] == [
        (row, seed) for seed in (0, 1) for row in ("baseline", "sf2")
    ]
    return folder / "out"


@pytest.mark.timeout(600)
def test_a_record_says_how_it_came_about(whole):
    for path in whole.iterdir():
        record = json.loads(path.read_text())
        assert path.name.endswith(f"-{record['key']}.record.json")
        run = Run(**record["run"])
        assert run.recipe.train.seed == run.seed and run.recipe.data.train == 8
        assert {*record["scores"]} == {"as trained", "elsewhere"}
        for score in record["scores"].values():
            assert len(score["counts"]) == len(score["problems"]) == 3 and score["protocol"]
        assert record["metrics"]["parameters, M"] > 0 and record["metrics"]["minutes"] > 0
        assert {"training", "scores", "whole"} == {*record["seconds"]}
        assert record["code"]["package"] and record["environment"]["torch"]
        assert record["hardware"]["threads"] == 1 and record["data"]["train"]


@pytest.mark.timeout(600)
def test_a_sweep_that_is_killed_goes_on_to_the_same_table(spec, whole, cache, tmp_path):
    command = [sys.executable, "-m", "wsfcn", "sweep", str(spec), "--jobs", "2", "--out", "out"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    options = {"cwd": tmp_path, "env": environment, "text": True}
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, **options)
    while not [*tmp_path.glob("out/*.record.json")]:
        assert first.poll() is None
        time.sleep(0.02)
    first.kill()
    first.wait()
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*.record.json")}
    assert 0 < len(done) < 4
    again = subprocess.run(command, capture_output=True, check=True, **options)
    assert {path: path.stat().st_mtime_ns for path in done} == done  # found, not repeated
    assert f"{len(done)}/4" in again.stderr
    pd.testing.assert_frame_equal(scores(tmp_path / "out"), scores(whole))
    assert again.stdout.count("| sf2 | 2 |") == 2 and "score elsewhere" in again.stdout
    third = subprocess.run(command, capture_output=True, check=True, **options)
    assert third.stdout == again.stdout


@pytest.mark.timeout(600)
def test_a_killed_dask_worker_costs_no_run(spec, whole, cache, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(processes=True, **options) as cluster:
        killed = threading.Event()

        def kill():
            while not [*(cache / "runs").glob("*/metrics.jsonl")]:  # a training is on its way
                time.sleep(0.02)
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
            killed.set()

        threading.Thread(target=kill, daemon=True).start()
        address = cluster.scheduler_address
        runs = Experiment.read(spec).runs(seeds=[0])
        sweep(runs, tmp_path / "out", scheduler=address, progress=False)
        assert killed.is_set()
    wanted = scores(whole).query("seed == 0").reset_index(drop=True)
    pd.testing.assert_frame_equal(scores(tmp_path / "out"), wanted)


def test_a_scheduler_that_does_not_answer_is_named(spec, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    client = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda a, **o: client(a, **o | {"timeout": 1}))
    with pytest.raises(ConnectionError, match=r"--scheduler tcp://127.0.0.1:9: no Dask scheduler"):
        sweep(Experiment.read(spec).runs(), tmp_path / "out", scheduler="tcp://127.0.0.1:9")


# --- one run in its process ---


@pytest.fixture
def slow(write_notebook, parameters, tmp_path):
    """A run of a notebook that notes each start, and waits unless `go` is there."""
    body = (
        "import os, pathlib, time\nfolder = pathlib.Path(folder)\n"
        "(folder / f'started-{time.time_ns()}').write_text(str(os.getppid()))\n"
        "while wait and not (folder / 'go').exists(): time.sleep(0.05)\n"
        "from wsfcn.study.record import record\nrecord('rate', {'a': 0.5 + n})"
    )
    path = write_notebook([parameters("n = 1\nwait = True\nfolder = ''"), body])
    (tmp_path / "seen").mkdir()
    text = f"name: slow\nnotebook: {path}\nchanges: {{folder: {tmp_path / 'seen'}}}\n"
    (tmp_path / "slow.yml").write_text(text + "grid: {n: [1, 2]}\n")
    return Experiment.read(tmp_path / "slow.yml").runs(), tmp_path / "seen"


def started(seen, count):
    while len([*seen.glob("started-*")]) < count:
        time.sleep(0.05)


def test_a_killed_run_is_started_again(slow, tmp_path):
    (run, _), seen = slow

    def kill():
        started(seen, 1)
        os.kill(next(iter(one._running)).pid, signal.SIGKILL)
        (seen / "go").touch()

    threading.Thread(target=kill, daemon=True).start()
    record = one.execute(run.model_dump(mode="json"), str(tmp_path / "out"))
    assert len([*seen.glob("started-*")]) == 2 and not one._running
    assert record["metrics"]["rate.a"] == 1.5 and record["records"] == {"rate": {"a": 1.5}}
    assert record["run"]["parameters"]["n"] == 1
    (copy,) = (tmp_path / "out").glob("tiny-*/tiny.ipynb")
    assert copy.is_file()


def test_a_sweep_over_notebooks_has_a_table(slow, tmp_path):
    runs, seen = slow
    (seen / "go").touch()
    sweep(runs, tmp_path / "out", jobs=2, progress=False)
    table = frame(read(tmp_path / "out"))
    assert table[["row", "n", "rate.a"]].to_numpy().tolist() == [["tiny", 1, 1.5], ["tiny", 2, 2.5]]


def test_a_run_leaves_with_its_parent(slow, tmp_path):
    (run, _), seen = slow
    code = (
        "import json, sys; from wsfcn.study.execute import execute; "
        "execute(json.loads(sys.argv[1]), sys.argv[2])"
    )
    text = json.dumps(run.model_dump(mode="json"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, text, str(tmp_path / "out")]
    parent = subprocess.Popen(command, env=environment)
    started(seen, 1)
    (note,) = seen.glob("started-*")
    child = int(note.read_text())
    parent.kill()
    parent.wait()
    for _ in range(300):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("the run outlived its parent")


def test_a_run_may_fork_while_it_watches_its_parent():
    """As processes that load data are; one of them once waited for the lock of sys.stdin."""
    code = """
import multiprocessing, threading, time
from wsfcn.study import execute
threading.Thread(target=execute._leave_with_parent, daemon=True).start()
time.sleep(0.3)
child = multiprocessing.get_context("fork").Process(target=print, args=("forked",))
child.start()
child.join(20)
print("alive" if child.is_alive() else "done", flush=True)
child.kill()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    told = [process.stdout.readline() for _ in range(2)]
    process.stdin.close()
    assert process.wait(timeout=60) in (0, 1)
    assert told == ["forked\n", "done\n"]


def test_an_interrupted_sweep_stops_its_runs(slow, tmp_path):
    _, seen = slow
    command = [sys.executable, "-m", "wsfcn", "sweep", str(tmp_path / "slow.yml"), "--out", "out"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    options = {"cwd": tmp_path, "env": environment, "text": True, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*command, "--jobs", "1"], **options)
    started(seen, 1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said.splitlines()[-1] == "wsfcn: interrupted; the same command goes on"
    assert len([*seen.glob("started-*")]) == 1  # the other was not begun


@pytest.fixture
def fail(monkeypatch):
    """fail({row: error}) stands in for the runs: an error, or a record."""

    def stand_in(errors):
        def execute(run, folder, threads):
            made = Run(**run)
            if made.row in errors:
                raise errors[made.row]
            return {
                "key": made.key,
                "run": made.told(),
                "scores": {},
                "metrics": {"x": made.seed},
                "seconds": {"whole": 1.0},
            }

        monkeypatch.setattr(module, "execute", execute)

    return stand_in


def test_a_failed_run_costs_no_other_and_is_tried_again(spec, fail, tmp_path, capsys):
    runs = Experiment.read(spec).runs()
    fail({"sf2": one.RunError("ValueError: too bad", "Traceback ...\nValueError: too bad")})
    message = r"^sf2, seed \d: ValueError: too bad \(and 1 more\); 2 of 4 runs have records$"
    with pytest.raises(SweepError, match=message):
        sweep(runs, tmp_path, jobs=2)
    assert "baseline, seed 0: 0.0 min" in capsys.readouterr().err
    logs = sorted(tmp_path.glob("*.failed.txt"))
    assert [re.sub("-[0-9a-f]{12}", "", log.name) for log in logs] == [
        "sf2-s0.failed.txt",
        "sf2-s1.failed.txt",
    ]
    assert logs[0].read_text().startswith("Traceback")
    fail({"baseline": AssertionError("is recorded already")})
    assert len(sweep(runs, tmp_path, jobs=2, progress=False)) == 4
    assert not [*tmp_path.glob("*.failed.txt")]
    with pytest.raises(SweepError, match="2 of 4"):
        sweep(runs, tmp_path, again=True, progress=False)


def test_a_full_disk_stops_the_sweep_and_keeps_what_is_there(spec, fail, tmp_path, monkeypatch):
    runs, write = Experiment.read(spec).runs(), module.write_record
    fail({})

    def full(folder, record):
        if [*folder.iterdir()]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "x"))
        write(folder, record)

    monkeypatch.setattr(module, "write_record", full)
    message = r"baseline, seed \d: the disk of \S+ or of \S+ is full; free some"
    with pytest.raises(SweepError, match=message.replace("baseline", r"\w+")):
        sweep(runs, tmp_path, jobs=1, progress=False)
    assert len(read(tmp_path)) == 1
    monkeypatch.setattr(module, "write_record", write)
    fail({"baseline": one.RunError("OSError: [Errno 28] No space left on device: 'y'")})
    with pytest.raises(SweepError, match=message):
        sweep(runs, tmp_path / "other", jobs=1, progress=False)


def test_a_run_says_what_went_wrong_in_its_last_line(cache):
    recipe = recipes.smoke_scenes().change({"train.batch_size": 300})
    with pytest.raises(one.RunError, match=r"^ValueError: train.batch_size: 300 is more") as caught:
        one.execute(Run(row="x", seed=0, recipe=recipe).model_dump(mode="json"))
    assert "Traceback" in caught.value.log


def test_photos_that_are_not_there_are_said_before_anything_starts(fail, tmp_path):
    fail({})
    experiment = Experiment.read("table1_photos")
    with pytest.raises(SettingsError, match=r"data.root: nothing; voc needs the folder"):
        sweep(experiment.runs(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_each_run_has_a_gpu_of_its_own(monkeypatch):
    """With stand-ins for two GPUs: never one for two runs at a time, and none is lost."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    one._devices.cache_clear()
    busy, seen = [], []

    def call(payload, environment):
        device = environment["CUDA_VISIBLE_DEVICES"]
        assert device not in busy
        busy.append(device), seen.append(device)
        time.sleep(0.05)
        busy.remove(device)
        return (1, "", "ValueError: no") if payload["run"] == {"n": 2} else (0, "{}", "")

    monkeypatch.setattr(one, "_call", call)
    try:
        assert one.gpus() == 2

        def run(n):
            try:
                one.execute({"n": n})
            except one.RunError:
                assert n == 2

        threads = [threading.Thread(target=run, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {*seen} == {"3", "5"} and len(seen) == 6 and one.gpus() == 2
    finally:
        one._devices.cache_clear()
