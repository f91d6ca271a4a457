"""The mask loss and its gate against numbers worked out by hand."""

import math

import pytest
import torch

from wsfcn.weak import gate_open, mask_loss
from wsfcn.weak.losses import true_mask_loss


def label_map(*rows: list[int]) -> torch.Tensor:
    return torch.tensor([rows], dtype=torch.uint8)


def test_weights_favour_the_smaller_class_and_ignored_pixels_dilute():
    # n = 3: background 2, class one 1; weights (3 - 2) / 4 and (3 - 1) / 4. Equal logits cost
    # log 2 a pixel: (1/4 + 1/4 + 2/4 + 0) log 2 over 4 pixels.
    loss = mask_loss(torch.zeros(1, 2, 2, 2), label_map([0, 0], [1, 255]), torch.ones(1, 1))
    assert loss.tolist() == pytest.approx([math.log(2) / 4])


def test_logits_are_resized_corner_to_corner():
    # The middle of 3 x 3 is the mean of the four corners, 1. Two known pixels, weights 1/3.
    logits = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    logits[0, 1, 1, 1] = 4
    pseudo = label_map([0, 255, 255], [255, 1, 255], [255, 255, 255])
    expected = (math.log(2) + math.log(1 + math.exp(-1))) / 3 / 9
    assert mask_loss(logits, pseudo, torch.ones(1, 1)).tolist() == pytest.approx([expected])


def test_absent_classes_compete_too():
    # Three channels, one of them not in the image: log 3 a pixel, not log 2.
    loss = mask_loss(torch.zeros(1, 3, 1, 2), label_map([0, 1]), torch.tensor([[1, 0]]))
    assert loss.tolist() == pytest.approx([math.log(3) / 3])


@pytest.mark.parametrize(
    ("row", "labels", "is_open"),
    [
        ([0, 1, 2, 255], [1, 1], True),
        ([0, 1, 1, 255], [1, 1], False),  # class two is missing
        ([1, 2, 2, 255], [1, 1], False),  # the background is missing
        ([0, 2, 255, 255], [0, 1], True),
        ([0, 0, 0, 0], [0, 0], True),
        ([255, 255, 255, 255], [0, 1], False),
        ([255, 255, 255, 255], [0, 0], False),
    ],
)
def test_gate(row, labels, is_open):
    pseudo, labels = label_map(row), torch.tensor([labels], dtype=torch.float32)
    assert gate_open(pseudo, labels).tolist() == [is_open]
    logits = torch.tensor([0.5, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 4)
    loss = mask_loss(logits, pseudo, labels)
    several = len(set(row) - {255}) > 1  # a single class has weight (n - n) / (1 + n) = 0
    assert (loss.item() > 0) == (is_open and several)


def test_each_image_has_its_own_weights_and_gate():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 4, 5, 4, generator=generator, dtype=torch.float64)
    pseudo = torch.randint(0, 4, (3, 9, 7), generator=generator, dtype=torch.uint8)
    pseudo[1][pseudo[1] == 2] = 255
    labels = torch.ones(3, 3)
    together = mask_loss(logits, pseudo, labels)
    assert (together > 0).tolist() == gate_open(pseudo, labels).tolist() == [True, False, True]
    for b in range(3):
        alone = mask_loss(logits[b : b + 1], pseudo[b : b + 1], labels[b : b + 1])
        torch.testing.assert_close(together[b : b + 1], alone)


def test_gradients_reach_the_logits_of_open_images_only():
    torch.manual_seed(3)
    logits = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    pseudo = torch.cat([label_map([0, 1, 2], [255, 0, 1]), label_map([0, 1, 1], [255, 0, 1])])
    labels = torch.ones(2, 2)
    mask_loss(logits, pseudo, labels).sum().backward()
    assert (logits.grad[0] != 0).all()
    assert (logits.grad[1] == 0).all()
    assert torch.autograd.gradcheck(lambda z: mask_loss(z, pseudo, labels), logits)


def test_half_precision_logits_give_a_float32_loss():
    logits = torch.randn(1, 3, 4, 4).bfloat16()
    pseudo, labels = label_map([0, 1, 2]), torch.ones(1, 2)
    loss = mask_loss(logits, pseudo, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, mask_loss(logits.float(), pseudo, labels))


def test_true_masks_are_taken_at_their_nearest_pixels():
    # Corners and middle of 5 x 5 at 3 x 3; the unknown corner does not count: 8 equal pixels.
    masks = torch.full((1, 5, 5), 9, dtype=torch.uint8)
    masks[:, ::2, ::2] = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 1, 255]])
    logits = torch.zeros(1, 2, 2, 2)
    assert true_mask_loss(logits, masks, (3, 3)).item() == pytest.approx(math.log(2))
    sure = torch.tensor([-50.0, 50.0])[None, :, None, None].expand(1, 2, 3, 3)
    assert true_mask_loss(sure, masks, (3, 3)).item() == pytest.approx(100 * 4 / 8)
    unknown = torch.full((1, 5, 5), 255, dtype=torch.uint8)
    assert true_mask_loss(logits, unknown, (3, 3)).item() == 0


def test_wrong_input_is_named():
    pseudo, labels = label_map([0, 1]), torch.ones(1, 1)
    with pytest.raises(ValueError, match=r"\(B, K\+1\) = \(1, 2\), got \(1, 3, 1, 2\)"):
        mask_loss(torch.zeros(1, 3, 1, 2), pseudo, labels)
    with pytest.raises(ValueError, match=r"got \(1, 1, 1, 2\) and \(1, 1\)"):
        mask_loss(torch.zeros(1, 2, 1, 2), pseudo[None], labels)
    with pytest.raises(ValueError, match=r"must be 0\.\.1 or 255"):
        gate_open(label_map([0, 7]), labels)
