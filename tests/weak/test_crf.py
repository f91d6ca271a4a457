"""The fully connected CRF, with the real pydensecrf where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from wsfcn.predict import predict
from wsfcn.protocols import Protocol
from wsfcn.weak.crf import dense_crf

pytest.importorskip("pydensecrf", reason="the dense CRF (extra 'crf') is not installed")


def square(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A noisy image of a red square on grey, its true mask, and blurred masks that are unsure."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((48, 64), bool)
    truth[12:36, 20:44] = True
    image = np.where(truth[..., None], (200, 40, 40), (110, 110, 110))
    image = (image + rng.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8)
    ys, xs = np.mgrid[:48, :64]
    blob = np.exp(-((ys - 24) ** 2 + (xs - 32) ** 2) / 260).astype(np.float32) * 0.9
    masks = np.stack([1 - blob, blob, np.full_like(blob, 1e-3)])
    return image, truth, masks


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.parametrize("kind", ["wsfcn", "baseline"])
def test_masks_snap_to_the_edges_of_the_image(kind):
    image, truth, masks = square()
    refined = dense_crf(image, masks, kind)
    assert refined.shape == masks.shape and refined.dtype == np.float32
    np.testing.assert_allclose(refined.sum(0), 1, rtol=1e-4)
    before, after = (iou(m.argmax(0) == 1, truth) for m in (masks, refined))
    assert before < 0.85 and after > 0.97


def test_kinds_are_the_settings_of_the_two_released_codes():
    from pydensecrf.densecrf import DenseCRF2D

    image, _, masks = square()
    for kind, sxy, unary in (
        ("baseline", 80, masks),
        ("wsfcn", 30, np.concatenate([(1 - masks[1:].max(0, keepdims=True)) ** 5, masks[1:]])),
    ):
        field = DenseCRF2D(64, 48, 3)
        energy = -np.log(np.clip(unary, 1e-5, 1)).reshape(3, -1)
        field.setUnaryEnergy(np.ascontiguousarray(energy, np.float32))
        field.addPairwiseGaussian(sxy=3, compat=3)
        field.addPairwiseBilateral(sxy=sxy, srgb=13, rgbim=image, compat=10)
        expected = np.array(field.inference(10)).reshape(3, 48, 64)
        np.testing.assert_allclose(dense_crf(image, masks, kind), expected, atol=1e-5)


def test_wrong_input_is_named():
    image, _, masks = square()
    with pytest.raises(ValueError, match="kind: needs one of wsfcn, baseline, got 'x'"):
        dense_crf(image, masks, "x")
    with pytest.raises(ValueError, match="image is"):
        dense_crf(image[:-1], masks)


def test_a_protocol_with_crf_changes_the_label_map_and_says_so(toy_network):
    noise = np.random.default_rng(0).integers(-90, 90, (48, 64, 3))
    image = (square()[0] + noise).clip(0, 255).astype(np.uint8)
    plain = Protocol(name="plain", flip=False)
    with_crf = plain.change({"name": "crf", "crf": "baseline"})
    first, second = (predict(toy_network(), [image], p)[0] for p in (plain, with_crf))
    expected = dense_crf(image, first.masks, "baseline").argmax(0)
    assert np.array_equal(second.labels, expected)
    assert not np.array_equal(first.labels, second.labels)
    assert "CRF of baseline" in second.protocol.describe()
