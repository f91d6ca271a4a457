"""docs/models.md says what the shipped files say."""

from __future__ import annotations

import hashlib

import pytest

from wsfcn import build
from wsfcn.study import cards
from wsfcn.weights import WeightsError

PAGE = cards.PAGE.read_text(encoding="utf-8")


def test_the_page_agrees_with_the_files():
    assert cards.filled(PAGE) == PAGE, "python -m wsfcn.study.cards writes docs/models.md anew"


@pytest.mark.parametrize("name", build.shipped())
def test_every_shipped_network_is_on_the_page_with_its_checksum(name):
    digest = hashlib.sha256((build.SHIPPED / f"{name}.safetensors").read_bytes()).hexdigest()
    assert PAGE.count(digest) == 1 and f"`{name}" in PAGE


def test_the_networks_that_are_loaded_by_default_have_a_card():
    from wsfcn.flags import SegmentArguments

    named = {name for _, name, _ in cards.FACTS.findall(PAGE)}
    assert named == {SegmentArguments(()).model, "lite-scenes", cards.OTHERS}


def test_what_is_stale_is_written_anew():
    marks = "<!-- facts of {} -->\nmIoU 99\n<!-- end of facts -->\n"
    page = "# before\n" + marks.format("lite-scenes") + marks.format(cards.OTHERS) + "after\n"
    found = cards.filled(page)
    assert "mIoU 99" not in found and found.startswith("# before\n") and found.endswith("after\n")
    assert "| taught by | image labels alone |" in found and "seed 0" in found
    assert found.count("lite-scenes-fca`") == 1 and found.count("`lite-scenes.safetensors`") == 1
    assert cards.filled(found) == found


def test_a_card_of_no_network_is_an_error():
    with pytest.raises(WeightsError, match="no-such: no network of this name"):
        cards.filled("<!-- facts of no-such -->\n<!-- end of facts -->\n")
