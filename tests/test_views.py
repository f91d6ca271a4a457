"""The published canvas, step by step in another way; tiles against the whole; named sizes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from wsfcn import views
from wsfcn.predict import predict
from wsfcn.protocols import Protocol, padded, paper
from wsfcn.settings import SettingsError
from wsfcn.views import merge_scales
from wsfcn.weak import PAMR

MEAN, STD = 127 / 255, 128 / 255  # of the backbone of the tiny network


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def published(network, image: np.ndarray, scales, canvas: int, flips=(False, True)):
    """Spec of the released inference in NumPy and Pillow: average of maps, best probability."""
    height, width = image.shape[:2]
    inputs, places = [], []
    for scale in scales:
        w, h = round(scale * width), round(scale * height)
        small = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BICUBIC))
        for flip in flips:
            board = np.zeros((canvas, canvas, 3), np.float32)
            left, top = (canvas - w) // 2, (canvas - h) // 2
            normal = (small.astype(np.float32) / 255 - MEAN) / STD
            board[top : top + h, left : left + w] = normal[:, ::-1] if flip else normal
            inputs.append(board.transpose(2, 0, 1))
            places.append((top, left, h, w, flip))
    with torch.no_grad():
        output = network(torch.from_numpy(np.stack(inputs)))
    large = F.interpolate(output.logits.softmax(1), (canvas, canvas), mode="bilinear",
                          align_corners=True)  # fmt: skip
    maps = []
    for one, (top, left, h, w, flip) in zip(large, places, strict=True):
        cut = one[None, :, top : top + h, left : left + w]
        back = F.interpolate(cut, (height, width), mode="bilinear", align_corners=False)[0]
        maps.append(back.numpy()[:, :, ::-1] if flip else back.numpy())
    return np.mean(maps, 0), 1 / (1 + np.exp(-output.scores.numpy().max(0)))


@pytest.fixture
def network(tiny_network):
    """Untrained, with logits that vary over the image as after training."""
    with torch.no_grad():
        image = torch.from_numpy(photo(96, 96).copy()).permute(2, 0, 1)[None] / 255
        logits = tiny_network(tiny_network.normalise(image)).logits[:, 1:]
        tiny_network.decoder[-1].weight.mul_(2 / logits.std((0, 2, 3)).mean())
    return tiny_network


@pytest.mark.parametrize(("height", "width"), [(37, 50), (64, 41)])
def test_the_canvas_is_the_published_one(network, height, width):
    image = photo(height, width)
    protocol = padded(paper()).change({"canvas": 128, "background": "softmax", "class_filter": 0})
    expected, best = published(network, image, protocol.scales, 128)
    [found] = predict(network, [image], protocol)
    np.testing.assert_allclose(found.masks, expected, atol=1e-5)
    np.testing.assert_allclose(found.scores, best, atol=1e-5)
    # What pads on the wrong side by a pixel, or mirrors the padded canvas, is not the same.
    [other] = predict(network, [image], protocol.change({"padding": "none"}))
    assert np.abs(other.masks - expected).max() > 1e-2
    assert "padded to 128 px" in found.protocol.describe()


def test_canvas_without_flips(network):
    protocol = Protocol(scales=(1.0, 0.5), flip=False, padding="canvas", canvas=96, class_filter=0)
    image = photo(33, 47)
    expected, best = published(network, image, (1.0, 0.5), 96, flips=(False,))
    [found] = predict(network, [image], protocol)
    np.testing.assert_allclose(found.masks, expected, atol=1e-5)
    np.testing.assert_allclose(found.scores, best, atol=1e-5)


def test_an_image_that_leaves_the_canvas_is_named(toy_network):
    with pytest.raises(SettingsError, match=r"160 x 120 px \(scaled\) is larger than 128 px"):
        predict(toy_network(), [photo(60, 80)], padded(paper()).change({"canvas": 128}))


def test_few_classes_at_a_time_make_no_difference(network, monkeypatch):
    image = torch.rand(2, 3, 40, 56)
    protocol = Protocol(scales=(1.0, 1.5))
    with torch.no_grad():
        whole = merge_scales(network, image, protocol)
        monkeypatch.setattr(views, "CHUNK_VALUES", 1)
        parts = merge_scales(network, image, protocol)
    torch.testing.assert_close(parts.masks, whole.masks, rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [1345, 1346, 1400, 2305, 2306, 4096, 10000])
def test_tiles_cover_a_side(length):
    tiles = views._starts(length)
    assert tiles[0][0] == 0 and tiles[-1][1] == length
    assert all(start % 32 == 0 and end - start <= views.TILE + 31 for start, end in tiles)
    for (_, end), (start, _) in pairwise(tiles):
        assert end - start >= views.OVERLAP
    assert (len(tiles) == 1) == (length <= views.TILE)


class Blurring(nn.Module):
    """Half-resolution maps that depend on 17 x 17 pixels, and nothing that the image has in all."""

    classes = ("red", "green", "blue")

    def normalise(self, images):
        return images - 0.5

    def forward(self, images):
        class Output:
            pass

        output = Output()
        smooth = F.avg_pool2d(images, 17, 2, 8, count_include_pad=False)
        output.probabilities = F.pad(6 * smooth, (0, 0, 0, 0, 1, 0), value=1.0).softmax(1)
        output.masks = None
        output.scores = images.mean((2, 3))
        return output


@pytest.mark.parametrize("size", [(64, 500), (500, 64), (301, 417)])
def test_tiles_of_a_network_that_sees_near_pixels_alone_equal_the_whole(monkeypatch, size):
    images, protocol = torch.rand(2, 3, *size), Protocol(class_filter=0)
    with torch.no_grad():
        whole = merge_scales(Blurring(), images, protocol)
        monkeypatch.setattr(views, "TILE", 129)
        monkeypatch.setattr(views, "OVERLAP", 64)
        tiled = merge_scales(Blurring(), images, protocol)
    torch.testing.assert_close(tiled.masks, whole.masks, rtol=0, atol=1e-6)
    assert (tiled.scores > whole.scores).all()  # the best tile


def test_tiles_of_a_real_network_show_no_seam(network):
    """Where nothing is pooled over the image: 0.005 on average; the outline of tiles is not the
    place of the largest difference by more than the rest."""
    for layer in (network.context.attention.excite, network.context.pool.project[0]):
        nn.init.zeros_(layer.weight)
    image = torch.from_numpy(photo(161, 1921).copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        view = network.normalise(image)
        tiled, _ = views._seen(network, view)
        whole = network(view).probabilities
    assert len(views._starts(1921)) == 2 and tiled.shape == whole.shape
    difference = (tiled - whole).abs().amax(1)
    assert 0 < difference.mean() < 0.005
    assert (tiled.argmax(1) != whole.argmax(1)).float().mean() < 0.02
    steps = (tiled[..., 1:] - tiled[..., :-1]).abs().mean((0, 1, 2))
    usual = (whole[..., 1:] - whole[..., :-1]).abs().mean((0, 1, 2))
    assert (steps - usual).abs().max() < 0.25 * usual.max()


def test_photos_of_one_size_share_passes_wherever_they_stand(toy_network):
    batches = []

    class Counting(toy_network):
        def forward(self, images):
            batches.append(len(images))
            return super().forward(images)

    photos = [photo(40, 50, i) if i % 2 else photo(50, 40, i) for i in range(6)]
    found = predict(Counting(), photos, Protocol(flip=False))
    assert batches == [3, 3]
    for one, image in zip(found, photos, strict=True):
        assert one.image is image
        [alone] = predict(toy_network(), [image], Protocol(flip=False))
        np.testing.assert_array_equal(one.labels, alone.labels)


def test_pamr_refines_the_merged_masks_of_the_classes_that_are_kept(network):
    images = torch.from_numpy(photo(48, 64).copy()).permute(2, 0, 1)[None] / 255
    labels = F.one_hot(torch.tensor([0]), len(network.classes)).float()
    protocol = Protocol(image_labels=True, background="constant", background_value=0.3)
    with torch.no_grad():
        plain = merge_scales(network, images, Protocol(image_labels=True), labels).masks
        found = merge_scales(network, images, protocol.change({"pamr": 4}), labels).masks
        expected = PAMR(4)(images, plain[:, 1:2])
    assert torch.allclose(found[:, 1:2], expected, atol=1e-5)
    assert (found[:, 0] == 0.3).all() and not found[:, 2:].any()
    assert not torch.allclose(expected, plain[:, 1:2], atol=1e-3)
