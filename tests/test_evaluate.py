"""Confusion matrix against torchmetrics and hand-counted cases; scores as files."""

import json
import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from wsfcn.data.sample import Sample
from wsfcn.evaluate import ConfusionMatrix, Score, _batches, evaluate
from wsfcn.protocols import Protocol, given_image_labels
from wsfcn.settings import SettingsError


def labels(seed: int, n: int, shape=(3, 20, 30), ignore: float = 0.1):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, n, shape)
    prediction = np.where(rng.random(shape) < 0.6, target, rng.integers(0, n, shape))
    target[rng.random(shape) < ignore] = 255
    return prediction.astype(np.uint8), target.astype(np.uint8)


@pytest.mark.parametrize("n", [2, 4, 21, 81])
def test_agrees_with_torchmetrics(n):
    jaccard = MulticlassJaccardIndex(num_classes=n, ignore_index=255, average=None)
    accuracy = MulticlassAccuracy(num_classes=n, ignore_index=255, average="micro")
    matrix = ConfusionMatrix(num_classes=n)
    for seed in range(3):
        prediction, target = labels(seed, n)
        matrix.update(prediction, target)
        pair = (torch.from_numpy(prediction).long(), torch.from_numpy(target).long())
        jaccard.update(*pair)
        accuracy.update(*pair)
    np.testing.assert_allclose(matrix.iou(), jaccard.compute().numpy(), rtol=1e-6)
    assert matrix.mean_iou == pytest.approx(jaccard.compute().mean().item(), rel=1e-6)
    assert matrix.pixel_accuracy == pytest.approx(accuracy.compute().item(), rel=1e-6)


def test_hand_counted():
    matrix = ConfusionMatrix(num_classes=3)
    matrix.update([[0, 1, 1], [1, 0, 0]], [[0, 1, 0], [1, 1, 255]])
    assert matrix.matrix.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    np.testing.assert_allclose(matrix.iou(), [1 / 3, 2 / 4, np.nan])
    assert matrix.absent == (2,)
    assert matrix.mean_iou == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert matrix.pixel_accuracy == pytest.approx(3 / 5)
    assert matrix.foreground_precision == pytest.approx(2 / 3)
    assert matrix.foreground_recall == pytest.approx(2 / 3)


def test_foreground_rates_ignore_which_class():
    matrix = ConfusionMatrix(num_classes=3)
    matrix.update([1, 2, 2, 0], [2, 1, 0, 1])
    assert matrix.foreground_precision == pytest.approx(2 / 3)
    assert matrix.foreground_recall == pytest.approx(2 / 3)
    assert matrix.pixel_accuracy == 0


def test_class_predicted_but_never_true_counts_as_zero():
    matrix = ConfusionMatrix(num_classes=3)
    matrix.update([0, 2], [0, 0])
    np.testing.assert_allclose(matrix.iou(), [0.5, np.nan, 0])
    assert matrix.mean_iou == 0.25


def test_nothing_counted():
    matrix = ConfusionMatrix(num_classes=2)
    matrix.update(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    assert math.isnan(matrix.mean_iou) and math.isnan(matrix.pixel_accuracy)


def test_merging_equals_one_pass():
    whole, parts = ConfusionMatrix(5), [ConfusionMatrix(5), ConfusionMatrix(5)]
    for seed in range(4):
        pair = labels(seed, 5)
        whole.update(*pair)
        parts[seed % 2].update(*pair)
    parts[0].merge(parts[1])
    np.testing.assert_array_equal(parts[0].matrix, whole.matrix)
    with pytest.raises(ValueError, match="5"):
        ConfusionMatrix(4).merge(whole)


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ([[0]], [[0, 1]], r"shapes differ: prediction \(1, 1\), target \(1, 2\)"),
        ([0], [3], r"target: label 3 is not one of 0..2 or 255"),
        ([0], [254], r"target: label 254"),
        ([0], [-1], r"target: label -1"),
        ([3], [0], r"prediction: label 3 is not one of 0..2$"),
        ([255], [255], r"prediction: label 255"),
        ([0.0], [0], "prediction: needs integer labels, got float64"),
    ],
)
def test_wrong_labels_are_named_and_nothing_is_counted(prediction, target, message):
    matrix = ConfusionMatrix(num_classes=3)
    with pytest.raises(ValueError, match=message):
        matrix.update(np.array(prediction), np.array(target))
    assert matrix.matrix.sum() == 0


@pytest.mark.parametrize("n", [0, 1, 256])
def test_impossible_class_numbers(n):
    with pytest.raises(ValueError, match="num_classes"):
        ConfusionMatrix(num_classes=n)


class Colours:
    """Images of two sizes, left half red, right half grey; the mask knows it."""

    classes = ("red", "green", "blue")

    def __init__(self, count: int = 5, masks: bool = True) -> None:
        self.count, self.masks = count, masks

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        height, width = (40, 48) if index % 2 else (48, 40)
        image = np.full((height, width, 3), 100, np.uint8)
        image[:, : width // 2] = (250, 20, 20)
        mask = np.zeros((height, width), np.uint8)
        mask[:, : width // 2] = 1
        mask[0] = 255
        known = np.array([1, 0, 0], np.float32)
        return Sample(f"image-{index}", image, known, mask if self.masks else None)


def test_evaluate_perfect_network(toy_network):
    score = evaluate(toy_network(), Colours(), batch_size=2, progress=False)
    assert score.mean_iou == score.pixel_accuracy == 1
    assert score.images == 5
    assert score.protocol == Protocol()
    assert np.sum(score.confusion) == 2 * (39 * 48) + 3 * (47 * 40)
    assert math.isnan(score.per_class["green"]) and score.per_class["red"] == 1


def test_evaluate_batching_does_not_matter(toy_network):
    network, protocol = toy_network(ramp=3.0), Protocol(flip=False)
    one = evaluate(network, Colours(7), protocol, batch_size=1, progress=False)
    many = evaluate(network, Colours(7), protocol, batch_size=4, progress=False)
    assert one.confusion == many.confusion
    assert 0 < one.mean_iou < 1


def test_evaluate_given_labels_removes_false_classes(toy_network):
    network = toy_network(ramp=3.0)  # strong enough to invent classes in the grey half
    protocol = Protocol(flip=False)
    free = evaluate(network, Colours(), protocol, progress=False)
    given = evaluate(
        network, Colours(), given_image_labels().change({"flip": False}), progress=False
    )
    assert np.array(free.confusion)[:, 2:].sum() > 0
    assert np.array(given.confusion)[:, 2:].sum() == 0
    assert given.protocol.image_labels


def test_evaluate_limit_and_bad_arguments(toy_network):
    network = toy_network()
    assert evaluate(network, Colours(), limit=2, progress=False).images == 2
    assert evaluate(network, Colours(), limit=99, progress=False).images == 5
    with pytest.raises(SettingsError, match="limit"):
        evaluate(network, Colours(), limit=0, progress=False)
    with pytest.raises(SettingsError, match="image-0: has no mask"):
        evaluate(network, Colours(masks=False), progress=False)
    other = Colours()
    other.classes = ("red", "green")
    with pytest.raises(SettingsError, match="classes differ"):
        evaluate(network, other, progress=False)


def test_evaluate_names_the_sample_with_a_wrong_mask(toy_network):
    class Wrong(Colours):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            sample.mask[5, 5] = 9 if index == 3 else 0
            return sample

    with pytest.raises(ValueError, match="image-3: target: label 9"):
        evaluate(toy_network(), Wrong(), progress=False)


@pytest.fixture
def score(toy_network) -> Score:
    return evaluate(toy_network(ramp=1.5), Colours(), progress=False)


def test_score_file_round_trip(score, tmp_path):
    path = score.save(tmp_path / "new" / "score.json")
    assert Score.read(path).to_dict() == score.to_dict()
    values = json.loads(path.read_text())
    assert values["per_class"]["blue"] is None or values["per_class"]["blue"] >= 0
    assert values["protocol"]["flip"] is True
    assert [p.name for p in path.parent.iterdir()] == ["score.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"mean_iou": 1}', "\x00"])
def test_wrong_score_files(text, tmp_path):
    path = tmp_path / "score.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"score.json: is not a saved score"):
        Score.read(path)


def test_failed_save_leaves_the_old_file(score, tmp_path, monkeypatch):
    path = score.save(tmp_path / "score.json")
    before = path.read_bytes()

    def broken(self, target):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr("pathlib.Path.replace", broken)
    with pytest.raises(OSError, match="No space"):
        score.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["score.json"]


def test_tables(toy_network):
    text = evaluate(toy_network(), Colours(), progress=False).table()
    assert text.splitlines()[0].split() == ["class", "IoU", "%"]
    assert "red" in text and "100.00" in text
    assert "absent, not in the mean: green, blue" in text
    assert "class filter 0.1" in text
    markdown = evaluate(toy_network(), Colours(), progress=False).table(markdown=True)
    assert markdown.splitlines()[1].startswith("| ---")
    assert all(line.count("|") == 3 for line in markdown.splitlines()[:10])


def test_real_network_on_scenes(tiny_network):
    from wsfcn import recipes
    from wsfcn.data.scenes import SceneSet

    scenes = SceneSet(recipes.Scenes(size=64), count=4, seed=0, split="val")
    found = evaluate(tiny_network, scenes, progress=False)
    assert found.images == 4 and 0 <= found.mean_iou < 1
    assert len(found.confusion) == 21


def test_photos_of_many_sizes_do_not_pile_up():
    drawn, shapes = [], [(8 + n % 50, 8, 3) for n in range(120)]

    class Many:
        def __getitem__(self, index):
            drawn.append(index)
            return Sample(str(index), np.zeros(shapes[index], np.uint8), np.ones(1), None)

    found, most = [], 0
    for batch in _batches(Many(), range(120), 3, masks=False):
        assert len({sample.image.shape for sample in batch}) == 1 and len(batch) <= 3
        most = max(most, len(drawn) - len(found))
        found += [sample.id for sample in batch]
    assert sorted(found, key=int) == [str(n) for n in range(120)]
    assert most == 12
