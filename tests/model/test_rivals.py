"""One tester for every context module and one for every fusion; then every row of the tables.

The formulas are written out a second time here, in float64 and from plain sums wherever torch's
own function is what the module calls.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsfcn import recipes, weights
from wsfcn.build import build_model
from wsfcn.model import resnet, vgg
from wsfcn.model.context_rivals import ASPP, PPM, LargeConv, NonLocal
from wsfcn.model.decoder import Decoder
from wsfcn.model.fca import FCA, SRM, ChannelAttention, StripConv
from wsfcn.model.layers import FixedStatsBatchNorm2d, PoolBranch
from wsfcn.model.network import Network, count_parameters
from wsfcn.model.sf2 import FUSE, SF2, FlowAlign, TwoStreams
from wsfcn.model.skip_gci import SkipGCI
from wsfcn.train import losses, parameter_groups

INPUTS, LOW, WIDTH = 24, 6, 8
SIZES = ((9, 9), (7, 5), (1, 13), (1, 1))

near = partial(FCA, dilations=(1, 2, 2, 2))
CONTEXTS: dict[str, Callable[..., nn.Module]] = {
    "fca": near,
    "mclm": partial(near, spatial=False),
    "fca_private_attention": partial(near, private_attention=True),
    "fca_embedding_relu": partial(near, embedding_relu=True),
    "fca_srm_7x7": partial(near, srm_kernel=7),
    "aspp": partial(ASPP, rates=(1, 2, 4, 6)),
    "non_local": NonLocal,
    "large_conv": LargeConv,
    "ppm": PPM,
}
FUSIONS: dict[str, Callable[..., nn.Module]] = {
    "sf2": partial(SF2, align_width=4),
    "multiply": partial(SF2, align_width=0),
    "sum": partial(SF2, align_width=0, fuse="sum"),
    "concat": partial(SF2, align_width=0, fuse="concat"),
    "skip_gci": partial(SkipGCI, skip_width=4),
}
FCA_STAGES = {"strips", "channel_attention", "embedding", "context"}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def lively(module: nn.Module) -> nn.Module:
    """Batch norms of every kind, and a non-local block that is no longer the identity."""
    with torch.no_grad():
        for m in module.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.3)
                m.running_var.uniform_(0.5, 2)
                if m.affine:
                    m.weight.uniform_(0.5, 1.5)
                    m.bias.normal_(0, 0.3)
            if isinstance(m, NonLocal):
                m.out.weight.normal_(0, 0.3)
    return module.eval()


@pytest.fixture(params=CONTEXTS)
def context(request) -> nn.Module:
    return lively(CONTEXTS[request.param](INPUTS, WIDTH))


@pytest.fixture(params=FUSIONS)
def fusion(request) -> nn.Module:
    return lively(FUSIONS[request.param](LOW, WIDTH))


def features(size: tuple[int, int] = (9, 7), batch: int = 2) -> Tensor:
    return torch.randn(batch, INPUTS, *size)


def pair(size: tuple[int, int] = (13, 9), batch: int = 2) -> tuple[Tensor, Tensor]:
    """A low map and a context of half its size."""
    height, width = size
    half = (-(-height // 2), -(-width // 2))
    return torch.randn(batch, LOW, *size), torch.randn(batch, WIDTH, *half)


def error(found: Tensor, expected: Tensor) -> float:
    return float(((found.float() - expected).norm() / expected.norm()).detach())


def gradients(module: nn.Module, *inputs: Tensor) -> dict[str, Tensor | None]:
    found = module(*inputs)
    maps = found if isinstance(found, tuple) else (found,)
    module.zero_grad()
    sum((m * torch.randn_like(m)).sum() for m in maps).backward()
    return {name: p.grad for name, p in module.named_parameters()}


def statistics(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.named_buffers()}


# Context modules.


@pytest.mark.parametrize("size", SIZES)
def test_a_context_keeps_the_size(context, size):
    assert context(features(size)).shape == (2, WIDTH, *size)


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_context_records_its_stages_and_they_change_nothing(name):
    module, x = lively(CONTEXTS[name](INPUTS, WIDTH)), features()
    stages: dict[str, Tensor] = {}
    found = module(x, stages)
    assert torch.equal(found, module(x))
    assert torch.equal(found, stages["context"])
    if name == "mclm":
        assert set(stages) == FCA_STAGES
        assert torch.equal(stages["context"], stages["embedding"])
    elif name.startswith("fca"):
        assert set(stages) == FCA_STAGES | {"spatial_attention"}
    else:
        assert set(stages) == {"context"}


def test_a_context_drops_half_in_training_and_nothing_in_evaluation(context):
    stages: dict[str, Tensor] = {}
    found = context.train()(features((20, 20)), stages)
    whole = stages["context"]
    dropped = (found == 0) & (whole != 0)
    torch.testing.assert_close(found[~dropped], 2 * whole[~dropped])
    assert float(dropped.sum() / (whole != 0).sum()) == pytest.approx(0.5, abs=0.05)


def test_a_context_keeps_its_statistics_in_training(context):
    before = statistics(context)
    norms = [m for m in context.train().modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(isinstance(m, FixedStatsBatchNorm2d) and not m.training for m in norms)
    context(5 + features())
    assert all(torch.equal(before[name], value) for name, value in context.named_buffers())


def test_gradients_reach_every_weight_of_a_context(context):
    for name, gradient in gradients(context.train(), features()).items():
        assert gradient is not None and bool(gradient.any()), name


def test_a_context_in_bfloat16_is_close(context):
    x = features()
    found = copy.deepcopy(context).bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16 and error(found, context(x)) < 0.03


def test_a_context_in_channels_last_is_the_same(context):
    x = features()
    expected = context(x)
    last = context.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        last(x.contiguous(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_file_of_a_context_gives_the_identical_map(name, tmp_path):
    module, x = lively(CONTEXTS[name](INPUTS, WIDTH)), features()
    other = CONTEXTS[name](INPUTS, WIDTH).eval()
    assert not torch.equal(other(x), module(x))
    reload(module, other, tmp_path)
    assert torch.equal(other(x), module(x))


def reload(module: nn.Module, other: nn.Module, folder) -> None:
    path = folder / "part.safetensors"
    weights.write_safetensors(path, module.state_dict(), {})
    weights.load_state(other, weights.read_safetensors(path)[0], str(path))


# Fusions.


@pytest.mark.parametrize("size", [(13, 9), (5, 12), (2, 3), (1, 1)])
def test_a_fusion_gives_two_maps_at_the_low_resolution(fusion, size):
    deep, shallow = fusion(*pair(size))
    assert deep.shape == shallow.shape == (2, WIDTH, *size)
    assert not torch.equal(deep, shallow)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_records_its_stages_and_they_change_nothing(name):
    module, maps = lively(FUSIONS[name](LOW, WIDTH)), pair()
    stages: dict[str, Tensor] = {}
    assert all(map(torch.equal, module(*maps, stages), module(*maps)))
    expected = {"skip_gci": set(), "sf2": {"flow", "aligned", "fused"}}
    assert set(stages) == expected.get(name, {"aligned", "fused"})
    if stages:
        assert stages["aligned"].shape == (2, WIDTH, 13, 9)
        assert stages["fused"].shape == (2, WIDTH * (2 if name == "concat" else 1), 13, 9)
    if name == "sf2":
        assert stages["flow"].shape == (2, 2, 13, 9)


def test_a_fusion_learns_its_statistics_in_training_alone(fusion):
    low, context = pair()
    before = statistics(fusion)
    fusion(5 + low, 5 + context)
    assert all(torch.equal(before[name], value) for name, value in fusion.named_buffers())
    fusion.train()(5 + low, 5 + context)
    moved = statistics(fusion)
    assert before
    for name, value in before.items():
        assert not torch.equal(moved[name], value), name


def test_gradients_reach_every_weight_of_a_fusion_and_both_its_inputs(fusion):
    low, context = (x.requires_grad_() for x in pair())
    for name, gradient in gradients(fusion.train(), low, context).items():
        assert gradient is not None and bool(gradient.any()), name
    assert bool(low.grad.any()) and bool(context.grad.any())


def test_a_fusion_in_bfloat16_is_close(fusion):
    maps = pair()
    found = copy.deepcopy(fusion).bfloat16()(*(x.bfloat16() for x in maps))
    for a, b in zip(found, fusion(*maps), strict=True):
        assert a.dtype == torch.bfloat16 and error(a, b) < 0.05


def test_a_fusion_in_channels_last_is_the_same(fusion):
    maps = pair()
    expected = fusion(*maps)
    last = fusion.to(memory_format=torch.channels_last)
    found = last(*(x.contiguous(memory_format=torch.channels_last) for x in maps))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_file_of_a_fusion_gives_the_identical_maps(name, tmp_path):
    module, maps = lively(FUSIONS[name](LOW, WIDTH)), pair()
    other = FUSIONS[name](LOW, WIDTH).eval()
    assert not torch.equal(other(*maps)[0], module(*maps)[0])
    reload(module, other, tmp_path)
    assert all(map(torch.equal, other(*maps), module(*maps)))


def test_an_unknown_way_to_fuse_is_refused():
    with pytest.raises(KeyError, match="divide"):
        SF2(LOW, WIDTH, 0, "divide")


# Formulas, written out.

State = dict[str, Tensor]


def norm(state: State, name: str, x: Tensor) -> Tensor:
    """A batch norm of the state by its statistics; without weights where it has none."""
    mean, var = (state[f"{name}.running_{k}"][:, None, None] for k in ("mean", "var"))
    y = (x - mean) / torch.sqrt(var + 1e-5)
    if f"{name}.weight" in state:
        y = y * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]
    return y


def pointwise(weight: Tensor, x: Tensor) -> Tensor:
    """A 1x1 convolution as a matrix product over the channels."""
    return torch.einsum("oi,bihw->bohw", weight[..., 0, 0], x)


def convolve(weight: Tensor, x: Tensor, dilation: int = 1) -> Tensor:
    """A size-keeping convolution as a sum over its taps of shifted maps."""
    height, width = x.shape[2:]
    down, right = (dilation * (k // 2) for k in weight.shape[2:])
    x = F.pad(x, (right, right, down, down))
    return sum(
        torch.einsum(
            "oi,bihw->bohw",
            weight[:, :, i, j],
            x[:, :, i * dilation : i * dilation + height, j * dilation : j * dilation + width],
        )
        for i in range(weight.shape[2])
        for j in range(weight.shape[3])
    )


def tent(position: Tensor, count: int) -> Tensor:
    """Weights of linear interpolation at a position among `count` samples, zeros outside."""
    return F.relu(1 - (position[..., None] - torch.arange(count)).abs())


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners aligned: output i lies at i (n - 1) / (N - 1) of the input."""
    rows, columns = (
        tent(torch.arange(after, dtype=x.dtype) * (before - 1) / max(1, after - 1), before)
        for before, after in zip(x.shape[2:], size, strict=True)
    )
    return torch.einsum("yi,xj,bcij->bcyx", rows, columns, x)


def upsample_by_centres(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, centres aligned: output i lies at (i + 1/2) n / N - 1/2, within the input."""
    rows, columns = (
        tent(
            ((torch.arange(after, dtype=x.dtype) + 0.5) * before / after - 0.5).clamp(
                0, before - 1
            ),
            before,
        )
        for before, after in zip(x.shape[2:], size, strict=True)
    )
    return torch.einsum("yi,xj,bcij->bcyx", rows, columns, x)


def doubled(module: nn.Module) -> tuple[nn.Module, State]:
    module = lively(module).double()
    return module, module.state_dict()


def pool_branch(state: State, x: Tensor) -> Tensor:
    y = pointwise(state["pool.project.0.weight"], x.mean((2, 3), keepdim=True))
    return F.relu(norm(state, "pool.project.1", y)).expand(-1, -1, *x.shape[2:])


def test_aspp_is_four_branches_an_image_pool_and_an_embedding():
    module, state = doubled(ASPP(INPUTS, WIDTH, rates=(1, 2, 4, 6)))
    x = features().double()
    parts = [
        F.relu(
            norm(
                state,
                f"branches.{i}.1",
                F.conv2d(
                    x,
                    state[f"branches.{i}.0.weight"],
                    padding=rate if i else 0,
                    dilation=rate,
                ),
            )
        )
        for i, rate in enumerate((1, 2, 4, 6))
    ]
    parts.append(pool_branch(state, x))
    y = F.relu(norm(state, "embed.1", pointwise(state["embed.0.weight"], torch.cat(parts, 1))))
    torch.testing.assert_close(module(x), y)
    sides = [state[f"branches.{i}.0.weight"].shape[-1] for i in range(4)]
    assert sides == [1, 3, 3, 3]


def test_large_conv_is_one_dense_7x7():
    module, state = doubled(LargeConv(INPUTS, WIDTH))
    x = features().double()
    assert state["embed.0.weight"].shape == (WIDTH, INPUTS, 7, 7)
    expected = F.relu(norm(state, "embed.1", convolve(state["embed.0.weight"], x)))
    torch.testing.assert_close(module(x), expected)


def test_non_local_is_a_softmax_over_all_pixels():
    module, state = doubled(NonLocal(INPUTS, WIDTH))
    x = features().double()
    theta, phi, g = (pointwise(state[f"{k}.weight"], x).flatten(2) for k in ("theta", "phi", "g"))
    assert theta.shape[1] == INPUTS // 2
    products = torch.einsum("bci,bcj->bij", theta, phi)
    attention = products.exp() / products.exp().sum(2, keepdim=True)
    y = torch.einsum("bij,bcj->bci", attention, g).view(2, -1, *x.shape[2:])
    z = x + pointwise(state["out.weight"], y)
    expected = F.relu(norm(state, "embed.1", pointwise(state["embed.0.weight"], z)))
    torch.testing.assert_close(module(x), expected)


def test_non_local_starts_as_the_identity_and_then_learns_to_attend():
    module, x = NonLocal(INPUTS, WIDTH).train(), features()
    stages: dict[str, Tensor] = {}
    module(x, stages)
    torch.testing.assert_close(stages["context"], F.relu(module.embed(x)))
    inner = ("theta.weight", "phi.weight", "g.weight")
    first = gradients(module, x)
    assert not any(bool(first[name].any()) for name in inner)
    assert bool(first["out.weight"].any()) and bool(first["embed.0.weight"].any())
    torch.optim.SGD(module.parameters(), lr=0.01).step()
    second = gradients(module, x)
    assert all(bool(second[name].any()) for name in inner)


@pytest.mark.parametrize("size", [(9, 7), (12, 12), (4, 5)])
def test_ppm_averages_bins_and_puts_them_beside_the_input(size):
    module, state = doubled(PPM(INPUTS, WIDTH))
    x = features(size).double()
    height, width = size
    parts = [x]
    for index, bins in enumerate((1, 2, 3, 6)):
        pooled = x.new_empty(2, INPUTS, bins, bins)
        for i in range(bins):
            for j in range(bins):
                # From the floor of a bin's start to the ceiling of its end.
                rows = slice(i * height // bins, -(-(i + 1) * height // bins))
                columns = slice(j * width // bins, -(-(j + 1) * width // bins))
                pooled[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
        y = pointwise(state[f"branches.{index}.0.weight"], pooled)
        assert y.shape[1] == INPUTS // 4
        parts.append(upsample(F.relu(norm(state, f"branches.{index}.1", y)), size))
    y = F.relu(norm(state, "embed.1", convolve(state["embed.0.weight"], torch.cat(parts, 1))))
    torch.testing.assert_close(module(x), y)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("kernel", [3, 7])
def test_fca_is_strips_attention_embedding_and_recalibration(private, relu, kernel):
    dilations = (1, 2, 3, 1)
    module, state = doubled(
        FCA(
            INPUTS,
            WIDTH,
            dilations=dilations,
            private_attention=private,
            embedding_relu=relu,
            srm_kernel=kernel,
        )
    )
    x = features().double()
    parts = []
    for i, (k, d) in enumerate(zip((1, 3, 5, 7), dilations, strict=True)):
        column, across, row, down = (
            state[f"strips.{i}.{name}.weight"]
            for name in ("column_first", "column_second", "row_first", "row_second")
        )
        assert column.shape[2:] == down.shape[2:] == (k, 1)
        assert row.shape[2:] == across.shape[2:] == (1, k)
        f = convolve(across, convolve(column, x, d), d) + convolve(down, convolve(row, x, d), d)
        name = f"attention.{i}" if private else "attention"
        squeeze, excite = (state[f"{name}.{k}.weight"] for k in ("squeeze", "excite"))
        assert squeeze.shape[0] == (WIDTH // 4 if private else WIDTH)
        gates = [
            pointwise(excite, F.relu(pointwise(squeeze, pooled[..., None, None])))
            for pooled in (f.mean((2, 3)), f.flatten(2).max(2).values)
        ]
        parts.append(torch.sigmoid(gates[0] + gates[1]) * f)
    parts.append(pool_branch(state, x))
    e = norm(state, "embed.1", pointwise(state["embed.0.weight"], torch.cat(parts, 1)))
    e = F.relu(e) if relu else e
    pooled = torch.stack([e.mean(1), e.max(1).values], 1)
    assert state["srm.conv.weight"].shape == (1, 2, kernel, kernel)
    s = torch.sigmoid(convolve(state["srm.conv.weight"], pooled))
    torch.testing.assert_close(module(x), e + s * e)


def unit(state: State, name: str, x: Tensor) -> Tensor:
    """ReLU of the norm of a 3x3 convolution with bias."""
    bias = state[f"{name}.conv.bias"][:, None, None]
    return F.relu(norm(state, f"{name}.norm", convolve(state[f"{name}.conv.weight"], x) + bias))


def two_streams(state: State, low: Tensor, deep: Tensor, fuse: str) -> tuple[Tensor, Tensor]:
    h1, v1 = unit(state, "streams.low1", low), unit(state, "streams.deep1", deep)
    h2, v2 = unit(state, "streams.low2", h1), unit(state, "streams.deep2", v1)
    fused = {"multiply": h2 * v2, "sum": h2 + v2, "concat": torch.cat([h2, v2], 1)}[fuse]
    return (
        unit(state, "streams.deep4", unit(state, "streams.deep3", fused) + v1),
        unit(state, "streams.low4", unit(state, "streams.low3", fused) + h1),
    )


def randomise_biases(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
    return module


@pytest.mark.parametrize("fuse", ["multiply", "sum", "concat"])
def test_rivals_of_sf2_upsample_and_fuse_by_their_formula(fuse):
    module, state = doubled(randomise_biases(SF2(LOW, WIDTH, align_width=0, fuse=fuse)))
    low, context = (x.double() for x in pair())
    expected = two_streams(state, low, upsample(context, (13, 9)), fuse)
    torch.testing.assert_close(module(low, context), expected)


def test_sf2_samples_the_context_where_the_flow_points():
    module, state = doubled(randomise_biases(SF2(LOW, WIDTH, align_width=4)))
    state["align.flow.weight"] *= 16  # far enough that some samples lie outside
    low, context = (x.double() for x in pair())
    height, width = 13, 9
    reduced = upsample_by_centres(
        pointwise(state["align.reduce_high.weight"], context), (height, width)
    )
    reduced = torch.cat([reduced, pointwise(state["align.reduce_low.weight"], low)], 1)
    flow = convolve(state["align.flow.weight"], reduced)
    x = torch.linspace(-1, 1, width, dtype=low.dtype) + flow[:, 0] / width
    y = torch.linspace(-1, 1, height, dtype=low.dtype)[:, None] + flow[:, 1] / height
    assert float(x.detach().abs().max()) > 1.2 and float(y.detach().abs().max()) > 1.2
    rows, columns = context.shape[2:]
    aligned = torch.einsum(
        "byxi,byxj,bcij->bcyx",
        tent((y + 1) / 2 * (rows - 1), rows),
        tent((x + 1) / 2 * (columns - 1), columns),
        context,
    )
    stages: dict[str, Tensor] = {}
    found = module(low, context, stages)
    torch.testing.assert_close(stages["flow"], flow)
    torch.testing.assert_close(stages["aligned"], aligned)
    torch.testing.assert_close(found, two_streams(state, low, aligned, "multiply"))


def test_skip_gci_is_the_fusion_of_the_baseline():
    module, state = doubled(SkipGCI(LOW, WIDTH, 4))
    low, context = (x.double() for x in pair())

    def layer(name: str, x: Tensor) -> Tensor:
        return norm(state, f"{name}.1", convolve(state[f"{name}.0.weight"], x))

    skip = F.relu(layer("skip", low))
    deep = F.relu(layer("fuse", torch.cat([upsample(context, (13, 9)), skip], 1)))
    cue = F.relu(layer("cue", deep)).flatten(2).max(2).values[..., None, None]
    shallow = F.relu(layer("shallow", low) * (1 + cue[:, :WIDTH]) + cue[:, WIDTH:])
    torch.testing.assert_close(module(low, context), (deep, F.relu(layer("out", shallow))))
    assert "shallow.1.weight" not in state


# Sizes at the paper's widths.

PAPER: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "aspp": (lambda: ASPP(4096, 256), 30_739_456),
    "non-local": (lambda: NonLocal(4096, 256), 34_603_520),
    "large conv": (lambda: LargeConv(4096, 256), 51_380_736),
    "ppm": (lambda: PPM(4096, 256), 35_660_288),
    "strips": (lambda: FCA(4096, 256).strips, 35_651_584),
    "strip of 1": (lambda: StripConv(4096, 256, 1, 1), 2_228_224),
    "shared attention": (lambda: FCA(4096, 256).attention, 131_072),
    "private attention": (lambda: FCA(4096, 256, private_attention=True).attention, 131_072),
    "one attention by 4": (lambda: ChannelAttention(256, 4), 32_768),
    "image pool": (lambda: PoolBranch(4096, 256), 1_049_088),
    "fca embedding": (lambda: FCA(4096, 256).embed, 328_192),
    "srm": (SRM, 18),
    "srm 7x7": (lambda: SRM(7), 98),
    "fca": (lambda: FCA(4096, 256), 37_159_954),
    "mclm": (lambda: FCA(4096, 256, spatial=False), 37_159_936),
    "align": (lambda: FlowAlign(256, 256, 128), 70_144),
    "two streams": (lambda: TwoStreams(256, 256, 256), 4_724_736),
    "two streams, sum": (lambda: TwoStreams(256, 256, 256, "sum"), 4_724_736),
    "two streams, concat": (lambda: TwoStreams(256, 256, 256, "concat"), 5_904_384),
    "sf2": (lambda: SF2(256, 256, 128), 4_794_880),
    "sf2 without align": (lambda: SF2(256, 256, 0), 4_724_736),
    "skip": (lambda: nn.ModuleList([skip_gci().skip, skip_gci().fuse]), 713_312),
    "gci": (
        lambda: nn.ModuleList([skip_gci().shallow, skip_gci().cue, skip_gci().out]),
        263_680,
    ),
    "decoder": (lambda: Decoder(256, 20), 1_185_812),
}


def skip_gci() -> SkipGCI:
    return SkipGCI(256, 256, 48)


@pytest.mark.parametrize("part", PAPER)
def test_parameters_of_a_part_are_those_of_the_paper(part):
    build, expected = PAPER[part]
    with torch.device("meta"):
        module = build()
    assert sum(p.numel() for p in module.parameters()) == expected


# Exact sums of the rows, to the last parameter: 104,202,240 of the backbone and 1,185,812 of the
# decoder beside the parts above.
ROW_SIZES = {
    "baseline": 137_104_500,
    "mclm": 143_524_980,
    "fca": 143_524_998,
    "sf2": 140_922_388,
    "full": 147_342_886,
    "non_local": 140_968_564,
    "large_conv": 157_745_780,
    "ppm": 142_025_332,
    "sum": 140_852_244,
    "concat": 142_031_892,
    "multiply": 140_852_244,
}


@pytest.mark.parametrize("row", recipes.table1() | recipes.table2())
def test_parameters_of_a_row_are_those_of_the_paper(row):
    with torch.device("meta"):
        model = build_model((recipes.table1() | recipes.table2())[row])
    assert count_parameters(model) == ROW_SIZES[row]


# Every row of the tables and every variant takes a step.

SMOKE = recipes.smoke_scenes().change({"model.pretrained": False, "train.views": 0})
ROWS = recipes.table1(SMOKE) | recipes.table2(SMOKE)
VARIANTS = recipes.variants(SMOKE)


def maps_of(model: Network, x: Tensor) -> Tensor:
    with torch.inference_mode():
        found = model.eval()(x)
    assert bool(found.logits.isfinite().all()) and bool(found.scores.isfinite().all())
    return found.logits


def check_one_step(recipe: recipes.Recipe) -> None:
    model = build_model(recipe)
    image = torch.rand(2, 3, 64, 64)
    labels = torch.zeros(2, model.num_classes)
    labels[0, 3] = labels[1, 5] = labels[1, 7] = 1
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    x = model.normalise(image)
    first = maps_of(model, x)
    optimiser = torch.optim.SGD(parameter_groups(model, recipe.train))
    found = losses(model.train()(x), image, labels, recipe.weak, warm_up=False)
    loss = found.classification + recipe.weak.weight * found.mask
    assert bool(loss.isfinite()) and float(found.classification.detach()) > 0
    loss.backward()
    optimiser.step()
    asleep = ("context.theta.", "context.phi.", "context.g.")  # at the first step of all
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name
        if moved and not (recipe.model.context == "non_local" and name.startswith(asleep)):
            assert bool(parameter.grad.any()), name
    assert not torch.equal(maps_of(model, x), first)


KINDS = {
    "fca": FCA,
    "mclm": FCA,
    "aspp": ASPP,
    "non_local": NonLocal,
    "large_conv": LargeConv,
    "ppm": PPM,
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_the_parts_it_names(row):
    settings = ROWS[row].model
    with torch.device("meta"):
        model = build_model(ROWS[row])
    assert type(model.context) is KINDS[settings.context]
    if settings.context in ("fca", "mclm"):
        assert (model.context.srm is not None) == (settings.context == "fca")
    if settings.fusion == "skip_gci":
        assert type(model.fusion) is SkipGCI
        return
    assert (model.fusion.align is not None) == (settings.fusion == "sf2")
    fuse = "multiply" if settings.fusion == "sf2" else settings.fusion
    assert model.fusion.streams.fuse is FUSE[fuse]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_takes_a_step(row):
    check_one_step(ROWS[row])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_takes_a_step(variant):
    check_one_step(VARIANTS[variant])


@pytest.mark.parametrize(("backbone", "frozen"), [("vgg16", 5), ("resnet50", 4)])
@pytest.mark.parametrize("row", ROWS)
def test_every_row_takes_a_step_on_another_backbone(row, backbone, frozen, monkeypatch):
    monkeypatch.setitem(resnet.DEPTHS, "50", (1, 1, 1, 1))
    narrow = tuple((256 if i == 2 else 32, *rest) for i, (_, *rest) in enumerate(vgg.STAGES))
    monkeypatch.setattr(vgg, "STAGES", narrow)
    check_one_step(ROWS[row].change({"model.backbone": backbone, "model.frozen": frozen}))


@pytest.mark.parametrize("variant", ["embedding_relu", "undilated_strips", "matched_gate"])
def test_a_variant_makes_another_map_of_the_same_weights(variant):
    base, other = build_model(SMOKE), build_model(VARIANTS[variant])
    other.load_state_dict(base.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert not torch.equal(maps_of(base, x), maps_of(other, x))


def test_the_other_variants_of_the_network_have_other_weights():
    private = build_model(VARIANTS["private_attention"]).context.attention
    assert isinstance(private, nn.ModuleList) and len(private) == 4
    assert build_model(VARIANTS["srm_7x7"]).context.srm.conv.kernel_size == (7, 7)
