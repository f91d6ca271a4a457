"""The network's parts against their formulas, computed independently or by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wsfcn.model.context_rivals import ASPP
from wsfcn.model.decoder import Decoder, StochasticGate, with_background
from wsfcn.model.fca import FCA, SRM, ChannelAttention, StripConv
from wsfcn.model.layers import FixedStatsBatchNorm2d, conv_bn, folded
from wsfcn.model.sf2 import SF2, FlowAlign, TwoStreams, sampling_grid
from wsfcn.model.skip_gci import SkipGCI


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_strip_conv_spreads_an_impulse_over_its_square():
    strip = StripConv(1, 1, length=5, dilation=3)
    for weight in strip.parameters():
        torch.nn.init.ones_(weight)
    x = torch.zeros(1, 1, 31, 31)
    x[..., 15, 15] = 1
    expected = torch.zeros_like(x)
    expected[..., 9:22:3, 9:22:3] = 2  # both crossed orders reach each of the 5 x 5 taps once
    assert torch.equal(strip(x), expected)


def test_strips_cost_2k_weights_a_channel_pair_in_each_order():
    strip = StripConv(40, 8, length=7, dilation=1)
    assert sum(p.numel() for p in strip.parameters()) == 2 * 7 * (40 * 8 + 8 * 8)


def test_channel_attention_is_equation_2():
    attention = ChannelAttention(6)
    f = torch.randn(2, 6, 5, 4)
    w1, w2 = attention.squeeze.weight[..., 0, 0], attention.excite.weight[..., 0, 0]

    def mlp(v):
        return F.relu(v @ w1.T) @ w2.T

    expected = torch.sigmoid(mlp(f.mean((2, 3))) + mlp(f.flatten(2).max(2).values))
    torch.testing.assert_close(attention(f)[..., 0, 0], expected)


def test_srm_adds_the_attended_map():
    srm = SRM()
    torch.nn.init.zeros_(srm.conv.weight)
    e = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(srm(e), 1.5 * e)  # sigmoid(0) = 1/2


@pytest.mark.parametrize("part", [FCA, ASPP])
def test_context_keeps_size_and_its_statistics_through_training(part):
    module = part(12, 8).train()
    before = {k: v.clone() for k, v in module.named_buffers()}
    x = 5 + torch.randn(2, 12, 9, 7)
    assert module(x).shape == (2, 8, 9, 7)
    assert all(torch.equal(before[k], v) for k, v in module.named_buffers())


def test_fca_records_every_stage():
    stages: dict[str, torch.Tensor] = {}
    module = FCA(12, 8, lengths=(1, 3), dilations=(1, 2)).eval()
    y = module(torch.randn(2, 12, 9, 7), stages)
    assert stages["strips"].shape == (2, 2, 8, 9, 7)
    assert stages["channel_attention"].shape == (2, 2, 8)
    assert stages["spatial_attention"].shape == (2, 1, 9, 7)
    torch.testing.assert_close(y, stages["embedding"] * (1 + stages["spatial_attention"]))


def test_mclm_is_fca_without_the_srm():
    full, part = FCA(12, 8), FCA(12, 8, spatial=False)
    count = [sum(p.numel() for p in m.parameters()) for m in (full, part)]
    assert count[0] - count[1] == 18


def test_zero_flow_is_bilinear_upsampling():
    align = FlowAlign(3, 4, 2)
    torch.nn.init.zeros_(align.flow.weight)
    high = torch.randn(2, 4, 5, 6)
    expected = F.interpolate(high, (9, 11), mode="bilinear", align_corners=True)
    torch.testing.assert_close(align(torch.randn(2, 3, 9, 11), high), expected)


def test_one_unit_of_flow_moves_the_grid_by_one_over_the_width():
    flow = torch.zeros(1, 2, 3, 5)
    flow[:, 0], flow[:, 1] = 1, -2
    grid = sampling_grid(flow)
    torch.testing.assert_close(grid[0, 0, 0], torch.tensor([-1 + 1 / 5, -1 - 2 / 3]))
    torch.testing.assert_close(grid[0, -1, -1], torch.tensor([1 + 1 / 5, 1 - 2 / 3]))


def test_two_streams_adds_the_product_back_to_each():
    streams = TwoStreams(3, 4, 4).eval()
    low, deep = torch.randn(2, 3, 6, 6), torch.randn(2, 4, 6, 6)
    stages: dict[str, torch.Tensor] = {}
    found = streams(low, deep, stages)
    h, v = streams.low1(low), streams.deep1(deep)
    product = streams.low2(h) * streams.deep2(v)
    torch.testing.assert_close(stages["fused"], product)
    torch.testing.assert_close(found[0], streams.deep4(streams.deep3(product) + v))
    torch.testing.assert_close(found[1], streams.low4(streams.low3(product) + h))


@pytest.mark.parametrize("part", [SF2, SkipGCI])
def test_fusion_gives_two_maps_at_the_low_resolution(part):
    module = part(3, 8, 4)
    deep, shallow = module(torch.randn(2, 3, 13, 9), torch.randn(2, 8, 7, 5))
    assert deep.shape == shallow.shape == (2, 8, 13, 9)
    assert bool((deep >= 0).all()) and bool((shallow >= 0).all())


def test_gci_modulates_the_low_features_by_the_spatial_maximum():
    module = SkipGCI(3, 4, 2).eval()
    low, context = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 4, 4)
    deep, shallow = module(low, context)
    cue = F.relu(module.cue(deep)).flatten(2).max(2).values[..., None, None]
    modulated = F.relu(module.shallow(low) * (1 + cue[:, :4]) + cue[:, 4:])
    torch.testing.assert_close(shallow, F.relu(module.out(modulated)))


def test_gate_mixes_by_rate_in_evaluation_and_keeps_the_deep_mean_in_training():
    gate = StochasticGate(0.3)
    deep, shallow = torch.full((1, 1, 400, 400), 2.0), torch.full((1, 1, 400, 400), -1.0)
    assert gate.eval()(deep, shallow).unique().item() == pytest.approx(0.7 * 2 - 0.3)
    mixed = gate.train()(deep, shallow)
    assert mixed.unique().tolist() == pytest.approx([-1.0, (2 + 0.3) / 0.7])
    assert mixed.mean().item() == pytest.approx(2.0, abs=0.03)  # E[x] = deep
    assert (mixed == -1).float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_decoder_has_the_published_layers_and_the_background_is_one():
    decoder = Decoder(8, 5)
    weights = [m for m in decoder if isinstance(m, torch.nn.Conv2d)]
    assert [m.bias is None for m in weights] == [True, True, False]
    logits = with_background(decoder(torch.randn(2, 8, 6, 7)))
    assert logits.shape == (2, 6, 6, 7)
    assert bool((logits[:, 0] == 1).all())


@pytest.mark.parametrize(("groups", "kernel", "dilation"), [(1, 3, 1), (12, 5, 4), (12, 3, 2)])
def test_folded_equals_convolution_then_norm_with_gradients(groups, kernel, dilation):
    conv = torch.nn.Conv2d(
        12,
        12,
        kernel,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
    ).double()
    norm = FixedStatsBatchNorm2d(12).double()
    for value in (norm.weight, norm.bias, norm.running_mean):
        torch.nn.init.normal_(value)
    torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(2, 12, 11, 9, dtype=torch.float64)
    norm.train()  # statistics stay fixed
    plain, fast = norm(conv(x)), folded(conv, norm, x)
    torch.testing.assert_close(fast, plain)
    expected = torch.autograd.grad(plain.square().sum(), [conv.weight, norm.weight])
    found = torch.autograd.grad(fast.square().sum(), [conv.weight, norm.weight])
    torch.testing.assert_close(found, expected)


def test_conv_bn_keeps_the_size_at_any_dilation():
    assert conv_bn(3, 4, 3, dilation=12)(torch.randn(2, 3, 9, 9)).shape == (2, 4, 9, 9)
