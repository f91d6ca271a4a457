"""Named protocols, what tells two of them apart, and names that do not exist."""

import pytest

from wsfcn import protocols
from wsfcn.protocols import NAMED, Protocol, named, padded, table3, with_crf
from wsfcn.settings import SettingsError


def test_published_protocols():
    paper, baseline = protocols.paper(), protocols.baseline()
    assert paper.scales == baseline.scales == (1.0, 0.5, 1.5, 2.0)
    assert (paper.background, paper.background_value) == ("constant", 0.25)
    assert (baseline.background, baseline.background_value) == ("power", 3)
    for function in (protocols.paper_gt_labels, protocols.baseline_gt_labels):
        assert function().image_labels and function().background == "power"
    assert padded(paper).canvas == 1024 and padded(protocols.coco()).canvas == 1304
    assert all(p().crf == "none" and p().padding == "none" for p in NAMED.values())


def test_names_give_protocols_with_crf_and_canvas():
    assert named("paper") == protocols.paper()
    assert named("Paper-GT-labels+CRF") == with_crf(protocols.paper_gt_labels())
    assert named("baseline+canvas+crf").crf == "baseline"
    assert named("coco+canvas").padding == "canvas"
    assert len({named(name).name for name in NAMED}) == len(NAMED)
    with pytest.raises(SettingsError, match="did you mean 'paper'"):
        named("papr")
    with pytest.raises(SettingsError, match="'cfr' is not known; did you mean 'crf'"):
        named("paper+cfr")


def test_every_setting_that_matters_is_told():
    """No two protocols that differ in effect are described alike, names aside."""
    changes = [
        {"scales": (2.0,)},
        {"flip": False},
        {"padding": "canvas"},
        {"padding": "canvas", "canvas": 1304},
        {"class_filter": 0.2},
        {"image_labels": True},
        {"background": "constant"},
        {"background": "constant", "background_value": 0.5},
        {"pamr": 10},
        {"crf": "wsfcn"},
        {"crf": "wsfcn", "crf_code": "torch"},
        {"crf": "baseline"},
        {"longest": 384},
        {"split": "val"},
    ]
    made = [Protocol(), *(Protocol().change(change) for change in changes)]
    assert {name for change in changes for name in change} | {"name"} == set(Protocol.model_fields)
    assert len({protocol.describe() for protocol in made}) == len(made)
    for one in made:
        for two in made:
            assert bool(one.differences(two)) == (one is not two)


def test_names_orders_and_idle_settings_make_no_difference():
    plain = Protocol(scales=(1.0, 0.5))
    other = Protocol(name="x", scales=(0.5, 1.0), canvas=99, background_value=2, crf_code="torch")
    assert plain.differences(other) == []
    given = Protocol(image_labels=True)
    assert given.differences(given.change({"class_filter": 0.7})) == []
    assert plain.differences(Protocol(flip=False)) == [
        "scales: (0.5, 1.0) and (1.0,)",
        "flip: True and False",
    ]


def test_table_3_is_two_switches():
    rows = table3()
    assert [(len(p.scales), p.flip) for p in rows.values()] == [
        (1, False),
        (1, True),
        (4, False),
        (4, True),
    ]
    assert rows["multi-scale + flip"].differences(protocols.paper()) == []
    given = table3(Protocol(image_labels=True, scales=(1.0, 2.0)))
    assert all(p.image_labels for p in given.values())
    assert given["multi-scale"].scales == (1.0, 2.0)
    assert table3(Protocol())["multi-scale"].scales == protocols.paper().scales


def test_values_written_by_older_versions_read():
    old = {"name": "paper", "scales": [1.0, 0.5], "flip": True, "class_filter": 0.1}
    read = Protocol(**old, image_labels=False, background="softmax", background_value=1, crf="none")
    assert read.padding == "none" and read.split == ""
