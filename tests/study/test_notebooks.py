from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from wsfcn.files import write_all
from wsfcn.settings import SettingsError
from wsfcn.study import notebooks as module
from wsfcn.study import sources
from wsfcn.study.notebooks import run_notebook
from wsfcn.study.parameters import folders_in
from wsfcn.study.provenance import inputs_fingerprint
from wsfcn.study.record import read_records
from wsfcn.study.sources import NotebookError, read_notebook

ROOT = Path(__file__).parents[2]
BODY = """\
import os, sys
from wsfcn.study.record import record
record("n", n)
record("rates", rates)
record("python", sys.executable)
record("folder", os.getcwd())
record("torch", "torch" in sys.modules)"""


@pytest.fixture
def no_kernel(monkeypatch):
    """Fails the test if a notebook is executed."""

    def started(*_, **__):
        raise AssertionError("the notebook was executed")

    monkeypatch.setattr(module, "_execute", started)


def run(path, values=None, folder=None, **options):
    folder = path.parent / "out" if folder is None else folder
    return run_notebook(path, values, folder, progress=False, **options)


def test_a_run_writes_the_copy_and_the_records(write_notebook, parameters, tmp_path, capfd):
    path = write_notebook([parameters("n = 3\nrates = [0.5]"), BODY])
    before = path.read_bytes()
    folder = tmp_path / "a {brace} and a space" / "deep"
    result = run(path, {"n": "5"}, folder)
    assert result.records["n"] == 5
    assert result.records["rates"] == [0.5]
    assert result.records["python"] == sys.executable
    assert result.records["folder"] == str(folder)
    assert not result.records["torch"]
    assert not result.reused
    assert result.path == folder / "tiny.ipynb"
    assert read_records(result.path) == result.records
    row = json.loads((folder / "tiny.records.json").read_text())
    assert row["records"] == result.records
    assert row["parameters"] == {"n": 5, "rates": [0.5]}
    assert row["environment"]["python"] in sys.version
    assert sorted(p.name for p in folder.iterdir()) == ["tiny.ipynb", "tiny.records.json"]
    assert path.read_bytes() == before
    assert str(tmp_path) not in json.dumps(read_notebook(result.path)["metadata"])
    assert "without encryption" not in capfd.readouterr().err
    assert str(result).startswith(str(result.path))


def test_a_run_is_kept_until_something_it_depends_on_changes(
    write_notebook, parameters, tmp_path, monkeypatch
):
    executions = []

    def execute(source, *_):
        executions.append(source.stem)
        return read_notebook(source)

    monkeypatch.setattr(module, "_execute", execute)
    path = write_notebook([parameters("n = 3"), "n"])
    data = tmp_path / "data.txt"
    data.write_text("1")
    assert not run(path, inputs=[data]).reused
    again = run(path, inputs=[data])
    assert again.reused and again.parameters == {"n": 3}
    assert len(executions) == 1
    assert not run(path, inputs=[data], again=True).reused
    assert not run(path, {"n": 4}, inputs=[data]).reused
    data.write_text("2")
    assert not run(path, {"n": 4}, inputs=[data]).reused
    write_notebook([parameters("n = 3"), "n + 1"])
    assert not run(path, {"n": 4}, inputs=[data]).reused
    assert run(path, {"n": 4}, inputs=[data]).reused
    monkeypatch.setattr("wsfcn.study.provenance._package_digest", lambda: "other code")
    assert not run(path, {"n": 4}, inputs=[data]).reused
    (tmp_path / "out/tiny.ipynb").write_text("{")
    assert not run(path, {"n": 4}, inputs=[data]).reused
    assert len(executions) == 7


def test_a_failing_cell_is_named_and_its_copy_kept(write_notebook, parameters, tmp_path):
    path = write_notebook([parameters("n = 3"), "1 + 1", "raise ValueError('too bad\\nvery')", "2"])
    folder = tmp_path / "out"
    write_all(folder, {"tiny.ipynb": b"the copy of an earlier run"})
    message = r"^tiny: code cell 4 of 5, raise .*: ValueError: too bad \(.*tiny\.failed\.ipynb\)$"
    with pytest.raises(NotebookError, match=message):
        run(path)
    failed = read_notebook(folder / "tiny.failed.ipynb")
    errors = [o for c in failed["cells"] for o in c.get("outputs", ()) if o.output_type == "error"]
    assert [error["ename"] for error in errors] == ["ValueError"]
    assert sorted(p.name for p in folder.iterdir()) == ["tiny.failed.ipynb", "tiny.ipynb"]
    assert (folder / "tiny.ipynb").read_bytes() == b"the copy of an earlier run"
    write_notebook([parameters("n = 3"), "1 + 1"])
    run(path)
    assert not (folder / "tiny.failed.ipynb").exists()


def test_a_cell_beyond_its_time_is_stopped(write_notebook, parameters):
    path = write_notebook([parameters("n = 3"), "import time\ntime.sleep(60)", "2"])
    started = time.perf_counter()
    with pytest.raises(NotebookError, match="code cell 3 of 4, import time: took more than 1 s"):
        run(path, cell_seconds=1)
    assert time.perf_counter() - started < 30


def test_a_dying_kernel_is_said_so(write_notebook, parameters):
    path = write_notebook([parameters("n = 3"), "import os\nos._exit(1)"])
    with pytest.raises(NotebookError, match="code cell 3 of 3, import os: the kernel died"):
        run(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_its_copy_and_can_be_started_again(
    write_notebook, parameters, tmp_path, number
):
    ready, go = tmp_path / "ready", tmp_path / "go"
    cell = f"import pathlib, os, time\npathlib.Path({str(ready)!r}).write_text(str(os.getpid()))"
    wait = f"time.sleep(0 if pathlib.Path({str(go)!r}).exists() else 60)"
    path = write_notebook([parameters("n = 3"), "print('before')", f"{cell}\n{wait}"])
    # A background job of a shell starts with SIGINT ignored, and so would what it starts.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from wsfcn.cli import main; sys.exit(main(['run', sys.argv[1], '--out', 'out']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not ready.exists() or not ready.read_text():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    last = said.splitlines()[-1]
    assert re.match(r"wsfcn: interrupted: tiny: code cell 4 of 4, import pathlib", last)
    (folder,) = (tmp_path / "out").iterdir()
    (failed,) = folder.iterdir()
    assert failed.name == "tiny.failed.ipynb" and str(failed.relative_to(tmp_path)) in last
    *_, before, stopped = [c for c in read_notebook(failed)["cells"] if c["cell_type"] == "code"]
    assert before["outputs"][0]["text"] == "before\n"
    assert stopped["outputs"][-1]["output_type"] == "error"
    kernel = int(ready.read_text())
    for _ in range(300):
        try:
            os.kill(kernel, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("the kernel outlived its run")
    go.touch()
    again = run_notebook(path, {}, tmp_path / "out", keyed=True, progress=False)
    assert again.path.parent == folder and not failed.exists()


def test_a_run_of_its_own_folder_has_figures_and_is_found(write_notebook, parameters, tmp_path):
    draw = "from PIL import Image\nfor side in (20, 30):\n    display(Image.new('RGB', (side, 9)))"
    path = write_notebook([parameters("n = 3\nseed = 5"), draw])
    first = run(path, {"n": 4}, tmp_path / "out", keyed=True)
    assert first.path.parent.parent == tmp_path / "out"
    assert re.fullmatch("tiny-[0-9a-f]{12}", first.path.parent.name)
    figures = sorted((first.path.parent / "figures").iterdir())
    assert [f.name for f in figures] == ["01.png", "02.png"]
    assert [Image.open(figure).size for figure in figures] == [(20, 9), (30, 9)]
    row = json.loads((first.path.parent / "tiny.records.json").read_text())
    assert row["parameters"] == {"n": 4, "seed": 5} and len(row["cells"]) == 3
    assert row["code"]["package"] and row["environment"]["torch"] and row["hardware"]["cpu"]
    assert row["seconds"] >= sum(row["cells"]) > 0
    assert run(path, {"n": 4}, tmp_path / "out", keyed=True).reused
    other = run(path, {"n": 5}, tmp_path / "out", keyed=True)
    assert not other.reused and other.path.parent != first.path.parent
    assert (
        first.path.is_file()
        and not run(path, {"n": 4}, tmp_path / "out", again=True, keyed=True).reused
    )


def test_a_full_disk_loses_no_execution(write_notebook, parameters, tmp_path, monkeypatch):
    def full(folder, contents, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / min(contents)))

    monkeypatch.setattr(module, "write_all", full)
    path = write_notebook([parameters("n = 3"), "print(n)"])
    with pytest.raises(OSError, match=r"No space left on device: .*tiny\.ipynb"):
        run(path)
    (kept,) = (tmp_path / "out").iterdir()
    assert kept.name == "tiny.failed.ipynb"
    assert read_notebook(kept)["cells"][-1]["outputs"][0]["text"] == "3\n"


def test_a_copy_that_a_full_disk_tore_is_not_kept(
    write_notebook, parameters, tmp_path, monkeypatch
):
    def torn(source, target, partial, *_):
        partial.write_text('{"cells": [')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_execute", torn)
    with pytest.raises(OSError, match=r"No space left on device: '.*/out'"):
        run(write_notebook([parameters("n = 3"), "n"]))
    assert [*(tmp_path / "out").iterdir()] == []


def test_what_lies_in_a_folder_counts(tmp_path):
    schema = sources.PARAMETERS["07_failure_cases"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"1")
    values = sources.resolve(schema, {"photos": str(tmp_path / "photos")})
    assert folders_in(schema, values) == [str(tmp_path / "photos")]
    assert folders_in(schema, sources.resolve(schema, {})) == []
    first = inputs_fingerprint(values, folders_in(schema, values))
    assert inputs_fingerprint(values, folders_in(schema, values)) == first
    (tmp_path / "photos" / "b.jpg").write_bytes(b"2")
    assert inputs_fingerprint(values, folders_in(schema, values)) != first


def test_wrong_parameters_are_refused_before_a_kernel_starts(
    write_notebook, parameters, no_kernel, tmp_path
):
    path = write_notebook([parameters("n = 3\nname = 'a'"), "n"], "01_cams")
    with pytest.raises(SettingsError, match="sceens: no such setting; did you mean 'scenes'"):
        run(path, {"sceens": 3})
    with pytest.raises(SettingsError, match=r"scenes: .*less than or equal to 2000"):
        run(path, {"scenes": 5000})
    with pytest.raises(SettingsError, match="profile: 'paper' is not offered here"):
        run(path, profile="paper")
    with pytest.raises(SettingsError, match="profile: is 'laptop' and 'smoke'; give it once"):
        run(path, {"profile": "laptop"}, profile="smoke")
    other = write_notebook([parameters("n = 3\nname = 'a'"), "n"], "own")
    with pytest.raises(SettingsError, match=r"m: no such setting; .*n, name"):
        run(other, {"m": 3})
    with pytest.raises(SettingsError, match=r"n: .*integer"):
        run(other, {"n": "three"})
    assert not (tmp_path / "out").exists()


def test_wrong_notebooks_are_refused(write_notebook, parameters, no_kernel, tmp_path):
    with pytest.raises(NotebookError, match="bare: has no parameters cell"):
        run(write_notebook(["1 + 1"], "bare"))
    with pytest.raises(NotebookError, match="line 2 is no plain assignment"):
        run(write_notebook([parameters("n = 1\nimport os")], "busy"))
    with pytest.raises(NotebookError, match="line 1 is not Python"):
        run(write_notebook([parameters("n = = 1")], "torn"))
    with pytest.raises(NotebookError, match=r"bear\.ipynb: no such notebook; did you mean 'bare'"):
        run(tmp_path / "bear.ipynb")
    with pytest.raises(
        NotebookError, match=r"zzz: no such notebook; there are: .*bare, busy, torn"
    ):
        run(tmp_path / "zzz")
    (tmp_path / "text.ipynb").write_text("hello")
    with pytest.raises(NotebookError, match=r"text\.ipynb: is not a notebook"):
        run(tmp_path / "text.ipynb")
    with pytest.raises(NotebookError, match="holds the notebook itself"):
        run(write_notebook([parameters("n = 1")], "own"), folder=tmp_path)
    with pytest.raises(NotADirectoryError, match=r"text\.ipynb"):
        run(tmp_path / "own.ipynb", folder=tmp_path / "text.ipynb" / "out")


def test_the_profile_sets_the_defaults(write_notebook, parameters):
    schema = sources.PARAMETERS["01_cams"]
    laptop = sources.resolve(schema, {"shown": "2"}, "laptop")
    assert laptop == {**schema.defaults("laptop").model_dump(mode="json"), "shown": 2}
    assert sources.resolve(schema, {"profile": "laptop"})["scenes"] == laptop["scenes"]
    assert sources.resolve(schema, {}) == schema.defaults("smoke").model_dump(mode="json")
    own = sources.schema_of({"cells": []} | _cells("profile = 'smoke'\nn = 1"), "own")
    assert sources.resolve(own, {}, "paper") == {"profile": "paper", "n": 1}
    bare = sources.schema_of(_cells("n = None\nrates = [1, 0.5]"), "own")
    assert sources.resolve(bare, {"n": "x"}, "laptop") == {"n": "x", "rates": [1, 0.5]}


def _cells(source):
    cell = {"cell_type": "code", "source": source, "metadata": {"tags": ["parameters"]}}
    return {"cells": [cell]}


def test_a_notebook_of_the_course_is_found_by_name(write_notebook, monkeypatch, tmp_path):
    course = tmp_path / "course"
    path = write_notebook(["1"], "01_cams", course)
    monkeypatch.setattr(sources, "FOLDER", course)
    monkeypatch.chdir(tmp_path)
    assert sources.find_notebook("01_cams") == path
    assert sources.find_notebook("01_cams.ipynb") == path
    with pytest.raises(NotebookError, match="did you mean '01_cams'"):
        sources.find_notebook("01_cam")
    with pytest.raises(NotebookError, match="no such notebook"):
        sources.find_notebook("elsewhere/01_cams")
