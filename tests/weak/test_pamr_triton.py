"""PAMR's kernels for GPUs, run by Triton's interpreter: the same result as in torch."""

import importlib.util

import pytest
import torch

from wsfcn.weak import PAMR
from wsfcn.weak.pamr import SOFTNESS, TINY

if importlib.util.find_spec("triton") is None:
    pytest.skip(
        "triton is not installed: it comes with CUDA builds of torch", allow_module_level=True
    )


@pytest.fixture(scope="module")
def kernels():
    """The module of the kernels as a copy of its own, for the interpreter."""
    found = importlib.util.find_spec("wsfcn.weak.pamr_triton")
    spec = importlib.util.spec_from_file_location("interpreted_pamr", found.origin)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        spec.loader.exec_module(module)
        yield module


def example(batch, channels, height, width):
    generator = torch.Generator().manual_seed(height)
    image = torch.rand(batch, 3, height, width, generator=generator)
    image[:, :, : height // 3] = 0.3  # flat: no variance
    return image, torch.rand(batch, channels, height, width, generator=generator)


@pytest.mark.parametrize(
    ("shape", "dilations"),
    [
        ((2, 3, 9, 7), (1, 2, 4, 8, 12, 24)),  # less than one program's pixels
        ((1, 21, 13, 17), (1, 2, 24)),  # channels that are no power of two
        ((2, 33, 5, 30), (1, 3)),  # more channels than go together
        ((1, 1, 1, 6), (2,)),
    ],
)
def test_the_kernels_do_what_torch_does(kernels, shape, dilations):
    image, masks = example(*shape)
    pamr = PAMR(dilations=dilations)
    offsets = torch.tensor(pamr.offsets, dtype=torch.int32)
    weights = kernels.affinities(image, offsets, 9 * len(dilations), TINY, SOFTNESS)
    expected = pamr.affinities(image)
    torch.testing.assert_close(weights, expected, rtol=0, atol=3e-6)
    refined = kernels.step(weights, masks, offsets)
    torch.testing.assert_close(refined, pamr._step(expected, masks), rtol=0, atol=1e-6)
    channels_last = masks.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(kernels.step(expected, channels_last, offsets), refined)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_pamr_takes_the_kernels():
    image, masks = example(2, 5, 40, 33)
    found = PAMR()(image.cuda(), masks.cuda())
    torch.testing.assert_close(found.cpu(), PAMR()(image, masks), rtol=0, atol=1e-5)
