"""What is loaded when: the face of the package and the help of its commands stay light."""

import json
import subprocess
import sys

import pytest

HEAVY = ["matplotlib", "seaborn", "IPython", "pandas", "skimage", "sklearn", "lightning_fabric"]


def loaded(code: str, names: list[str]) -> set[str]:
    """Those of the modules that a new Python has loaded after some code."""
    report = f"import json, sys; print(json.dumps([n for n in {names} if n in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_package_loads_when_it_is_used():
    assert not loaded("import wsfcn", ["torch", "numpy", *HEAVY])
    used = loaded("import wsfcn; wsfcn.load; wsfcn.segment; wsfcn.recipes", ["torch", *HEAVY])
    assert used == {"torch"}


def test_a_network_is_read_without_what_only_training_needs():
    # torch's compiler alone would take as long as all the rest.
    assert not loaded('import wsfcn; wsfcn.load("lite-scenes")', ["torch._dynamo", *HEAVY])


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["train", "lite_scenes", "--help"], ["segment", "--help"]],
)
def test_help_loads_no_torch(arguments):
    code = f"""
import contextlib
from wsfcn.cli import main
with contextlib.suppress(SystemExit):
    main({arguments})
"""
    assert not loaded(code, ["torch", *HEAVY])


def test_a_process_for_the_crf_loads_no_torch():
    # What a worker of wsfcn.pool unpickles.
    code = "import wsfcn.densecrf, wsfcn.pool; wsfcn.pool._prepared()"
    assert not loaded(code, ["torch", *HEAVY])
