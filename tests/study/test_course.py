"""The whole course in its smallest profile: real training, real notebooks, one page."""

from __future__ import annotations

import re

import pytest

from wsfcn.build import load
from wsfcn.study.course import main
from wsfcn.study.sources import FOLDER, notebooks
from wsfcn.study.trained import film, recipe_of


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSFCN_CACHE", str(folder / "cache"))
        assert main(["--profile", "smoke", "--out", str(folder / "out")]) == 0
        yield folder / "out"


@pytest.mark.timeout(600)
def test_the_page_holds_every_notebook_and_asks_nothing_of_the_network(built):
    page = (built / "index.html").read_text()
    for path in notebooks(FOLDER):
        assert f'id="{path.stem}"' in page
        assert (built / path.name).is_file()
    assert not re.search(r'(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css|png|svg|woff2?)', page)
    assert "mIoU" in page and "OpenMoji" in page


def test_the_network_is_left_beside_the_page(built):
    assert load(built / "model.safetensors").recipe == recipe_of("smoke")


def test_a_second_call_reuses_what_is_there(built, capsys):
    before = {p.name: p.stat().st_mtime_ns for p in built.glob("*.ipynb")}
    assert main(["--profile", "smoke", "--out", str(built)]) == 0
    assert {p.name: p.stat().st_mtime_ns for p in built.glob("*.ipynb")} == before
    assert capsys.readouterr().out.count("unchanged, kept") == len(before)


def test_the_film_has_a_frame_an_epoch(built):
    recipe = recipe_of("smoke")
    found = film(recipe)
    assert len(found.frames) == recipe.train.epochs
    assert found.frames.shape[1:] == found.masks.shape == found.images.shape[:3]
