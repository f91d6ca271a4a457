"""The published networks: their names and sizes, their numbers, their files and bad ones.

published_*.npz hold what the released WS-FCN and its baseline compute, with weights made from the
names of their tensors (`made_weights`), so that no weight file is needed.
"""

from __future__ import annotations

import hashlib
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from wsfcn import load, published, recipes, weights
from wsfcn.build import BACKBONES
from wsfcn.settings import SettingsError
from wsfcn.study.params import meta_network
from wsfcn.train import losses
from wsfcn.weights import COUNTER, WeightsError

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared"
RECIPES = {"wsfcn": recipes.paper_voc(), "baseline": recipes.table1()["baseline"]}
# How many keys a file has, and the checksum of its sorted names and shapes.
LAYOUTS = {
    "wsfcn": (355, "df220ea4ab79a22228ece48f44ec489601fe36a63fddb803815ba398f3fcd48f"),
    "baseline": (309, "1809641bfcd60282043ccf6ff5770758fb4b27124aa78aea317c331fc9a37976"),
}


def made_weights(shapes: dict[str, tuple[int, ...]], salt: str = "") -> dict[str, torch.Tensor]:
    """Weights drawn from a generator that the name seeds."""
    made = {}
    for key, shape in shapes.items():
        if key.endswith(COUNTER) or key.startswith("_aff."):
            continue
        draw = np.random.Generator(np.random.PCG64(zlib.crc32((key + salt).encode())))
        if key.endswith("running_mean") or key.endswith(".bias"):
            value = 0.1 * draw.standard_normal(shape)
        elif len(shape) == 4:
            value = 0.75 * draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:  # running_var and the scales of norms
            value = draw.uniform(0.5, 1.5, shape)
        made[key] = torch.from_numpy(np.asarray(value, np.float32))
    return made


def shapes_of(kind: str) -> dict[str, tuple[int, ...]]:
    state = published.state(meta_network(RECIPES[kind]))
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.fixture(scope="module", params=["wsfcn", "baseline"])
def known(request):
    """The kind, its made weights, and the network that has loaded them."""
    made = made_weights(shapes_of(request.param))
    return request.param, made, weights.load_published(dict(made), RECIPES[request.param])


@pytest.mark.parametrize("kind", LAYOUTS)
def test_names_and_shapes_are_the_published_ones(kind):
    lines = sorted(f"{key} {shape}" for key, shape in shapes_of(kind).items())
    count, checksum = LAYOUTS[kind]
    assert len(lines) == count
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == checksum


def close(found, expected):
    torch.testing.assert_close(found.detach(), torch.as_tensor(expected), rtol=1e-4, atol=1e-5)


def test_a_whole_step_gives_the_published_numbers(known):
    kind, _, network = known
    network.zero_grad()
    with np.load(HERE / f"published_{kind}.npz") as arrays:
        numbers = dict(arrays)
    x, raw, labels = (torch.from_numpy(numbers[k]) for k in ("x", "raw", "y"))
    out = network(x)
    close(out.scores, numbers["scores"])
    close(out.masks[:, :, ::4, ::4], numbers["masks"])
    found = losses(out, raw, labels, network.recipe.weak, warm_up=False)
    close(found.classification, numbers["step_cls_loss"])
    close(found.mask, numbers["step_mask_loss"].mean())
    (found.classification + found.mask).backward()
    ours = {theirs: name for name, theirs in published.names(network).items()}
    parameters = dict(network.named_parameters())
    gradients = [key for key in numbers if key.startswith("grad:")]
    assert gradients
    for key in gradients:
        close(parameters[ours[key.removeprefix("grad:")]].grad, numbers[key])


def test_all_numbers_where_the_whole_sets_are(known):
    kind, _, network = known
    path = SHARED / "fixtures" / f"dev-{kind}.npz"
    if not path.exists():
        pytest.skip(f"{path.name}: the whole set of published numbers is not beside this checkout")
    with np.load(path) as arrays, torch.no_grad():
        out = network(torch.from_numpy(arrays["x"]))
        close(out.scores, arrays["scores"])
        close(out.masks, arrays["masks"])


def test_published_to_ours_and_back_is_bit_identical(known, tmp_path):
    kind, made, network = known
    back = published.state(network)
    assert back.keys() == shapes_of(kind).keys()
    kept = [k for k in made if not published.UNUSED.match(k)]
    assert len(kept) == len(made) - (16 if kind == "wsfcn" else 0)
    assert all(torch.equal(back[k], made[k]) for k in kept)
    published.save(network, tmp_path / "ours.pth")
    again = weights.read_pth(tmp_path / "ours.pth")
    assert all(torch.equal(again[k], back[k]) for k in back)
    if kind == "wsfcn":  # norms that nothing calls go back as they were initialised
        assert set(again["fca.fca2.bn.weight"].tolist()) == {1.0}
        assert set(again["fca.fca2.bn.running_mean"].tolist()) == {0.0}


@pytest.mark.parametrize("known", ["wsfcn"], indirect=True)
def test_parallel_prefix_and_counters_are_tolerated(known):
    kind, made, network = known
    full = {f"module.{k}": v for k, v in published.state(network).items()}
    full["module.bn7.num_batches_tracked"] = torch.tensor(7)
    again = published.load(full, RECIPES[kind])
    assert again.backbone.bn7.num_batches_tracked == 7
    assert torch.equal(again.decoder[8].weight, made["last_conv.8.weight"])


@pytest.mark.parametrize("known", ["wsfcn"], indirect=True)
def test_the_imagenet_file_fills_the_backbone_alone(known, tmp_path):
    kind, made, network = known
    backbone = {k: v for k, v in made.items() if k in network.backbone.state_dict()}
    assert len(backbone) == 191
    found = published.load(backbone, RECIPES[kind])
    assert torch.equal(found.backbone.b6.conv_branch2b1.weight, made["b6.conv_branch2b1.weight"])
    assert not torch.equal(found.decoder[0].weight, made["last_conv.0.weight"])
    # the same file, named by a recipe
    torch.save(backbone, tmp_path / "imagenet.pth")
    again = BACKBONES["wide_resnet38"]()
    weights.load_imagenet(again, "wide_resnet38", str(tmp_path / "imagenet.pth"))
    assert torch.equal(again.bn7.running_var, made["bn7.running_var"])


def test_every_problem_is_listed_by_its_published_name():
    state = {k: torch.zeros(s) for k, s in shapes_of("wsfcn").items()}
    del state["last_conv.0.weight"], state["sf2.bn1h.bias"], state["bn7.num_batches_tracked"]
    state["surplus"] = torch.zeros(1)
    state["fca.conv1.weight"] = torch.zeros(3, 3)
    with pytest.raises(WeightsError) as error:
        published.load(state, RECIPES["wsfcn"])
    for part in (
        "does not fit paper_voc",
        "missing last_conv.0.weight",
        "missing sf2.bn1h.bias",
        "unexpected surplus",
        "fca.conv1.weight has shape (3, 3), expected (256, 1280, 1, 1)",
    ):
        assert part in str(error.value)
    assert COUNTER not in str(error.value)


def test_networks_without_a_published_layout_are_named():
    for changes, name in (({"context": "ppm"}, "'ppm'"), ({"fusion": "sum"}, "'sum'")):
        recipe = recipes.paper_voc().change({f"model.{k}": v for k, v in changes.items()})
        with pytest.raises(SettingsError, match=f"{name} has no published layout"):
            published.names(meta_network(recipe))


class Bomb:
    """Unpickling it would write a file."""

    def __reduce__(self):
        return exec, ("open('exploded', 'w')",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Bomb()}, "zip.pth")
    Path("plain.pth").write_bytes(pickle.dumps({"a": Bomb()}))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(WeightsError, match=f"{name}: holds more than tensors"):
            weights.load_published(name, RECIPES["wsfcn"])
    assert not Path("exploded").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_a_file_that_is_none_is_named(tmp_path, content):
    path = tmp_path / "broken.pth"
    if content is None:
        torch.save({"a": torch.zeros(1000)}, path)
        content = path.read_bytes()[:900]
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"broken\.pth: "):
        weights.read_pth(path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsError, match="needs a flat table of tensors"):
        weights.read_pth(path)


def test_legacy_files_are_read(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert weights.read_pth(tmp_path / "old.pth")["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("known", ["wsfcn"], indirect=True)
def test_a_converted_file_loads_and_tells_where_it_came_from(known, tmp_path):
    kind, made, _ = known
    torch.save(made, tmp_path / "theirs.pth")
    said = published.convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    assert published.sha256(tmp_path / "theirs.pth") in said
    network = load(tmp_path / "ours.safetensors")
    assert network.recipe == RECIPES[kind]
    assert torch.equal(network.decoder[8].bias, made["last_conv.8.bias"])
    header = weights.read_safetensors(tmp_path / "ours.safetensors")[1]
    assert header["provenance"]["source"] == "theirs.pth"
    assert header["provenance"]["sha256"] == published.sha256(tmp_path / "theirs.pth")
