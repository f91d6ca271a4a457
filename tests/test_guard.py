"""A loss or gradient that is not finite changes nothing, and its batch can be replayed."""

from __future__ import annotations

import math

import pytest
import torch

import wsfcn.features
import wsfcn.guard
import wsfcn.train
from wsfcn import recipes
from wsfcn.batches import epoch_order
from wsfcn.guard import KEPT, replay
from wsfcn.train import train
from wsfcn.weights import read_safetensors

TINY = recipes.smoke_scenes().change(
    {
        "data.scenes.size": 64,
        "augment.crop": 64,
        "data.val": 3,
        "train.batch_size": 6,
        "train.accumulate": 3,
        "train.views": 0,
        "train.average": 0.9,
        "model.context_dropout": 0.5,
        "model.decoder_dropout": (0.5, 0.1),
        "weak.floor": 0.0,
        "weak.background_factor": 0.9,
    }
)


def run(folder, recipe=TINY, **options):
    return train(recipe, folder, progress=False, monitor=2, **options)


@pytest.fixture(params=["plain", "fused"])
def optimiser(request, monkeypatch):
    """As on a CPU; and as on a GPU, where the device leaves out steps and tells it later."""
    usual = torch.optim.SGD
    if request.param == "fused":
        monkeypatch.setattr(torch.optim, "SGD", lambda *a, **k: usual(*a, **k | {"fused": True}))
    return request.param


def poison(monkeypatch, *calls: int, what: str = "loss") -> list:
    """Let the losses with these numbers, or their gradients, be no numbers; all losses made."""
    usual, made = wsfcn.train.losses, []

    def poisoned(output, *arguments, **named):
        found = usual(output, *arguments, **named)
        if len(made) in calls:
            bad = output.logits.sum() * (math.nan if what == "loss" else 0.0)
            if what == "gradient":
                bad.register_hook(lambda gradient: gradient * math.nan)
            found = found._replace(classification=found.classification + bad)
        made.append([float(part.detach()) for part in found])
        return found

    monkeypatch.setattr(wsfcn.train, "losses", poisoned)
    return made


def watching(snapshots: list):
    """An on_step that keeps all tensors of the network and of the optimiser."""
    kept = {}
    usual = wsfcn.train.State

    class Kept(usual):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            kept["state"] = self

    def hook(step, rows):
        tensors, _ = kept["state"].pack()
        parts = {k: v.clone() for k, v in tensors.items() if k.startswith(("network", "moment"))}
        snapshots.append(parts)

    return Kept, hook


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_the_step_is_not_taken(optimiser, what, tmp_path, monkeypatch):
    snapshots: list = []
    state, hook = watching(snapshots)
    monkeypatch.setattr(wsfcn.train, "State", state)
    # The second pass of the third step, and all of the fourth, the last of its epoch.
    poison(monkeypatch, 7, 9, 10, 11, what=what)
    with pytest.warns(UserWarning, match=f"{what} not finite in epoch 1, step 3: the step was not"):
        result = run(tmp_path, on_step=hook)
    assert not same(snapshots[0], snapshots[1])
    assert same(snapshots[1], snapshots[2]) and same(snapshots[1], snapshots[3])
    assert not same(snapshots[3], snapshots[4])
    for snapshot in snapshots:
        assert all(v.isfinite().all() for v in snapshot.values())
    assert all(v.isfinite().all() for v in result.model.state_dict().values())
    steps = [row for row in result.rows if "step" in row]
    assert [row.get("skipped") for row in steps] == [2, None]
    assert all(math.isfinite(row["classification_loss"]) for row in steps)


def test_the_first_step_of_all(optimiser, tmp_path, monkeypatch):
    poison(monkeypatch, 0)
    snapshots: list = []
    state, hook = watching(snapshots)
    monkeypatch.setattr(wsfcn.train, "State", state)
    with pytest.warns(UserWarning, match="epoch 1, step 1"):
        run(tmp_path, on_step=hook)
    start = snapshots[0]
    assert all(not v.any() for k, v in start.items() if k.startswith("momentum"))
    assert all(v.isfinite().all() for v in snapshots[-1].values())


def test_the_fused_optimiser_does_what_the_plain_one_does(tmp_path, monkeypatch):
    poison(monkeypatch, 7)
    with pytest.warns(UserWarning):
        plain = run(tmp_path / "plain").model.state_dict()
    usual = torch.optim.SGD
    monkeypatch.setattr(torch.optim, "SGD", lambda *a, **k: usual(*a, **k | {"fused": True}))
    poison(monkeypatch, 7)
    with pytest.warns(UserWarning):
        fused = run(tmp_path / "fused").model.state_dict()
    for name, tensor in plain.items():
        torch.testing.assert_close(fused[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("views", [0, 1])
def test_a_kept_batch_is_replayed_to_the_same_losses(
    optimiser, views, tmp_path, tmp_path_factory, monkeypatch
):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    recipe = TINY.change({"train.views": views})
    counted = []

    def total(gradients):  # the seventh step, after the warm-up, counts as bad
        counted.append(max(float(gradient.abs().max()) for gradient in gradients))
        return torch.tensor(math.inf if len(counted) == 7 else 1.0)

    monkeypatch.setattr(wsfcn.guard, "total", total)
    made = poison(monkeypatch)
    with pytest.warns(UserWarning, match=r"gradient not finite .* its batch is in .*step-00003"):
        run(tmp_path / "run", recipe)
    [path] = (tmp_path / "run" / "bad").iterdir()
    expected = [sum(part) for part in zip(*made[18:21], strict=True)]
    torch.manual_seed(99)
    again = replay(path)
    assert expected[1] > 0  # there is a mask loss
    assert [again["classification_loss"], again["mask_loss"]] == pytest.approx(expected[:2], 1e-6)
    # The training's gradient is that of the mean over three passes.
    assert again["largest_gradient"] / 3 == pytest.approx(counted[6], rel=1e-4)
    header = read_safetensors(path)[1]
    assert (header["seed"], header["epoch"], header["step"]) == (0, 1, 2)
    order = epoch_order(24, 0, 1)[12:18].tolist()
    assert header["rows"] == order
    assert header["ids"] == [f"train-0-{row:06d}" for row in order]


def test_too_many_in_a_row_stop_the_training_also_across_a_resume(optimiser, tmp_path, monkeypatch):
    poison(monkeypatch, *range(3, 100))
    with (
        pytest.warns(UserWarning),
        pytest.raises(FloatingPointError, match=r"step 3: .* the last of 2 in a row; lower train"),
    ):
        run(tmp_path, bad=2, every=2)
    assert len(list((tmp_path / "bad").iterdir())) == 2
    poison(monkeypatch, *range(100))
    with (
        pytest.warns(UserWarning),
        pytest.raises(FloatingPointError, match=r"step 1: .* the last of 4 in a row"),
    ):
        run(tmp_path, bad=4, resume=True)  # the second was before the stop
    assert len(list((tmp_path / "bad").iterdir())) == KEPT
    network = read_safetensors(sorted((tmp_path / "checkpoints").iterdir())[-1])[0]
    assert all(v.isfinite().all() for v in network.values())


def test_a_batch_that_cannot_be_kept_does_not_stop_the_training(tmp_path, monkeypatch):
    usual = wsfcn.guard.weights.write_safetensors

    def full(path, *rest):
        if path.parent.name == "bad":
            raise OSError(28, "No space left on device")
        usual(path, *rest)

    monkeypatch.setattr("wsfcn.weights.write_safetensors", full)
    poison(monkeypatch, 4)
    with pytest.warns(UserWarning, match=r"its batch could not be kept: .*No space left"):
        assert run(tmp_path).rows
