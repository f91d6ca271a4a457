"""Training curves: what is drawn for which rows."""

import numpy as np
import pytest

from wsfcn.show.curves import curves


def rows(epochs: int = 4, warmup: int = 2) -> list[dict]:
    found = []
    for step in range(10 * epochs):
        epoch = (step + 1) / 10
        found.append(
            {
                "step": step,
                "epoch": epoch,
                "classification_loss": 1 / (step + 1),
                "mask_loss": 0.5 if epoch > warmup else 0.0,
            }
        )
    for epoch in range(1, epochs + 1):
        found.append({"epoch": epoch, "mean_iou": epoch / 10, "pixel_accuracy": 0.8})
    return found


def lines(axes) -> dict[str, np.ndarray]:
    return {
        line.get_label(): line.get_xydata()
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def test_losses_scores_and_warm_up():
    left, right = curves(rows()).axes
    drawn = lines(left)
    assert set(drawn) == {"classification loss", "mask loss", "end of warm-up"}
    assert drawn["mask loss"][:, 0].min() > 2  # nothing is drawn where there is no mask loss
    np.testing.assert_allclose(drawn["mask loss"][:, 1], 0.5)
    assert drawn["end of warm-up"][0, 0] == 2
    scores = lines(right)
    np.testing.assert_allclose(scores["mIoU"], [[1, 10], [2, 20], [3, 30], [4, 40]])
    assert right.get_ylabel() == "%" and left.get_xlabel() == right.get_xlabel() == "epoch"


def test_one_row_an_epoch():
    some = [
        {"epoch": float(e), "classification_loss": 1, "mask_loss": 0.1 * (e > 2)} for e in (1, 2, 3)
    ]
    assert lines(curves(some).axes[0])["end of warm-up"][0, 0] == 2


def test_given_warm_up_wins():
    left, _ = curves(rows(), warmup_epochs=1).axes
    assert lines(left)["end of warm-up"][0, 0] == 1


@pytest.mark.parametrize("some", [[], rows(1, 5), [{"epoch": 1, "mean_iou": None}], rows()[-1:]])
def test_incomplete_runs_draw_what_they_have(some):
    figure = curves(some)
    assert len(figure.axes) == 2
    figure.canvas.draw()


def test_smoothing_keeps_a_constant():
    flat = [{"epoch": i / 100, "classification_loss": 3.0} for i in range(400)]
    left, _ = curves(flat).axes
    np.testing.assert_allclose(lines(left)["classification loss"][:, 1], 3.0)


def with_gate() -> list[dict]:
    return [{**r, "gate_open": 0.25} if "mask_loss" in r else r for r in rows()]


def test_the_gate_has_its_own_panel_after_the_warm_up():
    _, middle, _ = curves(with_gate()).axes
    drawn = lines(middle)["images with an open gate"]
    assert drawn[:, 0].min() > 2
    np.testing.assert_allclose(drawn[:, 1], 25)
    assert middle.get_ylabel() == "% of the images"


def test_a_figure_says_in_words_what_it_shows():
    alt = curves(rows()).alt
    assert "over 4 epochs" in alt
    assert "mIoU from 10 to 40 percent" in alt
    assert "from 1.000 to 0.025" in alt
