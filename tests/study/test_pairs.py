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
    pairs.sync(folder, "text")
    changed = [cell["id"] for cell in json.loads((folder / "01_cams.ipynb").read_text())["cells"]]
    assert changed[0] != ids[0]
    assert changed[1:] == ids[1:]
    assert len(set(ids)) == 4


def test_outputs_are_found_and_stripped(folder):
    pairs.sync(folder)
    clean = (folder / "01_cams.ipynb").read_bytes()
    output = nbformat.v4.new_output("stream", text="1\n")
    edit(folder / "01_cams.ipynb", lambda nb: nb.cells[3].update(outputs=[output]))
    assert pairs.check(folder) == [
        "01_cams: holds outputs, or ids or metadata of its own; run sync"
    ]
    edit(folder / "01_cams.ipynb", lambda nb: nb.cells[3].update(outputs=[], execution_count=2))
    assert pairs.check(folder) == [
        "01_cams: holds outputs, or ids or metadata of its own; run sync"
    ]
    assert pairs.sync(folder) == ([folder / "01_cams.ipynb"], [])
    assert (folder / "01_cams.ipynb").read_bytes() == clean


def test_drift_is_found(folder):
    pairs.sync(folder)
    (folder / "src/01_cams.py").write_text(TEXT.replace("print(1)", "print(2)"))
    assert pairs.check(folder) == ["01_cams: notebook and text differ from cell 3 on; run sync"]
    (folder / "src/01_cams.py").write_text(TEXT + "\n# %%\nprint(3)\n")
    assert pairs.check(folder) == ["01_cams: notebook and text differ from cell 5 on; run sync"]
    (folder / "src/01_cams.py").write_text(TEXT.replace("A picture", "Another picture"))
    assert pairs.check(folder) == ["01_cams: notebook and text differ from cell 3 on; run sync"]
    (folder / "src/01_cams.py").write_text(TEXT)
    edit(folder / "01_cams.ipynb", lambda nb: nb.metadata.update(kernelspec={"name": "mine"}))
    [problem] = pairs.check(folder)
    assert "ids or metadata of its own" in problem
    (folder / "src/01_cams.py").unlink()
    assert pairs.check(folder) == ["01_cams: has no text src/01_cams.py; run sync"]


def test_a_notebook_edited_after_its_text_is_not_overwritten_unasked(folder):
    pairs.sync(folder)
    path = folder / "01_cams.ipynb"
    edit(path, lambda nb: nb.cells[3].update(source="print('mine')"))
    later = (folder / "src/01_cams.py").stat().st_mtime + 10
    os.utime(path, (later, later))
    mine = path.read_bytes()
    written, [problem] = pairs.sync(folder)
    assert written == []
    assert "say sync --from notebook, or --from text" in problem
    assert path.read_bytes() == mine
    assert pairs.sync(folder, "notebook")[1] == []
    assert "print('mine')" in (folder / "src/01_cams.py").read_text()
    (folder / "src/01_cams.py").write_text(TEXT)
    assert pairs.sync(folder, "text")[1] == []
    assert "mine" not in path.read_text()


def test_a_text_is_made_for_a_notebook_without_one(folder):
    pairs.sync(folder)
    (folder / "src/01_cams.py").unlink()
    assert pairs.sync(folder) == ([folder / "src/01_cams.py"], [])
    assert (folder / "src/01_cams.py").read_text() == TEXT


def test_the_parameters_cell_is_held_to_its_schema(folder):
    path = folder / "src/01_cams.py"
    path.write_text(TEXT.replace("scenes = 8", "scenes = 9"))
    pairs.sync(folder)
    assert "scenes = 8 " in path.read_text()
    path.write_text(TEXT.replace("scenes = 8", "scenes = 9"))
    problems = pairs.check(folder)
    assert len(problems) == 2
    assert "the parameters cell is not its schema's" in problems[1]
    path.write_text(TEXT.replace(' tags=["parameters"]', ""))
    assert pairs.sync(folder, "text")[1] == ["01_cams: has no code cell tagged 'parameters'"]
    (folder / "01_cams.ipynb").unlink()
    path.write_text(TEXT)
    path.rename(folder / "src/99_new.py")
    assert "99_new: has no schema in wsfcn.study.parameters.PARAMETERS" in pairs.sync(folder)[1]


def test_broken_files_are_problems_not_tracebacks(folder):
    pairs.sync(folder)
    (folder / "01_cams.ipynb").write_text("{")
    [problem] = pairs.check(folder)
    assert "01_cams.ipynb: is not a notebook that can be read" in problem
    assert pairs.sync(folder)[1] == [problem]


def test_the_command(folder, capsys):
    where = ["--folder", str(folder)]
    assert pairs.main(["check", *where]) == 1
    assert capsys.readouterr().err == "01_cams: has no notebook 01_cams.ipynb; run sync\n"
    assert pairs.main(["sync", *where]) == 0
    assert pairs.main(["check", *where]) == 0
    assert capsys.readouterr().out.endswith("in step with their texts: 01_cams\n")


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
    assert "01_cams: a solution without its begin or end" in pairs.check(folder)


def test_solutions_survive_an_edit_of_the_notebook(folder):
    path, text = folder / "01_cams.ipynb", folder / "src/01_cams.py"
    text.write_text(TEXT + EXERCISE)
    pairs.sync(folder)
    edit(path, lambda nb: nb.cells[0].update(source="# Another"))
    assert pairs.sync(folder, "notebook") == ([text, path], [])
    assert text.read_text() == (TEXT + EXERCISE).replace("# A title\n# With $x^2$.", "# Another")
    edit(path, lambda nb: nb.cells[-1].update(source="def half(x):\n    return x / 2"))
    [problem] = pairs.sync(folder, "notebook")[1]
    assert problem == "01_cams: 1 times '...  # your code here' must stand in the notebook"
    assert "return part" in text.read_text()
