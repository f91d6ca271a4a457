"""Layers shared by backbones and heads."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

Stages = dict[str, Tensor] | None


class FixedStatsBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that always uses its running statistics, also in train mode.

    WS-FCN keeps the ImageNet statistics of its backbone, and the initial ones (mean 0,
    variance 1) of its context module, for the whole training. Affine weights may still train.
    """

    def train(self, mode: bool = True) -> FixedStatsBatchNorm2d:
        super().train(False)
        return self


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batch of all processes, on CPUs too (torch's own needs GPUs)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            full = x.float()
            count = full.numel() / full.shape[1] * dist.get_world_size()
            mean = all_reduce(full.sum((0, 2, 3))) / count
            centred = full - mean[:, None, None]
            var = all_reduce(centred.square().sum((0, 2, 3))) / count
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * count / (count - 1), self.momentum)
            scale = torch.rsqrt(var + self.eps)
            if self.affine:
                scale = scale * self.weight
            y = centred * scale[:, None, None]
            y = y + self.bias[:, None, None] if self.affine else y
        return y.to(x.dtype)


def sync_batch_norms(network: nn.Module) -> None:
    """Let every batch norm with statistics of the batch see that of all processes, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d


def free_batch_norms(module: nn.Module) -> nn.Module:
    """The module, its batch norms now with statistics of the batch, in place."""
    for norm in module.modules():
        if isinstance(norm, FixedStatsBatchNorm2d):
            norm.__class__ = nn.BatchNorm2d
    return module


def freeze(modules: Iterable[nn.Module]) -> None:
    """Stop gradients for every parameter of the modules."""
    for module in modules:
        module.requires_grad_(False)


def freeze_batch_norms(backbone: nn.Module) -> None:
    """Freeze the affine weights of every batch norm (their statistics are fixed by class)."""
    freeze(m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))


def conv_bn(
    inputs: int, outputs: int, kernel: int = 1, *, dilation: int = 1, fixed_stats: bool = False
) -> nn.Sequential:
    """Bias-free, size-keeping convolution followed by batch norm (no activation)."""
    norm = FixedStatsBatchNorm2d if fixed_stats else nn.BatchNorm2d
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
        norm(outputs),
    )


class PoolBranch(nn.Module):
    """Image-level context: ReLU(BN(W avg X)) as one (B, width, 1, 1) vector to broadcast."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.project = conv_bn(inputs, width, fixed_stats=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.project(x.mean((2, 3), keepdim=True)))


def folded(conv: nn.Conv2d, norm: FixedStatsBatchNorm2d, x: Tensor) -> Tensor:
    """norm(conv(x)) as one convolution, which saves a pass over memory; gradients stay exact.

    Possible because the norm's statistics never change. conv must have no bias.
    """
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    weight = conv.weight * scale[:, None, None, None]
    if conv.groups > 1 and conv.dilation[0] > 1 and x.device.type == "cpu":
        return _by_phases(x, weight, shift, conv.dilation[0])
    return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


def _by_phases(x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """A size-keeping dilated depthwise convolution as undilated ones on dilation^2 subgrids.

    Pixels of one phase (row and column modulo the dilation) see each other alone, so each phase
    is an image of its own. On CPUs the undilated kernels are several times faster, above all
    backwards.
    """
    height, width = x.shape[2:]
    d, channels = dilation, x.shape[1]
    x = F.pad(x, (0, -width % d, 0, -height % d))
    h, w = x.shape[2] // d, x.shape[3] // d
    x = x.permute(0, 2, 3, 1).reshape(-1, h, d, w, d, channels)
    x = x.permute(0, 2, 4, 1, 3, 5).reshape(-1, h, w, channels).permute(0, 3, 1, 2)
    x = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=channels)
    x = x.permute(0, 2, 3, 1).reshape(-1, d, d, h, w, channels)
    x = x.permute(0, 3, 1, 4, 2, 5).reshape(-1, h * d, w * d, channels).permute(0, 3, 1, 2)
    return x[:, :, :height, :width]


def note(stages: Stages, name: str, value: Tensor) -> Tensor:
    """Keep an intermediate tensor under a name where stages are asked for; returns the tensor."""
    if stages is not None:
        stages[name] = value
    return value


def resize(x: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> Tensor:
    """Bilinear resize of (B, C, h, w) to (B, C, *size)."""
    if x.shape[-2:] == tuple(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def init_kaiming(module: nn.Module) -> None:
    """Kaiming-normal convolutions (fan-in, gain sqrt 2) with zero bias; batch norms 1 and 0."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            if not m.weight.is_meta:  # there it would do nothing, but import torch's compiler
                nn.init.kaiming_normal_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.BatchNorm2d) and m.affine:
            nn.init.ones_(m.weight)
            nn.init.zeros_(m.bias)
