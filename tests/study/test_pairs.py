from __future__ import annotations

import json
import os

import nbformat
import pytest

from wsfcn.study import pairs
from wsfcn.study.parameters import Cams, parameters_cell

TEXT = f"""\
# %% [markdown]
# # A title
# With $x^2$.

# %% tags=["parameters"]
{parameters_cell(Cams)}

# %% alt="A picture"
# %matplotlib inline
print(1)

# %%
print(1)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/01_cams.py").write_text(TEXT)
    return tmp_path


def edit(path, change):
    notebook = nbformat.read(path, 4)
    change(notebook)
    nbformat.write(notebook, path)


def test_the_notebooks_of_the_course_are_in_step():
    assert pairs.check() == []


def test_sync_writes_the_notebook_of_a_text(folder):
    assert pairs.check(folder) == ["01_cams: has no notebook 01_cams.ipynb; run sync"]
    assert pairs.sync(folder) == ([folder / "01_cams.ipynb"], [])
    assert pairs.check(folder) == []
    assert pairs.sync(folder) == ([], [])
    assert (folder / "src/01_cams.py").read_text() == TEXT
    notebook = nbformat.read(folder / "01_cams.ipynb", 4)
    nbformat.validate(notebook)
    assert [cell["cell_type"] for cell in notebook.cells] == ["markdown", "code", "code", "code"]
    assert notebook.cells[1]["metadata"] == {"tags": ["parameters"]}
    assert notebook.cells[2]["metadata"] == {"alt": "A picture"}
    assert notebook.cells[2]["source"].startswith("%matplotlib inline")
    assert notebook.metadata["kernelspec"]["name"] == "python3"


def test_ids_follow_from_the_cells(folder):
    pairs.sync(folder)
    first = (folder / "01_cams.ipynb").read_bytes()
    (folder / "01_cams.ipynb").unlink()
    pairs.sync(folder)
    assert (folder / "01_cams.ipynb").read_bytes() == first
    ids = [cell["id"] for cell in json.loads(first)["cells"]]
    (folder / "src/01_cams.py").write_text(TEXT.replace("A title", "Another title"))
    pairs.sync(folder)
    changed = [cell["id"] for cell in json.loads((folder / "01_cams.ipynb").read_text())["cells"]]
    assert changed[0] != ids[0]
    assert changed[1:] == ids[1:]
    assert len(set(ids)) == 4


STALE = "01_cams: 01_cams.ipynb is not what text and schema make of it; run sync"


def test_outputs_are_found_and_stripped(folder):
    pairs.sync(folder)
    clean = (folder / "01_cams.ipynb").read_bytes()
    output = nbformat.v4.new_output("stream", text="1\n")
    edit(folder / "01_cams.ipynb", lambda nb: nb.cells[3].update(outputs=[output]))
    assert pairs.check(folder) == [STALE]
    edit(folder / "01_cams.ipynb", lambda nb: nb.cells[3].update(outputs=[], execution_count=2))
    assert pairs.check(folder) == [STALE]
    assert pairs.sync(folder) == ([folder / "01_cams.ipynb"], [])
    assert (folder / "01_cams.ipynb").read_bytes() == clean


def test_drift_is_found(folder):
    pairs.sync(folder)
    text = folder / "src/01_cams.py"
    for old, new in (("print(1)", "print(2)"), ("A picture", "Another picture")):
        text.write_text(TEXT.replace(old, new))
        assert pairs.check(folder) == [STALE]
    text.write_text(TEXT + "\n# %%\nprint(3)\n")
    assert pairs.check(folder) == [STALE]
    text.write_text(TEXT)
    edit(folder / "01_cams.ipynb", lambda nb: nb.metadata.update(kernelspec={"name": "mine"}))
    assert pairs.check(folder) == [STALE]
    text.unlink()
    assert pairs.check(folder) == ["01_cams: has no text src/01_cams.py"]


def test_a_notebook_edited_after_its_text_is_not_overwritten_unasked(folder):
    pairs.sync(folder)
    path = folder / "01_cams.ipynb"
    edit(path, lambda nb: nb.cells[3].update(source="print('mine')"))
    later = (folder / "src/01_cams.py").stat().st_mtime + 10
    os.utime(path, (later, later))
    mine = path.read_bytes()
    written, [problem] = pairs.sync(folder)
    assert written == []
    assert "edited after its text; bring the edit into the text, or say sync --over" in problem
    assert path.read_bytes() == mine
    assert pairs.main(["sync", "--overwrite", "--folder", str(folder)]) == 0
    assert b"mine" not in path.read_bytes()


def test_the_parameters_cell_is_held_to_its_schema(folder):
    path = folder / "src/01_cams.py"
    path.write_text(TEXT.replace("scenes = 8", "scenes = 9"))
    assert pairs.sync(folder) == ([path, folder / "01_cams.ipynb"], [])
    assert path.read_text() == TEXT
    path.write_text(TEXT.replace("scenes = 8", "scenes = 9"))
    [problem] = pairs.check(folder)
    assert problem == "01_cams: 01_cams.py is not what text and schema make of it; run sync"
    path.write_text(TEXT.replace(' tags=["parameters"]', ""))
    assert pairs.sync(folder)[1] == ["01_cams: has no code cell tagged 'parameters'"]
    (folder / "01_cams.ipynb").unlink()
    path.write_text(TEXT)
    path.rename(folder / "src/99_new.py")
    assert "99_new: has no schema in wsfcn.study.parameters.PARAMETERS" in pairs.sync(folder)[1]


def test_a_broken_notebook_is_not_overwritten_either(folder):
    pairs.sync(folder)
    path = folder / "01_cams.ipynb"
    path.write_text("{")
    assert pairs.check(folder) == [STALE]
    later = (folder / "src/01_cams.py").stat().st_mtime + 10
    os.utime(path, (later, later))
    [problem] = pairs.sync(folder)[1]
    assert "01_cams.ipynb: is not a notebook that can be read" in problem


def test_the_command(folder, capsys):
    where = ["--folder", str(folder)]
    assert pairs.main(["check", *where]) == 1
    assert capsys.readouterr().err == "01_cams: has no notebook 01_cams.ipynb; run sync\n"
    assert pairs.main(["sync", *where]) == 0
    assert pairs.main(["check", *where]) == 0
    told = capsys.readouterr()
    assert told.out.endswith("in step with their texts: 01_cams\n") and told.err == ""


EXERCISE = """

# %% tags=["exercise"]
def half(x):
    # begin solution
    part = x / 2
    return part
    # end solution


judge(half, (2, 1, "no"))
"""


def test_solutions_stay_in_the_text(folder):
    path, text = folder / "01_cams.ipynb", folder / "src/01_cams.py"
    text.write_text(TEXT + EXERCISE)
    assert pairs.sync(folder) == ([path], []) and pairs.check(folder) == []
    source = nbformat.read(path, 4).cells[-1]["source"]
    assert source.splitlines()[:2] == ["def half(x):", "    ...  # your code here"]
    assert source.endswith('judge(half, (2, 1, "no"))') and "solution" not in source
    assert pairs.main(["solved", str(text), str(folder / "solved.ipynb")]) == 0
    assert "return part" in nbformat.read(folder / "solved.ipynb", 4).cells[-1]["source"]
    text.write_text(TEXT + EXERCISE.replace("# end", "# the end of the"))
    assert "01_cams: has a solution without its begin or end" in pairs.check(folder)
