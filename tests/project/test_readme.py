"""What the README shows works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from wsfcn.study.parameters import PARAMETERS
from wsfcn.study.sources import notebooks

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_lines_of_python_segment_a_photo(tmp_path, monkeypatch, capsys):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (90, 60), "teal").save("photo.jpg")
    exec(code, {})
    assert "class filter" in capsys.readouterr().out
    assert (tmp_path / "segmented/photo.overlay.png").is_file()


def test_the_rows_of_the_paper_are_recipes():
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1]
    # All but the line that reads half a gigabyte, which tests/test_published.py covers.
    lines = [line for line in code.splitlines() if "load_published" not in line]
    assert len(lines) == len(code.splitlines()) - 1
    names: dict = {}
    exec("\n".join(lines), names)
    assert len(names["rows"]) == 11  # FCA and SF2 are in both tables
    assert "undilated_strips" in names["odd"]


def test_flags_of_the_readme_exist(capsys):
    from wsfcn import cli

    with pytest.raises(SystemExit):
        cli.main(["train", "lite_scenes", "--help"])
    known = capsys.readouterr().out
    flags = set(re.findall(r"--(?:train|model)\.[\w-]+", README))
    assert len(flags) >= 5
    assert all(flag in known for flag in flags)


def test_the_command_that_runs_a_notebook_names_one_of_its_parameters():
    command = re.search(r"wsfcn run (\S+) -p (\w+) ([^`]+)`", README)
    schema = PARAMETERS[Path(command[1]).stem]
    assert schema.defaults().change({command[2]: shlex.split(command[3])[0]})


def test_every_notebook_is_on_the_map():
    rows = re.findall(r"^\| `(\d\d_\w+)` \|", README, re.MULTILINE)
    assert {path.stem for path in notebooks()} <= set(rows)
    assert rows == sorted(rows)
    assert set(rows) == PARAMETERS.keys()
