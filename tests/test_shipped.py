"""The networks of the package: found by name, as good as their headers say."""

from pathlib import Path

import numpy as np
import pytest
import torch

import wsfcn
from wsfcn import build, data, recipes
from wsfcn.evaluate import Score, evaluate
from wsfcn.study import shipped
from wsfcn.weights import WeightsError, read_safetensors

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "voc_animals"


class Few:
    """The first validation scenes, as a data set."""

    def __init__(self, samples, classes):
        self.samples, self.classes = samples, classes

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


@pytest.mark.parametrize("name", build.shipped())
def test_a_shipped_network_is_small_and_finds_what_its_header_says(name):
    path = build.SHIPPED / f"{name}.safetensors"
    assert path.stat().st_size < 12e6
    model = wsfcn.load(name)
    assert not model.training
    header = read_safetensors(path)[1]
    recorded = Score.from_dict(header["provenance"]["score"])
    settings = model.recipe.data
    if settings.kind != "scenes":
        if not PHOTOS.is_dir():
            pytest.skip(f"{PHOTOS}: the photos are not there")
        settings = settings.change({"root": str(PHOTOS)})
    val = data.build(settings)[1]
    protocol = model.recipe.protocol.change({"flip": settings.kind == "scenes"})  # photos take long
    few = Few([val[i] for i in range(24)], model.classes)
    score = evaluate(model, few, protocol, progress=False)
    assert score.protocol.scales == recorded.protocol.scales
    # 24 of the 300 scenes that were scored: a torn or mixed-up file finds next to nothing
    assert abs(score.mean_iou - recorded.mean_iou) < 0.15, (score.mean_iou, recorded.mean_iou)


def test_every_shipped_file_has_a_recipe_that_makes_it():
    known = shipped.scene_networks() | {"lite-voc": shipped.photo_network("")}
    assert set(build.shipped()) <= set(known)
    for name in build.shipped():
        assert wsfcn.load(name).recipe == known[name]


def test_a_name_that_is_not_shipped_lists_those_that_are():
    with pytest.raises(WeightsError, match=r"no-such: no network of this name.*lite-scenes"):
        wsfcn.load("no-such")


def test_compact_files_leave_out_the_backbone_of_the_package_alone(tmp_path):
    model = wsfcn.build_model(recipes.smoke_scenes()).eval()
    images = torch.rand(1, 3, 64, 64)
    wsfcn.save(model, tmp_path / "a.safetensors", compact=True)
    tensors, header = read_safetensors(tmp_path / "a.safetensors")
    assert header["backbone"] == "imagenet"
    assert not any(k.startswith("backbone.") for k in tensors)
    again = wsfcn.load(tmp_path / "a.safetensors")
    with torch.inference_mode():
        near = again(images).probabilities, model(images).probabilities
    np.testing.assert_allclose(*near, atol=0.05)

    with torch.no_grad():
        next(model.backbone.parameters()).add_(0.5)
    wsfcn.save(model, tmp_path / "b.safetensors", compact=True)
    assert any(k.startswith("backbone.") for k in read_safetensors(tmp_path / "b.safetensors")[0])


def test_a_network_that_half_precision_spoils_is_not_written(tmp_path, monkeypatch):
    recipe = recipes.smoke_scenes().change({"data.train": 8, "data.val": 4, "train.epochs": 1})
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path / "cache"))

    score = shipped.trained(recipe, progress=False).score
    monkeypatch.setattr(
        shipped, "evaluate", lambda *a, **k: score.__class__(**{**vars(score), "mean_iou": -1.0})
    )
    with pytest.raises(ValueError, match="half precision costs"):
        shipped.ship("lite-scenes", recipe, tmp_path, progress=False)
    assert not list(tmp_path.glob("*.safetensors"))
