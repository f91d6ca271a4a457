"""Image-level scores and their loss against numbers worked out by hand."""

import math

import pytest
import torch

from wsfcn.weak import classification_loss, ngwp_scores


def maps(*rows: list[float]) -> torch.Tensor:
    """One image of one row of pixels; a list of values per channel."""
    return torch.tensor(rows, dtype=torch.float64)[None, :, None]


def test_score_is_the_mean_logit_inside_the_mask_plus_the_size_penalty():
    logits = maps([1.0, 1.0], [2.0, -1.0])
    masks = maps([0.25, 0.75], [0.75, 0.25])
    # (0.75 * 2 - 0.25) / (1 + 1) = 0.625; size 1/2: (1/2)^3 log(0.01 + 1/2)
    expected = 0.625 + 0.125 * math.log(0.51)
    assert ngwp_scores(logits, masks).tolist() == [[pytest.approx(expected, abs=1e-12)]]


def test_power_and_floor_are_used():
    logits, masks = maps([1.0, 1.0], [0.0, 0.0]), maps([0.5, 0.5], [0.5, 0.5])
    score = ngwp_scores(logits, masks, power=1, floor=0.5)
    assert score.item() == pytest.approx(0)  # (1/2) log(1/2 + 1/2)
    score = ngwp_scores(logits, masks, power=2, floor=0.25)
    assert score.item() == pytest.approx(0.25 * math.log(0.75))


def test_empty_mask_costs_the_log_of_the_floor_and_full_mask_nothing():
    logits = maps([9.0, 9.0, 9.0], [4.0, 4.0, 4.0], [3.0, 3.0, 3.0])
    masks = maps([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    empty, full = ngwp_scores(logits, masks)[0].tolist()
    assert empty == pytest.approx(math.log(0.01))
    assert full == pytest.approx(3 * 3 / (1 + 3))


def test_a_mask_mean_rounded_above_one_has_a_score():
    masks = torch.full((1, 2, 4, 4), 1 + 1e-6)
    scores = ngwp_scores(torch.ones(1, 2, 4, 4), masks, power=2.5)
    assert torch.isfinite(scores).all()


def test_scores_of_half_precision_maps_are_summed_in_float32():
    logits = torch.randn(2, 4, 81, 81).bfloat16()
    masks = logits.softmax(1)
    scores = ngwp_scores(logits, masks)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, ngwp_scores(logits.double(), masks.double()).float())


def test_gradients_of_the_classification_loss_match_finite_differences():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, 0, 1], [0, 1, 0]])

    def loss(z: torch.Tensor) -> torch.Tensor:
        return classification_loss(ngwp_scores(z, z.softmax(1)), labels)

    assert torch.autograd.gradcheck(loss, logits)


def test_classification_loss_is_the_mean_cross_entropy():
    # -log sigmoid(0) = log 2; -log(1 - sigmoid(log 3)) = -log(1/4) = 2 log 2
    loss = classification_loss(torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx(1.5 * math.log(2))


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"ngwp_scores.*\(1, 3, 2, 2\) and \(1, 2, 2, 2\)"):
        ngwp_scores(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, 2))
    with pytest.raises(ValueError, match="K >= 1"):
        ngwp_scores(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"classification_loss.*\(2, 3\) and \(2, 4\)"):
        classification_loss(torch.zeros(2, 3), torch.zeros(2, 4))
