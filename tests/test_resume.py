"""A training stopped anywhere and in any way goes on to the same bits; nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from proofs import kills
from wsfcn import cli, recipes
from wsfcn.data import build as build_data
from wsfcn.runs import RunError, RunFolder, read_recipe
from wsfcn.stop import Interrupted
from wsfcn.train import train
from wsfcn.weights import WeightsError, read_safetensors, write_safetensors

# Dropout and gates draw at every step, workers read the images, three passes make a step.
TINY = recipes.smoke_scenes().change(
    {
        "data.scenes.size": 64,
        "augment.crop": 64,
        "data.val": 3,
        "train.batch_size": 6,
        "train.accumulate": 3,
        "train.views": 0,
        "train.average": 0.9,
        "model.context_dropout": 0.5,
        "model.decoder_dropout": (0.5, 0.1),
    }
)
STEPS = 4  # an epoch
MONKEY = 7


class CutError(Exception):
    pass


def run(folder: Path, recipe: recipes.Recipe = TINY, **options):
    return train(recipe, folder, progress=False, monitor=2, **options)


def cut_at(moment: int):
    """An on_step that draws from every generator and ends the training after a step."""

    def hook(step, rows):
        torch.rand(1), np.random.rand(), random.random(), random.gauss(0, 1)
        if step == moment:
            raise CutError

    return hook


def last_state(folder: Path) -> tuple[dict, dict]:
    return read_safetensors(sorted((folder / "checkpoints").glob("*.safetensors"))[-1])


def lasting(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def assert_same(folder: Path, other: Path) -> None:
    """Bit for bit: the network, the log, and all that the last checkpoint holds."""
    for name in ("model.safetensors", "best.safetensors"):
        assert kills.differences(folder / name, other / name) == []
    logs = [(f / "metrics.jsonl").read_text().splitlines() for f in (folder, other)]
    assert lasting(map(json.loads, logs[0])) == lasting(map(json.loads, logs[1]))
    (tensors, values), (found, told) = last_state(folder), last_state(other)
    assert tensors.keys() == found.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, found[name]), name
    assert {"random.torch", "momentum.0"} <= tensors.keys()
    for state in (values, told):
        state["rows"] = lasting(state["rows"])
    assert values == told and values["python"] and values["numpy"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    random.seed(MONKEY), np.random.seed(MONKEY)
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run(folder, on_step=cut_at(-1))
    return folder


@pytest.mark.parametrize("moment", range(1, 2 * STEPS))
def test_from_every_step_with_any_number_of_workers(undisturbed, tmp_path, moment):
    random.seed(MONKEY), np.random.seed(MONKEY)
    workers = TINY.change({"train.workers": moment % 3})
    with pytest.raises(CutError):
        run(tmp_path / "cut", workers, every=1, keep=1, on_step=cut_at(moment + 1))
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    run(tmp_path / "cut", resume=True, on_step=cut_at(-1))
    assert_same(undisturbed, tmp_path / "cut")


def test_the_loss_scaler_goes_on(tmp_path):
    def scaled():
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=2)
        return Fabric(accelerator="cpu", plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    small = {"data.scenes.size": 32, "augment.crop": 32, "data.train": 12, "train.batch_size": 2}
    recipe = TINY.change(small | {"train.accumulate": 1})

    def stop(step, rows):
        if step == 5:
            raise CutError

    run(tmp_path / "whole", recipe, fabric=scaled(), bad=100)
    with pytest.raises(CutError):
        run(tmp_path / "cut", recipe, fabric=scaled(), bad=100, every=1, on_step=stop)
    told = last_state(tmp_path / "cut")[1]
    assert told["scaler"]["scale"] != 2.0**20 and told["skipped"]  # it had to look for its scale
    run(tmp_path / "cut", recipe, fabric=scaled(), bad=100, resume=True)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_the_newest_and_the_best_are_kept(tmp_path):
    run(tmp_path / "run", every=1, keep=3)
    names = sorted(p.stem for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000006", "step-00000007", "step-00000008"]
    rows = [r for r in RunFolder(tmp_path / "run", TINY, True).rows() if "mean_iou" in r]
    best = read_safetensors(tmp_path / "run" / "best.safetensors")[1]["provenance"]
    assert best == max(rows, key=lambda row: row["mean_iou"])
    with pytest.raises(ValueError, match="keep: needs at least 1"):
        run(tmp_path / "none", keep=0)


# --- signals and death ---


def child(folder: Path, *flags: str, **options) -> subprocess.Popen:
    """A training in a process of its own, by the command line."""
    command = [sys.executable, "-m", "wsfcn", "train", *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def changes() -> list[str]:
    """The flags that make TINY of smoke_scenes."""
    found = "--data.scenes.size 64 --augment.crop 64 --data.val 3 --train.batch-size 6"
    found += " --train.accumulate 3 --train.views 0 --train.average 0.9"
    found += " --model.context-dropout 0.5 --model.decoder-dropout 0.5 0.1"
    return found.split()


def wait_for_steps(folder: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 90
    while not list((folder / "checkpoints").glob("step-*.safetensors")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(undisturbed, tmp_path, number, code):
    folder = tmp_path / "run"
    flags = ["smoke_scenes", *changes(), "--out", str(folder), "--every", "1"]
    process = child(folder, *flags, "--train.workers", "2", "--train.epochs", "500")
    wait_for_steps(folder, process)
    os.killpg(process.pid, number)  # as a terminal or a scheduler does: workers get it, too
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    [line] = [line for line in said.splitlines() if line.startswith("wsfcn: ")]
    assert "nothing is lost; go on with: wsfcn train --resume" in line and str(folder) in line
    assert "Traceback" not in said
    step = int(line.split("step ")[1].split()[0])
    assert (folder / "checkpoints" / f"step-{step:08d}.safetensors").exists()


def test_a_signal_between_steps_goes_on_to_the_same_bits(tmp_path):
    def hook(step, rows):
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped after step 3 of 8") as caught:
        run(tmp_path / "run", on_step=hook)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    run(tmp_path / "run", resume=True)
    run(tmp_path / "whole")
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_a_second_signal_does_not_wait(tmp_path):
    def hook(step, rows):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="interrupted; go on with"):
        run(tmp_path / "run", on_step=hook)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.timeout(600)
def test_killed_at_random_and_gone_on_with_other_workers(tmp_path):
    assert kills.prove(tmp_path, kills=2, recipe=TINY, seed=1) == []


# --- one process a folder ---


def test_a_second_process_is_refused(tmp_path):
    folder = tmp_path / "run"
    flags = ["smoke_scenes", *changes(), "--out", str(folder), "--every", "1"]
    process = child(folder, *flags, "--train.epochs", "500")
    try:
        wait_for_steps(folder, process)
        recipe = read_recipe(folder)
        with pytest.raises(RunError, match=f"process {process.pid} on .* trains in it"):
            run(folder, recipe, resume=True)
    finally:
        process.kill()
        process.communicate()
    with RunFolder(folder, recipe, resume=True) as own:  # its death let go of the lock
        assert own.newest() is not None


# --- damaged checkpoints ---


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "bit":
        data[len(data) // 2] ^= 4
    path.write_bytes({"torn": data[: len(data) // 3], "empty": b"", "bit": data}[how])


@pytest.mark.parametrize("how", ["torn", "empty", "bit"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(undisturbed, tmp_path, how):
    random.seed(MONKEY), np.random.seed(MONKEY)
    with pytest.raises(CutError):
        run(tmp_path / "run", every=1, on_step=cut_at(6))
    newest = tmp_path / "run" / "checkpoints" / "step-00000005.safetensors"
    damage(newest, how)
    with pytest.warns(UserWarning, match=r"step-00000005.safetensors: .*; going on from the"):
        run(tmp_path / "run", resume=True, on_step=cut_at(-1))
    assert newest.with_suffix(".damaged").exists()
    assert_same(undisturbed, tmp_path / "run")


def test_where_no_checkpoint_is_whole_the_training_begins_anew(tmp_path):
    with pytest.raises(CutError):
        run(tmp_path / "run", every=1, on_step=cut_at(3))
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        damage(path, "torn")
    with pytest.warns(UserWarning, match="step-00000001"):
        again = run(tmp_path / "run", resume=True)
    run(tmp_path / "whole")
    assert lasting(again.rows) == lasting(RunFolder(tmp_path / "whole", TINY, True).rows())


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": torch.arange(6.0), "b": torch.ones(2, 2).bool()}, {"x": [1]})
    whole = path.read_bytes()
    for place in range(len(whole) * 8):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        try:  # a bit of white space in the header may change nothing
            tensors, header = read_safetensors(path)
        except WeightsError as error:
            assert str(path) in str(error)
        else:
            assert header == {"x": [1]} and torch.equal(tensors["a"], torch.arange(6.0))
            assert tensors["b"].dtype == torch.bool and bool(tensors["b"].all())


def test_a_checkpoint_of_another_network_is_named(tmp_path):
    run(tmp_path / "run", TINY.change({"train.epochs": 1}))
    path = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    write_safetensors(path, {"network.x": torch.ones(1)}, {"epoch": 1})
    (tmp_path / "run" / "score.json").unlink()
    with pytest.raises(WeightsError, match=r"step-00000004.safetensors: "):
        run(tmp_path / "run", TINY.change({"train.epochs": 1}), resume=True)


# --- disks, clocks, data ---


def assert_whole(folder: Path, step: int) -> None:
    """The checkpoint is whole and no temporary file is left."""
    read_safetensors(folder / "checkpoints" / f"step-{step:08d}.safetensors")
    assert not list(folder.rglob("*.part"))


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    written = []

    def save(tensors, path, header):
        written.append(path)
        if len(written) == 3:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return usual(tensors, path, header)

    from wsfcn import weights

    usual = weights.save_file
    monkeypatch.setattr(weights, "save_file", save)
    with pytest.raises(OSError, match=r"No space left.*step-00000003\.safetensors"):
        run(tmp_path / "run", every=1)
    assert_whole(tmp_path / "run", 2)
    run(tmp_path / "run", resume=True)
    run(tmp_path / "whole")
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_a_limit_on_the_size_of_files_is_told(tmp_path):
    """The kernel cuts the file short, as a full disk does."""
    script = (
        "import resource, signal, sys, torch\n"
        "from wsfcn.weights import write_safetensors\n"
        "write_safetensors(sys.argv[1], {'a': torch.zeros(10)}, {'old': True})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n"
        "    write_safetensors(sys.argv[1], {'a': torch.zeros(100_000)}, {})\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    path = tmp_path / "a.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert "File too large" in done.stdout and str(path) in done.stdout, done.stderr
    assert read_safetensors(path)[1] == {"old": True}
    assert list(tmp_path.iterdir()) == [path]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 10_000


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 MiB, remounted by its second item."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    yield place, lambda how: subprocess.run(["mount", "-o", f"remount,{how}", place], check=True)
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def one_complaint(capsys, code: int, *words: str) -> None:
    captured = capsys.readouterr().err
    lines = [line for line in captured.splitlines() if line.startswith("wsfcn: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in captured
    assert all(word in lines[0] for word in words), lines


def test_on_a_full_and_a_read_only_file_system(small_disk, capsys):
    place, remount = small_disk
    folder = place / "run"
    flags = ["smoke_scenes", *changes(), "--out", str(folder), "--every", "1"]
    with pytest.raises(CutError):
        run(folder, every=1, on_step=cut_at(2))
    size = (folder / "checkpoints" / "step-00000001.safetensors").stat().st_size
    used = shutil.disk_usage(place).used
    (place / "ballast").write_bytes(bytes((200 << 20) - used - size // 2))
    one_complaint(capsys, cli.main(["train", "--resume", str(folder)]), "No space left", "run/")
    assert_whole(folder, 1)
    (place / "ballast").unlink()
    remount("ro")
    one_complaint(capsys, cli.main(["train", *flags, "--resume"]), str(folder), "read-only")
    assert_whole(folder, 1)
    remount("rw")
    assert run(folder, resume=True).rows
    remount("ro")
    assert run(folder, resume=True).score.images == 3  # a finished run can still be read


def test_a_clock_that_jumps_back(undisturbed, tmp_path, monkeypatch):
    random.seed(MONKEY), np.random.seed(MONKEY)
    now = iter(range(2_000_000_000, 0, -86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    monkeypatch.setattr("wsfcn.train._tensorboard", lambda folder: None)
    with pytest.raises(CutError):
        run(tmp_path / "run", every=1, on_step=cut_at(6))
    for age, path in enumerate(sorted((tmp_path / "run" / "checkpoints").iterdir())):
        os.utime(path, (1000 - age, 1000 - age))  # the newest looks the oldest
    run(tmp_path / "run", resume=True, every=1, on_step=cut_at(-1))
    assert_same(undisturbed, tmp_path / "run")


@pytest.fixture
def photos(tmp_path) -> recipes.Recipe:
    """The recipe of a training on a folder of ten photos."""
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        Image.effect_noise((64, 64), 40 + number).convert("RGB").save(folder / f"{number}.png")
    lines = [f"{number}.png, {'cat' if number % 2 else 'dog'}, train" for number in range(8)]
    lines += ["8.png, dog, val", "9.png, cat, val"]
    (folder / "labels.csv").write_text("\n".join(["file, class, split", *lines]))
    data = {"data.kind": "folder", "data.labels": "csv", "data.root": str(folder)}
    sizes = {"data.train": 0, "data.val": 0, "train.batch_size": 4, "train.accumulate": 1}
    return TINY.change(data | sizes)


@pytest.mark.filterwarnings("ignore:no validation image has a mask")
def test_data_that_changed_between_stop_and_resume(photos, tmp_path):
    with pytest.raises(CutError):
        run(tmp_path / "run", photos, every=1, on_step=cut_at(2))
    table = Path(photos.data.root) / "labels.csv"
    text = table.read_text()
    table.write_text(text.replace("1.png, cat", "1.png, dog"))
    with pytest.raises(RunError, match="the data are not those that the run began with"):
        run(tmp_path / "run", photos, resume=True)
    assert_whole(tmp_path / "run", 1)
    table.write_text(text)
    os.utime(table, (1000, 1000))  # as after a copy
    assert run(tmp_path / "run", photos, resume=True).rows


def test_other_circumstances_are_told(tmp_path, monkeypatch):
    with pytest.raises(CutError):
        run(tmp_path / "run", every=1, on_step=cut_at(2))
    [start] = [json.loads(s) for s in (tmp_path / "run" / "starts.jsonl").read_text().splitlines()]
    assert start["step"] == 0 and start["torch"] == torch.__version__
    assert start["data"]["train"] == "24 images, 20 classes" and "scale" in start["protocol"]
    monkeypatch.setattr("wsfcn.runs.torch.get_num_threads", lambda: 77)
    with pytest.warns(UserWarning, match=r"threads was \d+, is 77; results may differ"):
        run(tmp_path / "run", resume=True)
    assert len((tmp_path / "run" / "starts.jsonl").read_text().splitlines()) == 2


def test_the_epoch_hook_is_called_again_where_it_may_have_been_missed(tmp_path):
    seen = []

    def hook(epoch, model, rows):
        seen.append(epoch)
        if len(seen) == 1:
            raise CutError

    with pytest.raises(CutError):
        run(tmp_path / "run", on_epoch=hook)
    run(tmp_path / "run", resume=True, on_epoch=hook)
    assert seen == [1, 1, 2]


def test_what_cannot_be_is_said(tmp_path):
    for wrong in ({"every": -1}, {"bad": 0}):
        with pytest.raises(ValueError, match="every: needs 0 steps or more, bad: 1 batch"):
            run(tmp_path / "run", **wrong)
    assert build_data(TINY.data)  # the recipe is sound
    assert not (tmp_path / "run").exists()
