"""The commands of the Makefile, with a Python that only notes what it is asked to do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make is installed")

# Makes a "virtual environment" whose python notes its arguments in `log` and succeeds, unless a
# file `fail` names a word among them.
PYTHON = """\
#!/bin/sh
if [ "$1" = -V ]; then echo Python 3.11.0; exit; fi
if [ "$1" = -c ]; then exit ${TOO_OLD:-0}; fi
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; exit; fi
echo "$@" >> log
[ -e fail ] && case "$*" in *"$(cat fail)"*) exit 1;; esac
exit 0
"""


@pytest.fixture
def checkout(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python-stand-in"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def make(folder, *arguments, **environment):
    return subprocess.run(
        ["make", "PYTHON=./python-stand-in", *arguments],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")} | environment,
        capture_output=True,
        text=True,
    )


def log(folder):
    """What the stand-in was asked since the last look."""
    path = folder / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_help_lists_every_command(checkout):
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split()
    result = make(checkout)
    assert result.returncode == 0
    listed = re.findall(r"^  (\w+) +\S", result.stdout, re.MULTILINE)
    assert listed == phony
    assert {"course", "test", "lab"} <= set(listed)
    assert log(checkout) == []


def test_the_readme_names_commands_that_exist():
    targets = set(re.findall(r"^(\w+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"\bmake (\w+)\b", (ROOT / "README.md").read_text()))
    assert {"course", "test", "lab"} <= named <= targets


def test_installation_is_in_order_and_done_once(checkout):
    assert make(checkout, "course").returncode == 0
    torch, package, *rest = log(checkout)
    assert torch.endswith("install --quiet -c constraints.txt torch")
    assert package.endswith("install --quiet -c constraints.txt -e .[notebooks,coco,cluster,dev]")
    assert "-m ipykernel install --sys-prefix --name wsfcn" in " ".join(rest)
    assert rest[-1] == "-m wsfcn.study.course"
    assert make(checkout, "course").returncode == 0
    assert log(checkout) == ["-m wsfcn.study.course"]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_dependency_is_installed(checkout, name):
    make(checkout, "test")
    log(checkout)
    stamp = (checkout / ".venv/.installed").stat().st_mtime
    os.utime(checkout / name, (stamp + 5, stamp + 5))
    make(checkout, "test")
    assert len(log(checkout)) > 1


def test_an_interrupted_installation_is_taken_up_again(checkout):
    (checkout / "fail").write_text("notebooks,coco,cluster,dev")
    assert make(checkout, "course").returncode != 0
    assert not any("wsfcn.study.course" in line for line in log(checkout))
    (checkout / "fail").unlink()
    assert make(checkout, "course").returncode == 0
    assert log(checkout)[-1] == "-m wsfcn.study.course"


def test_without_a_dense_crf_the_rest_goes_on(checkout):
    (checkout / "fail").write_text("[crf]")
    result = make(checkout, "course")
    assert result.returncode == 0
    assert "dense CRF" in result.stdout
    assert log(checkout)[-1] == "-m wsfcn.study.course"


def test_an_old_or_missing_python_is_one_clear_line(checkout):
    old = make(checkout, "course", TOO_OLD="1")
    assert old.returncode != 0
    assert "./python-stand-in is Python 3.11.0; 3.11 or newer is needed" in old.stdout
    missing = make(checkout, "PYTHON=no-such-python", "course")
    assert missing.returncode != 0
    assert "No 'no-such-python' here: install Python 3.11 or newer" in missing.stdout
    assert not (checkout / ".venv").exists()


def test_the_number_of_test_processes_can_be_chosen(checkout):
    make(checkout, "test", "JOBS=7")
    assert "-m pytest -n 7 " in log(checkout)[-1]


def test_clean_keeps_results(checkout):
    make(checkout, "course")
    (checkout / "runs").mkdir()
    (checkout / "wsfcn/__pycache__").mkdir(parents=True)
    assert make(checkout, "clean").returncode == 0
    assert not (checkout / ".venv").exists()
    assert not (checkout / "wsfcn/__pycache__").exists()
    assert (checkout / "runs").is_dir()


def test_continuous_integration_lints_and_tests():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    lines = script.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines.index("make lint") < lines.index("make test") == len(lines) - 1


def test_the_makefile_suits_old_makes():
    """GNU make 3.81, as macOS has it, knows neither of these."""
    assert ".ONESHELL" not in MAKEFILE and "::=" not in MAKEFILE and "!=" not in MAKEFILE
    assert "$(file " not in MAKEFILE and "$(guile" not in MAKEFILE
