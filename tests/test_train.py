"""The training loop: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch

from wsfcn import recipes
from wsfcn.batches import epoch_order, worker_count
from wsfcn.build import build_model, load
from wsfcn.data import build as build_data
from wsfcn.data.transforms import augment, rng, to_tensor
from wsfcn.evaluate import Score, evaluate
from wsfcn.features import Remembered, Views, cache_folder, cached_features
from wsfcn.model.backbone import Features
from wsfcn.model.network import Network
from wsfcn.train import losses, parameter_groups, train
from wsfcn.weights import read_safetensors

SMOKE = recipes.smoke_scenes().change(
    {
        "data.scenes.size": 64,
        "augment.crop": 64,
        "data.val": 4,
        "train.batch_size": 4,
        "train.average": 0.9,
        "train.decay": 0.9,
    }
)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def run(folder, recipe=SMOKE, **options):
    return train(recipe, folder, progress=False, monitor=2, **options)


def same(first: Score, second: Score) -> bool:
    return json.dumps(first.to_dict()) == json.dumps(second.to_dict())  # nan equals nan as text


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSFCN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return run(tmp_path_factory.mktemp("run") / "full")


def test_a_run_leaves_recipe_metrics_weights_and_score(finished):
    folder = finished.folder
    names = {p.name for p in folder.iterdir()}
    assert {"recipe.json", "metrics.jsonl", "model.safetensors", "score.json"} <= names
    assert not [p for p in folder.rglob("*") if ".part" in p.name]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == finished.rows
    epochs = [r for r in rows if "mean_iou" in r]
    assert [r["epoch"] for r in epochs] == [1, 2]
    assert same(Score.read(folder / "score.json"), finished.score)
    assert recipes.Recipe(**json.loads((folder / "recipe.json").read_text())) == SMOKE
    state = load(folder / "model.safetensors").state_dict()
    for name, tensor in finished.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_the_mask_loss_starts_after_the_warm_up(finished):
    steps = [r for r in finished.rows if "step" in r]
    warm = [r for r in steps if r["epoch"] <= SMOKE.train.warmup_epochs]
    assert warm and all(r["mask_loss"] == 0 for r in warm)
    assert len(steps) > len(warm)


def test_the_same_seed_gives_the_same_weights_whether_or_not_features_were_cached(
    finished, tmp_path, monkeypatch
):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path / "cold"))
    again = run(tmp_path / "again")
    for name, tensor in finished.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


@pytest.mark.parametrize("hook, moment", [("on_epoch", 1), ("on_step", 8)])  # 6 steps an epoch
def test_a_run_cut_off_ends_with_the_same_weights(hook, moment, finished, tmp_path):
    class CutError(Exception):
        pass

    def cut(number, *_):
        if number == moment:
            raise CutError

    with pytest.raises(CutError):
        run(tmp_path / "cut", **{hook: cut})
    with open(tmp_path / "cut" / "metrics.jsonl", "a") as file:
        file.write('{"step": 999, "epoch": 1.5}\n')  # steps after the checkpoint are done again
    again = run(tmp_path / "cut", resume=True)
    for name, tensor in finished.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    drop = ("seconds",)
    plain = [{k: v for k, v in r.items() if k not in drop} for r in again.rows]
    assert plain == [{k: v for k, v in r.items() if k not in drop} for r in finished.rows]


def test_a_finished_run_is_read_back_without_training(finished):
    def never(epoch, model, rows):
        raise AssertionError("trained again")

    again = run(finished.folder, resume=True, on_epoch=never)
    assert same(again.score, finished.score) and again.rows == finished.rows


def test_folders_that_hold_something_else_are_refused(finished, tmp_path):
    with pytest.raises(FileExistsError, match="holds a run already"):
        run(finished.folder)
    with pytest.raises(ValueError, match="run of another recipe"):
        run(finished.folder, SMOKE.change({"train.seed": 1}), resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file"):
        run(tmp_path / "file")


def test_a_batch_larger_than_the_data_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"train\.batch_size: 99 is more than the 24"):
        run(tmp_path / "run", SMOKE.change({"train.batch_size": 99}))


def test_optimiser_groups_have_the_published_factors():
    recipe = SMOKE.change({"model.frozen": 1, "train.views": 0, "model.pretrained": False})
    model, settings = build_model(recipe), recipe.train
    groups = parameter_groups(model, settings)
    base = settings.learning_rate
    found = [(g["lr"] / base, g["weight_decay"] > 0) for g in groups]
    new, bias = settings.new_factor, settings.bias_factor
    # EfficientNet-Lite has no trainable biases, so the group of pretrained biases is empty.
    assert found == [
        (pytest.approx(1), True),
        (pytest.approx(new), True),
        (pytest.approx(new * bias), False),
    ]
    counted = sum(p.numel() for g in groups for p in g["params"])
    assert counted == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_rates_fall_towards_the_end(finished, tmp_path):
    """As (1 - share)^decay: the first step at the whole rate, none at 0."""
    total = max(row["step"] for row in finished.rows if "step" in row)

    def rates(folder):
        name = max((folder / "checkpoints").glob("*.safetensors"))
        return [group["lr"] for group in read_safetensors(name)[1]["groups"]]

    whole = [g["lr"] for g in parameter_groups(finished.model, SMOKE.train)]
    assert rates(finished.folder) == pytest.approx([rate * total**-0.9 for rate in whole])
    constant = SMOKE.change({"train.decay": 0.0, "train.epochs": 1})
    assert rates(run(tmp_path / "run", constant).folder) == whole


def test_the_order_depends_on_seed_and_epoch_alone():
    assert np.array_equal(epoch_order(50, 3, 1), epoch_order(50, 3, 1))
    assert sorted(epoch_order(50, 3, 1)) == list(range(50))
    assert not np.array_equal(epoch_order(50, 3, 1), epoch_order(50, 3, 2))
    assert not np.array_equal(epoch_order(50, 3, 1), epoch_order(50, 4, 1))
    longer = epoch_order(50, 3, 1, 120)
    assert np.array_equal(longer[:50], epoch_order(50, 3, 1)) and len(longer) == 150
    assert np.array_equal(np.bincount(longer), np.full(50, 3))


def test_few_images_come_more_than_once_an_epoch(tmp_path):
    recipe = SMOKE.change({"data.train": 9, "train.epoch_steps": 5, "train.epochs": 1})
    result = run(tmp_path / "run", recipe)
    assert [row["step"] for row in result.rows if "step" in row] == [5]


def test_cached_features_are_those_of_the_augmented_views():
    data = build_data(SMOKE.data)[0]
    torch.manual_seed(0)
    model = build_model(SMOKE).eval()
    cache = cached_features(model, SMOKE, data, progress=False)
    batch = cache.batch(0, np.array([5, 2]))
    image, _ = augment(data[5].image, SMOKE.augment, rng(SMOKE.data.seed, 0, 5))
    with torch.inference_mode():
        pixels = model.normalise(to_tensor(image)[None])
        plain = model(pixels)
        cached = model.finish(Features(batch.low[:1], batch.high[:1]), image.shape[:2])
    close = (cached.probabilities - plain.probabilities).abs()
    assert close.mean() < 1e-3 and close.max() < 0.1  # float16 features
    assert torch.equal(batch.labels[0], torch.from_numpy(data[5].labels))


def test_features_that_were_stopped_are_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path / "whole"))
    recipe = SMOKE.change({"train.views": 2, "data.train": 40})  # three batches a view
    data = build_data(recipe.data)[0]
    model = build_model(recipe)
    whole = cached_features(model, recipe, data, progress=False)
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path / "cut"))
    monkeypatch.setattr("wsfcn.features.SECONDS", 0)
    usual, seen = Views.__getitem__, []

    def interrupted(self, index):
        seen.append((self.view, index))
        if len(seen) == 60:
            raise KeyboardInterrupt
        return usual(self, index)

    monkeypatch.setattr(Views, "__getitem__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached_features(model, recipe, data, progress=False)
    assert not [p for p in (tmp_path / "cut" / "features").iterdir() if p.name[0] != "."]
    again = cached_features(model, recipe, data, progress=False)
    assert seen[60:] == [(1, index) for index in range(16, 40)]
    for one, other in zip(whole.arrays, again.arrays, strict=True):
        assert np.array_equal(one, other)
    assert [p.name for p in (tmp_path / "cut" / "features").iterdir()] == [again.folder.name]


def test_two_processes_that_want_the_same_features_compute_them_once(tmp_path, monkeypatch):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path))
    data = build_data(SMOKE.data)[0]
    model = build_model(SMOKE)
    usual, seen = Views.__getitem__, []

    def counted(self, index):
        seen.append(index)
        return usual(self, index)

    monkeypatch.setattr(Views, "__getitem__", counted)
    work = [
        threading.Thread(target=cached_features, args=(model, SMOKE, data), kwargs={"progress": 0})
        for _ in range(2)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert sorted(seen) == list(range(24))


@pytest.mark.parametrize("views", [0, 1])
def test_half_precision_reaches_the_network_with_cached_features_too(views, tmp_path, monkeypatch):
    seen = []
    finish = Network.finish

    def watched(self, *arguments):
        if self.training:
            seen.append(torch.is_autocast_enabled("cpu"))
        return finish(self, *arguments)

    monkeypatch.setattr(Network, "finish", watched)
    for precision in ("bf16-mixed", "32-true"):
        changes = {"train.precision": precision, "train.views": views}
        changes |= {"train.epochs": 1, "train.warmup_epochs": 0}
        train(SMOKE.change(changes), tmp_path / precision, monitor=0, progress=False)
        assert seen and all(half == (precision != "32-true") for half in seen)
        seen.clear()


def test_frozen_stages_that_remember_change_no_score(tmp_path, monkeypatch):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path))
    model, val = build_model(SMOKE).eval(), build_data(SMOKE.data)[1]
    expected = evaluate(model, val, progress=False).confusion
    first = evaluate(Remembered(model), val, progress=False)
    seen = []
    monkeypatch.setattr(model.backbone, "stem", seen.append)
    again = evaluate(Remembered(model), val, progress=False)
    assert expected == first.confusion == again.confusion and not seen
    other = build_model(SMOKE.change({"model.frozen": 5}))
    stacked = build_model(SMOKE.change({"model.hypercolumn": (3,)}))
    assert len({Remembered(m).folder for m in (model, other, stacked)}) == 3
    assert Remembered(build_model(SMOKE.change({"model.context": "aspp"}))).folder == (
        Remembered(model).folder
    )


def test_outputs_are_recalled_as_far_as_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path))
    model, finished = build_model(SMOKE).eval(), []
    images = torch.rand(3, 2, 3, 64, 64)
    monkeypatch.setattr(model, "finish", lambda *a: finished.append(a) or Network.finish(model, *a))
    with torch.inference_mode():
        one = model(images[0])
        room = 2 * (one.logits.nbytes + one.probabilities.nbytes)
        recalling = Remembered(model, room)
        first = [recalling(batch).scores for batch in images]
        finished.clear()
        again = [recalling(batch).scores for batch in images]
        assert len(finished) == 1 and all(map(torch.equal, first, again))


def test_seeds_and_rows_share_cached_features_but_data_do_not():
    def folders():
        return {p.name for p in (cache_folder() / "features").iterdir()}

    data = build_data(SMOKE.data)[0]
    model = build_model(SMOKE)
    cached_features(model, SMOKE, data, progress=False)
    before = folders()
    changed = SMOKE.change({"train.seed": 7, "model.context": "aspp"})
    cached_features(model, changed, data, progress=False)
    assert folders() == before
    other = SMOKE.change({"data.seed": 7})
    cached_features(model, other, build_data(other.data)[0], progress=False)
    assert len(folders()) == len(before) + 1


def test_views_depend_on_their_key_alone():
    data = build_data(SMOKE.data)[0]
    first, again = Views(data, SMOKE.augment, 0, 0)[3], Views(data, SMOKE.augment, 0, 0)[3]
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], Views(data, SMOKE.augment, 0, 1)[3][0])


def test_workers_are_chosen_by_the_cores_that_there_are(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [worker_count(n) for n in (0, 3)] == [0, 3]
    for cores, processes, chosen in ((1, 1, 0), (2, 1, 1), (16, 1, 8), (16, 4, 3), (2, 4, 0)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: range(n), raising=False)
        assert worker_count(-1, processes) == chosen
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # of 8 processes, on four machines
    assert worker_count(-1, 8) == 0


def test_training_without_a_cache_and_with_worker_processes_is_the_same(tmp_path):
    recipe = SMOKE.change({"train.views": 0, "train.epochs": 1, "train.warmup_epochs": 0})
    plain = run(tmp_path / "plain", recipe)
    workers = run(tmp_path / "workers", recipe.change({"train.workers": 2}))
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, workers.model.state_dict()[name]), name


@pytest.mark.parametrize("views", [0, 1])
def test_true_masks_teach_from_the_first_step(tmp_path, views):
    recipe = SMOKE.change({"weak.supervision": "masks", "train.views": views})
    result = run(tmp_path / "run", recipe)
    steps = [row for row in result.rows if "step" in row]
    assert all(row["mask_loss"] > 0 and row["gate_open"] == 1 for row in steps)
    assert steps[-1]["mask_loss"] < steps[0]["mask_loss"]


def test_the_weight_of_pseudo_labels_is_theirs_alone(tmp_path):
    taught = SMOKE.change({"weak.supervision": "masks", "train.epochs": 1})
    plain, heavy = (
        run(tmp_path / str(weight), taught.change({"weak.mask_weight": weight})).rows
        for weight in (1.0, 8.0)
    )
    assert [r.get("mask_loss") for r in plain] == [r.get("mask_loss") for r in heavy]
    assert recipes.lite_folder().weak.weight == recipes.lite_folder().weak.mask_weight == 8


def test_masks_are_drawn_with_their_images():
    data = build_data(SMOKE.data)[0]
    image, _, mask = Views(data, SMOKE.augment, 0, 0, masks=True)[3]
    assert torch.equal(image, Views(data, SMOKE.augment, 0, 0)[3][0])
    _, exact = augment(data[3].image, SMOKE.augment, rng(0, 0, 3), data[3].mask)
    assert np.array_equal(mask.numpy(), exact) and mask.shape == image.shape[1:]


def test_without_averaging_the_last_weights_are_the_result(tmp_path):
    recipe = SMOKE.change({"train.average": 0.0, "train.epochs": 1})
    kept = {}
    result = run(
        tmp_path / "run", recipe, on_epoch=lambda epoch, model, rows: kept.update(model=model)
    )
    assert result.model is kept["model"]


def test_losses_reach_every_new_part():
    torch.manual_seed(0)
    model = build_model(SMOKE).train()
    data = build_data(SMOKE.data)[0]
    samples = [data[i] for i in range(4)]
    image = torch.stack([to_tensor(s.image) for s in samples])
    labels = torch.stack([torch.from_numpy(s.labels) for s in samples])
    found = losses(model(model.normalise(image)), image, labels, SMOKE.weak, warm_up=False)
    (found.classification + found.mask).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert 0 <= float(found.gate_open) <= 1


@pytest.mark.parametrize("row", ["full", "baseline"])
def test_an_optimisation_step_of_the_paper_runs(row):
    torch.manual_seed(0)
    recipe = recipes.table1()[row]
    network = build_model(recipe).train()
    optimizer = torch.optim.SGD(parameter_groups(network, recipe.train), momentum=0.9)
    watched = [network.backbone.b3.conv_branch2a.weight, network.decoder[8].weight]
    frozen = network.backbone.b2_2.conv_branch2b1.weight
    before = [p.detach().clone() for p in (*watched, frozen)]
    image, labels = torch.rand(2, 3, 65, 65), torch.eye(20)[:2]
    found = losses(network(network.normalise(image)), image, labels, recipe.weak, warm_up=False)
    (found.classification + found.mask).backward()
    optimizer.step()
    assert found.classification.isfinite() and found.mask.isfinite()
    assert all(not torch.equal(p, old) for p, old in zip(watched, before, strict=False))
    assert torch.equal(frozen, before[-1])


def test_a_backbone_without_weights_says_so(tmp_path):
    recipe = SMOKE.change(
        {"model.backbone": "vgg16", "model.pretrained": False, "model.frozen": 1}
    ).change({"train.views": 0, "train.batch_size": 24, "train.epochs": 1})
    data = build_data(recipe.data.change({"train": 23}))
    with (
        pytest.warns(UserWarning, match="vgg16 starts from random weights"),
        pytest.raises(ValueError, match="more than the 23 training images"),
    ):
        train(recipe, tmp_path, datasets=data, progress=False)


def test_pseudo_labels_before_pamr_add_a_second_mask_loss():
    torch.manual_seed(0)
    recipe = SMOKE.change({"model.pretrained": False, "weak.floor": 0.0})
    network = build_model(recipe).eval()
    image, labels = torch.rand(2, 3, 64, 64), torch.eye(20)[:2]
    with torch.no_grad():
        output = network(network.normalise(image))
    output = output._replace(probabilities=torch.rand_like(output.probabilities).softmax(1))
    both, after, unrefined = (
        losses(output, image, labels, recipe.weak.change(changes), warm_up=False).mask
        for changes in ({"before_pamr": True}, {}, {"pamr_iterations": 0})
    )
    assert after > 0 and unrefined > 0
    torch.testing.assert_close(both, after + unrefined)
