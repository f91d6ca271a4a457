from __future__ import annotations

import pytest

from wsfcn.settings import SettingsError
from wsfcn.study.parameters import (
    PARAMETERS,
    Cams,
    CellParameters,
    NotebookParameters,
    Training,
    parameters_cell,
)
from wsfcn.study.sources import assignments


class Lists(CellParameters):
    rates: tuple[float, ...] = (0.1,)
    names: list[str] | None = None
    on: bool = False


def test_texts_are_read_as_the_type_of_their_field():
    training = Training(epochs="4", warmup_epochs="none", seed="7")
    assert (training.epochs, training.warmup_epochs, training.seed) == (4, None, 7)
    lists = Lists(rates="0.1, 3", names='["a", "b"]', on="true")
    assert (lists.rates, lists.names, lists.on) == ((0.1, 3.0), ["a", "b"], True)
    assert Lists(names="None").names is None
    assert Cams(model="none").model == "none"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epohcs": 3}, "epohcs: no such setting; did you mean 'epochs'?"),
        ({"epochs": "many"}, "epochs: .*integer.*'many'"),
        ({"epochs": 0}, "epochs: .*greater than or equal to 1.*got 0"),
        ({"epochs": 2, "warmup_epochs": 3}, "warmup_epochs: must be at most epochs"),
        ({"profile": "laptp"}, "profile: .*'smoke', 'laptop' or 'paper'.*'laptp'"),
        ({"seed": -1}, "seed: .*greater than or equal to 0"),
    ],
)
def test_wrong_values_name_the_field_and_what_it_takes(given, message):
    with pytest.raises(SettingsError, match=message):
        Training(**given)


def test_files_become_absolute_and_must_exist(tmp_path, monkeypatch):
    (tmp_path / "cat.jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert Cams(photo="cat.jpg").photo == str(tmp_path / "cat.jpg")
    with pytest.raises(SettingsError, match=r"photo: no such file.*'dog.jpg'"):
        Cams(photo="dog.jpg")
    with pytest.raises(SettingsError, match="model: no such file"):
        Cams(model="runs/none.safetensors")


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_profile_of_every_notebook_is_valid(name):
    schema = PARAMETERS[name]
    assert schema.offered()[0] == "smoke"
    for profile in schema.offered():
        assert schema.defaults(profile).profile == profile
    assert schema.defaults() == schema()


def test_a_profile_that_is_not_offered_says_which_are():
    with pytest.raises(SettingsError, match="'paper' is not offered here; offered: smoke, laptop"):
        Cams.defaults("paper")


@pytest.mark.parametrize("schema", [*PARAMETERS.values(), NotebookParameters])
def test_the_parameters_cell_assigns_the_smoke_defaults(schema):
    source = parameters_cell(schema)
    assert assignments(source) == schema.defaults("smoke").model_dump(mode="json")
    assert source.startswith(f"# schema: wsfcn.study.parameters.{schema.__name__}\n")
    assert all(len(line) <= 100 for line in source.splitlines())
