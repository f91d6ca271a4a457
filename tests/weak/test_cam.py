"""Class activation maps and their thresholding."""

import pytest
import torch

from wsfcn.weak import cam_to_labels, class_activation_maps


def test_maps_by_hand():
    features = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 4.0]])[None, :, None]  # 2 channels, 1 x 3
    weights = torch.tensor([[1.0, 1.0], [2.0, -1.0], [-1.0, -1.0]])
    cams = class_activation_maps(features, weights)
    # rows of weights @ features: 1 3 4 | 2 3 -4 | negative everywhere
    expected = torch.tensor([[1 / 4, 3 / 4, 1.0], [2 / 3, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(cams, expected[None, :, None])


def test_each_map_has_its_own_scale():
    torch.manual_seed(4)
    features, weights = torch.randn(2, 5, 4, 3), torch.randn(3, 5)
    cams = class_activation_maps(features, weights)
    assert cams.min() == 0
    torch.testing.assert_close(cams.amax((2, 3)), torch.ones(2, 3))
    scaled = class_activation_maps(features * 1e-6, weights * torch.tensor([[1.0], [5.0], [0.1]]))
    torch.testing.assert_close(cams, scaled)


def test_a_map_without_evidence_is_zero_with_a_finite_gradient():
    features = torch.zeros(1, 2, 3, 3, requires_grad=True)
    cams = class_activation_maps(features, torch.ones(4, 2))
    assert (cams == 0).all()
    cams.sum().backward()
    assert torch.isfinite(features.grad).all()


def test_the_strongest_class_above_the_threshold_wins():
    cams = torch.tensor([[0.9, 0.3, 0.2, 0.5], [0.1, 0.6, 0.2, 0.5001]])[None, :, None]
    assert cam_to_labels(cams, 0.25, (1, 4)).tolist() == [[[1, 2, 0, 2]]]
    assert cam_to_labels(cams, 0.0, (1, 4))[0, 0, :2].tolist() == [1, 2]
    assert cam_to_labels(cams, 1.0, (1, 4)).tolist() == [[[0, 0, 0, 0]]]
    assert cam_to_labels(cams, 0.25, (1, 4)).dtype == torch.uint8


def test_the_threshold_itself_is_background():
    assert cam_to_labels(torch.full((1, 1, 1, 1), 0.5), 0.5, (1, 1)).item() == 0
    assert cam_to_labels(torch.zeros(1, 1, 1, 1), 0.0, (1, 1)).item() == 0


def test_classes_that_are_not_in_the_image_are_left_out():
    cams = torch.tensor([[0.9, 0.3], [0.4, 0.6]])[None, :, None].repeat(2, 1, 1, 1)
    labels = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert cam_to_labels(cams, 0.35, (1, 2), labels).tolist() == [[[2, 2]], [[1, 0]]]


def test_maps_are_resized_with_corners_not_aligned():
    # 2 -> 4 with half-pixel centres: 0, 1/4, 3/4, 1 (aligned corners: 0, 1/3, 2/3, 1)
    cams = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert cam_to_labels(cams, 0.3, (1, 4)).tolist() == [[[0, 0, 1, 1]]]
    assert cam_to_labels(cams, 0.2, (1, 4)).tolist() == [[[0, 1, 1, 1]]]


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"got \(1, 2, 3, 3\) and \(4, 3\)"):
        class_activation_maps(torch.zeros(1, 2, 3, 3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"must be \(B, K, h, w\)"):
        cam_to_labels(torch.zeros(2, 3, 3), 0.2, (3, 3))
    with pytest.raises(ValueError, match=r"threshold must be in 0\.\.1, got 20"):
        cam_to_labels(torch.zeros(1, 2, 3, 3), 20, (3, 3))
    with pytest.raises(ValueError, match=r"labels must be \(1, 2\), got \(1, 3\)"):
        cam_to_labels(torch.zeros(1, 2, 3, 3), 0.2, (3, 3), torch.ones(1, 3))
