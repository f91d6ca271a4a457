"""Recipes are frozen, validated, and their errors name field and range."""

from __future__ import annotations

import pytest

from wsfcn import recipes
from wsfcn.settings import SettingsError

LITE = recipes.lite_scenes()


def test_change_reaches_nested_fields_and_leaves_the_original():
    changed = LITE.change({"train.epochs": 3, "model.context": "aspp"})
    assert (changed.train.epochs, changed.model.context) == (3, "aspp")
    assert recipes.lite_scenes() == LITE


def test_recipes_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        LITE.name = "other"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.epcohs": 3}, "train.epcohs: no such setting; did you mean 'epochs'"),
        ({"trian": 3}, "trian: no such setting; did you mean 'train'"),
        ({"train.epochs": 0}, "train.epochs: Input should be greater than or equal to 1"),
        ({"train.epochs": "many"}, "train.epochs: Input should be a valid integer"),
        ({"train.epochs.x": 1}, "epochs is a single value"),
        (
            {"model.context": "fac"},
            "model.context: Input should be 'fca', 'mclm', 'aspp', 'non_local', 'large_conv'",
        ),
        ({"model.strips": (1, 4), "model.dilations": (1, 1)}, "model.strips: lengths must be odd"),
        ({"model.strips": (1, 3)}, "model.dilations: needs one value per strip"),
        ({"data.scenes.object_size": (0.9, 0.1)}, "data.scenes.object_size: needs 0.05"),
        ({"data.scenes.objects": (3, 1)}, "data.scenes.objects: the fewest"),
        ({"data.scenes.co_occurrence": 1.5}, "co_occurrence: Input should be less than or equal"),
        ({"protocol.scales": ()}, "protocol.scales"),
    ],
)
def test_wrong_names_and_values_are_named(changes, message):
    with pytest.raises(SettingsError, match=message.replace(".", r"\.").replace("(", r"\(")):
        LITE.change(changes)


def test_a_misspelt_keyword_of_a_nested_group_is_named():
    with pytest.raises(SettingsError, match="epcohs: no such setting; did you mean 'epochs'"):
        recipes.Train(epcohs=1)


def test_table_1_changes_only_name_context_and_fusion():
    rows = recipes.table1(LITE)
    assert list(rows) == ["baseline", "mclm", "fca", "sf2", "full"]
    for row in rows.values():
        back = row.change({"name": LITE.name, "model.context": "fca", "model.fusion": "sf2"})
        assert back == LITE
    assert len({(r.model.context, r.model.fusion) for r in rows.values()}) == 5


def test_recipes_survive_json():
    assert recipes.Recipe(**LITE.model_dump(mode="json")) == LITE
