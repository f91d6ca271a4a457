"""What the CAM explorer knows, without a browser."""

from __future__ import annotations

import base64
import io
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from wsfcn.data.sample import VOC_CLASSES, Sample
from wsfcn.data.transforms import to_tensor
from wsfcn.metrics import ConfusionMatrix
from wsfcn.model.layers import resize
from wsfcn.settings import SettingsError
from wsfcn.weak.pamr import PAMR

explorer = pytest.importorskip("wsfcn.show.explorer")
Explorer, Maps, State, View = explorer.Explorer, explorer.Maps, explorer.State, explorer.View


def sample(name="a", height=64, width=96, known=True, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, 8 : width // 2] = 8
    mask[height // 2] = 255
    labels = np.zeros(20, np.float32)
    labels[7] = known
    return Sample(name, image, labels, mask if known else None)


@pytest.fixture(scope="module")
def state():
    import wsfcn
    from wsfcn import recipes

    with torch.random.fork_rng():
        torch.manual_seed(0)
        recipe = recipes.smoke_scenes().change({"model.pretrained": False})
        samples = [sample(), sample("photo", 50, 80, known=False, seed=1)]
        return explorer.explore(wsfcn.build_model(recipe), samples)


def test_every_stage_has_its_maps(state):
    assert state.classes == VOC_CLASSES
    for picture, (h, w) in zip(state.pictures, [(16, 24), (13, 20)], strict=True):
        assert {*picture.maps} == {"cam", "fca", "sf2", "gate", "deep", "shallow", "crf"}
        for name in ("gate", "deep", "shallow"):
            maps = picture.maps[name]
            assert maps.values.shape == (len(maps.channels), h, w) and maps.channels[0] == 0
        assert picture.maps["sf2"].values.shape == (2, h, w)
        assert picture.maps["crf"].values.shape[1:] == picture.image.shape[:2]
        assert len(picture.maps["cam"].channels) <= explorer.EVIDENCE
        assert 0 not in picture.maps["cam"].channels
    known, unknown = state.pictures
    assert known.labels.nonzero()[0].tolist() == [7] and known.truth is not None
    assert unknown.labels is None and unknown.truth is None
    assert (unknown.kept("given", 0.1) == unknown.kept("guessed", 0.1)).all()
    assert unknown.kept("all", 0.1).all() and not unknown.kept("guessed", 1.0).any()
    assert (state.class_filter, state.exponent) == (0.1, 1.0)


def test_a_network_is_explored_as_its_protocol_says(tiny_network):
    recipe = tiny_network.recipe
    for background, exponent in (("power", 4.0), ("power", 20.0), ("constant", 1.0)):
        value = {"background": background, "background_value": exponent, "class_filter": 0.3}
        changes = {f"protocol.{name}": setting for name, setting in value.items()}
        tiny_network.recipe = recipe.change(changes)
        try:
            seen = Explorer(tiny_network, [sample()], crf=False)
        finally:
            tiny_network.recipe = recipe
        assert seen.state.class_filter == seen.meta["filter"] == 0.3
        assert seen.view["exponent"] == min(exponent, 8)
    assert Explorer(seen.state, exponent=2).view["exponent"] == 2


def test_numbers_are_off_by_half_a_step_at_most(tiny_network):
    one = sample()
    picture = explorer.explore(tiny_network, [one]).pictures[0]
    with torch.no_grad():
        output = tiny_network(tiny_network.normalise(to_tensor(one.image)[None]), stages=True)
    masks = picture.maps["gate"]
    exact = output.probabilities[0, list(masks.channels)].numpy()
    assert abs(masks.decoded() - exact).max() <= 1 / 510 + 1e-6
    for place, c in enumerate(masks.channels):
        assert (masks.of(c) == masks.decoded()[place]).all()
    assert masks.of(99).shape == exact.shape[1:] and not masks.of(99).any()
    left_out = [c for c in range(21) if c not in masks.channels]
    assert output.probabilities[0, left_out].numpy().max(initial=0) <= 1 / 510
    flow = picture.maps["sf2"]
    wanted = output.stages["flow"][0] * torch.tensor([95 / 48, 63 / 32])[:, None, None]
    assert abs(flow.decoded() - wanted.numpy()).max() <= (flow.high - flow.low) / 510 + 1e-5
    assert np.allclose(picture.scores, output.scores[0].sigmoid(), atol=1e-5)


def test_signed_maps_keep_zero():
    maps = Maps.signed(torch.tensor([[[-4.0, 0.0, 4.0]], [[0.0, 1.0, -2.0]]]))
    assert maps.values[0].tolist() == [[1, 128, 255]]
    assert np.allclose(maps.decoded()[:, 0], [[-4, 0, 4], [0, 1, -2]], atol=4 / 254 + 1e-6)
    assert (Maps.signed(torch.zeros(2, 1, 3)).decoded() == 0).all()


def test_the_cam_of_a_network_that_pools_is_its_cam():
    torch.manual_seed(0)
    features = torch.randn(1, 6, 5, 7, requires_grad=True)
    weights = torch.randn(3, 6)
    scores = features.mean((2, 3))[0] @ weights.t()
    wanted = torch.einsum("chw,kc->khw", features[0], weights).relu()
    wanted = wanted / wanted.amax((1, 2), keepdim=True)
    assert torch.allclose(explorer._evidence(scores, features), wanted, atol=1e-5)


@pytest.mark.parametrize("stage", ["cam", "gate", "pamr", "crf"])
def test_labels_follow_threshold_and_background(state, stage):
    view = View(stage=stage, allowed="all", threshold=0.04, step=3)
    labels = state.labels(view)
    assert labels.shape == (64, 96) and labels.dtype == np.uint8
    assert not state.labels(view.change({"threshold": 1.0})).any()
    higher = state.labels(view.change({"threshold": 0.1}))
    assert ((higher == labels) | (higher == 0)).all()
    larger = state.labels(view.change({"exponent": 4.0}))
    assert ((larger == labels) | (labels == 0)).all()
    if stage == "gate":
        assert (larger != labels).any()
    if stage == "cam":
        assert (larger == labels).all()


def test_pamr_and_the_rule_are_those_of_the_package(state):
    picture = state.pictures[0]
    masks = torch.from_numpy(picture.maps["gate"].decoded())[None]
    assert state.dilations == (1, 2, 4, 8) == tuple(state.packed()[0]["dilations"])  # the recipe's
    refined = PAMR(4, state.dilations)(to_tensor(picture.image)[None], masks)
    full = resize(refined, (64, 96))[0]
    full[0] = full[0] ** 2
    wanted = np.array(picture.maps["gate"].channels)[full.argmax(0).numpy()]
    view = View(stage="pamr", step=4, threshold=0, exponent=2, allowed="all")
    assert (state.labels(view) == wanted).mean() > 0.999
    counts = ConfusionMatrix(21)
    counts.update(state.labels(view), picture.truth)
    assert 0 <= counts.mean_iou <= 1


def test_only_the_allowed_classes_win(state):
    view = View(stage="gate", threshold=0, exponent=8)
    given = state.labels(view.change({"allowed": "given"}))
    assert {*np.unique(given)} <= {0, 8}
    scores = np.zeros(20, np.float32)
    nobody = replace(state.pictures[0], scores=scores)
    assert not State(VOC_CLASSES, (nobody,)).labels(view).any()


def test_the_browser_gets_every_array(state):
    meta, data = state.packed()
    raw = zlib.decompress(data)
    entry, picture = meta["pictures"][0], state.pictures[0]

    def unpacked(place):
        size = int(np.prod(place["shape"]))
        return np.frombuffer(raw, np.uint8, size, place["at"]).reshape(place["shape"])

    assert (unpacked(entry["image"]) == picture.image).all()
    assert (unpacked(entry["truth"]) == picture.truth).all()
    for name, maps in picture.maps.items():
        assert (unpacked(entry["maps"][name]) == maps.values).all()
        assert entry["maps"][name]["channels"] == maps.channels
    assert meta["pictures"][1]["truth"] is None and meta["pictures"][1]["labels"] is None


def test_a_network_without_fca_and_flow_has_fewer_stages(tiny_network):
    import wsfcn

    recipe = tiny_network.recipe.change({"model.context": "aspp", "model.fusion": "skip_gci"})
    network = wsfcn.build_model(recipe)
    maps = explorer.explore(network, [sample()], crf=False).pictures[0].maps
    assert {*maps} == {"cam", "gate", "deep", "shallow"}
    assert network.training


def test_large_photos_are_shown_at_500_px_and_seen_smaller(tiny_network):
    photo = {"a photo": sample(height=400, width=1000).image}
    picture = explorer.explore(tiny_network, photo, size=128, crf=False).pictures[0]
    assert picture.image.shape == (200, 500, 3) and picture.name == "a photo"
    assert picture.maps["gate"].values.shape[1:] == (13, 32)


def test_given_cams_are_shown(tiny_network):
    cams = torch.zeros(1, 20, 4, 6)
    cams[0, 3, 1, 2] = 1
    widget = Explorer(tiny_network, [sample()], cams=lambda pixels: (cams, None), crf=False)
    assert widget.state.pictures[0].maps["cam"].channels == (4,)
    assert widget.meta["cams"] == "classifier"


def test_the_widget_carries_state_picture_and_text(state):
    widget = Explorer(state, stage="pamr", threshold=0.5)
    assert widget.view["stage"] == "pamr" and widget.view["threshold"] == 0.5
    data, metadata = widget._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"} <= {*data}
    still = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert still.width > 400 and "photo" in metadata["image/png"]["alt"]
    photo = Explorer(State(state.classes, state.pictures[1:])).still()  # no column of exact masks
    assert np.asarray(photo.convert("L"))[:, 7 * photo.width // 8 :].min() < 200


@pytest.mark.parametrize("wrong", [{"stages": "pamr"}, {"threshold": 2}, {"stage": "flow"}])
def test_a_setting_that_is_wrong_is_named(state, wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Explorer(state, **wrong)
