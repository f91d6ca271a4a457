"""What the released WS-FCN and its released baseline compute from the same numbers.

data/published.npz holds one image of the released WS-FCN's numbers; the whole sets lie beside
the checkout of the developers, and are used where they are.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from wsfcn.weak import PAMR, gate_open, mask_loss, pseudo_labels, refine

EXCERPT = Path(__file__).parent / "data" / "published.npz"
WHOLE = Path(__file__).parents[3] / "shared" / "fixtures"


def read(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        pytest.skip(f"{path.name}: the whole set of published numbers is not beside this checkout")
    with np.load(path) as arrays:
        numbers = {k: torch.from_numpy(arrays[k]) for k in arrays if not k.startswith("grad:")}
    if "pseudo_gt" in numbers:
        claims = numbers.pop("pseudo_gt")
        numbers["pseudo"] = torch.where(claims.sum(1) == 1, claims.argmax(1), 255).byte()
    return numbers


@pytest.fixture(
    params=[EXCERPT, WHOLE / "dev-wsfcn.npz", WHOLE / "dev-baseline.npz"], ids=lambda p: p.stem
)
def published(request) -> dict[str, torch.Tensor]:
    return read(request.param)


def test_pamr(published):
    refined = PAMR()(published["raw"], published["pamr_logits"].softmax(1))
    torch.testing.assert_close(refined, published["pamr_out"], rtol=0, atol=1e-5)


def test_pseudo_ground_truth_and_mask_loss(published):
    raw, labels, logits = published["raw"], published["y"], published["mask_logits"]
    masks = refine(PAMR(), raw, logits.softmax(1), labels)
    pseudo = pseudo_labels(masks, labels, raw.shape[-2:])
    assert torch.equal(pseudo, published["pseudo"])
    assert {0, 255} < set(pseudo.unique().tolist())
    assert gate_open(pseudo, labels).all()
    loss = mask_loss(logits, pseudo, labels)
    torch.testing.assert_close(loss, published["mask_loss"], rtol=0, atol=1e-6)
