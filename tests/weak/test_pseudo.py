"""Refinement of the present classes, and the rules that turn masks into label maps."""

import pytest
import torch

from wsfcn.weak import PAMR, pseudo_labels, refine

LABELS = torch.tensor([[0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 0, 1, 0]])


def example(classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(3, 3, 11, 9, generator=generator, dtype=torch.float64)
    logits = 2 * torch.randn(3, classes + 1, 7, 6, generator=generator, dtype=torch.float64)
    return image, logits.softmax(1)


def test_refine_equals_refining_all_channels_where_the_class_is_present():
    image, probabilities = example()
    pamr = PAMR(5)
    whole = pamr(image, probabilities)
    refined = refine(pamr, image, probabilities, LABELS.float())
    present = torch.cat([torch.ones(3, 1), LABELS], 1).bool()
    torch.testing.assert_close(refined[present], whole[present], rtol=0, atol=1e-12)
    assert (refined[~present] == 0).all()
    assert refined.shape == probabilities.shape


def test_refine_passes_only_the_largest_count_of_classes_through_pamr():
    image, probabilities = example()
    seen = []

    class Watched(PAMR):
        def forward(self, image, masks):
            seen.append(masks.shape[1])
            return super().forward(image, masks)

    refine(Watched(1), image, probabilities, LABELS)
    refine(Watched(1), image[1:2], probabilities[1:2], LABELS[1:2])
    assert seen == [4, 1]  # background and three classes; background alone


def test_absent_classes_stay_zero_even_if_they_are_not_numbers():
    image, probabilities = example()
    probabilities[0, 1] = torch.nan  # class 1 is not in image 0
    refined = refine(PAMR(2), image, probabilities, LABELS)
    assert torch.isfinite(refined).all()


def test_refine_keeps_dtype_and_has_no_gradient():
    image, probabilities = example()
    refined = refine(PAMR(2), image.float(), probabilities.bfloat16().requires_grad_(), LABELS)
    assert refined.dtype == torch.bfloat16
    assert not refined.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rules_by_hand(dtype):
    masks = torch.tensor(
        [
            # background claims above 0.7 * 1.0, strictly: pixels 0 and 4, not 3
            [1.0, 0.1, 0.6, 0.7, 0.8, 0.0, 0.0],
            # class 1 claims above 0.6 * 0.5 = 0.3, strictly: pixels 1, 4 and 5, not 2
            [0.0, 0.5, 0.3, 0.0, 0.4, 0.4, 0.0],
            # class 2 is not in the image
            [0.0, 0.9, 0.0, 0.9, 0.0, 0.0, 1.0],
            # class 3 claims above the floor 0.2, as 0.6 * 0.25 is less: pixel 5
            [0.0, 0.2, 0.15, 0.0, 0.0, 0.25, 0.0],
        ],
        dtype=dtype,
    )[None, :, None]
    result = pseudo_labels(masks, torch.tensor([[1.0, 0.0, 1.0]]), (1, 7))
    assert result.dtype == torch.uint8
    # 4 and 5 are claimed twice, 2, 3 and 6 by nobody
    assert result.tolist() == [[[0, 1, 255, 255, 255, 255, 255]]]


def test_factors_and_floor_are_used():
    masks = torch.tensor([[1.0, 0.8, 0.1], [0.1, 0.3, 0.5]])[None, :, None]
    labels = torch.ones(1, 1)
    assert pseudo_labels(masks, labels, (1, 3)).tolist() == [[[0, 0, 1]]]
    assert pseudo_labels(masks, labels, (1, 3), background_factor=0.9).tolist() == [[[0, 255, 1]]]
    # the class claims pixel 1 as well, which makes it ambiguous
    assert pseudo_labels(masks, labels, (1, 3), foreground_factor=0.5).tolist() == [[[0, 255, 1]]]
    assert pseudo_labels(masks, labels, (1, 3), floor=0.6).tolist() == [[[0, 0, 255]]]


def test_the_maximum_is_taken_in_each_image_after_the_resize():
    # Corners aligned, 2 -> 3 puts the mean in the middle: 0.95, 0.5, 0.05 and 0.05, 0.5, 0.95;
    # thresholds 0.665 and 0.57. The second image is half as bright: 0.333 and 0.285.
    masks = torch.tensor([[0.95, 0.05], [0.05, 0.95]])[None, :, None]
    masks = torch.cat([masks, masks / 2])
    result = pseudo_labels(masks, torch.ones(2, 1), (1, 3))
    assert result.tolist() == [[[0, 255, 1]], [[0, 255, 1]]]


def test_images_of_a_batch_do_not_meet():
    _, masks = example()
    together = pseudo_labels(masks, LABELS, (13, 10))
    for b in range(3):
        alone = pseudo_labels(masks[b : b + 1], LABELS[b : b + 1], (13, 10))
        assert torch.equal(together[b : b + 1], alone)


def test_masks_that_are_not_numbers_teach_nothing():
    masks = torch.full((1, 3, 4, 4), torch.nan)
    assert (pseudo_labels(masks, torch.ones(1, 2), (4, 4)) == 255).all()


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"labels \(B, K\), got \(1, 3, 4, 4\) and \(1, 3\)"):
        pseudo_labels(torch.rand(1, 3, 4, 4), torch.ones(1, 3), (4, 4))
    with pytest.raises(ValueError, match="at most 254 classes, got 255"):
        pseudo_labels(torch.rand(1, 256, 2, 2), torch.ones(1, 255), (2, 2))
