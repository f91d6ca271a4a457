"""The fully connected CRF: in torch against brute force, and pydensecrf where it is installed."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import operator
import os
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data

from wsfcn import densecrf
from wsfcn.data.sample import Sample
from wsfcn.evaluate import evaluate
from wsfcn.pool import WorkError, in_order
from wsfcn.predict import predict, refined
from wsfcn.protocols import Protocol
from wsfcn.weak import crf
from wsfcn.weak.crf import chosen_code, dense_crf

needs_pydensecrf = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None, reason="the extra 'crf' is not installed"
)
CODES = [pytest.param("pydensecrf", marks=needs_pydensecrf), "torch"]


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


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("kind", ["wsfcn", "baseline"])
def test_masks_snap_to_the_edges_of_the_image(kind, code):
    image, truth, masks = square()
    image.setflags(write=False)  # as photos read by Pillow are
    found = dense_crf(image, masks, kind, code=code)
    assert found.shape == masks.shape and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-4)
    before, after = (iou(m.argmax(0) == 1, truth) for m in (masks, found))
    assert before < 0.85 and after > 0.97


@pytest.mark.parametrize("code", CODES)
def test_the_layout_of_the_image_in_memory_does_not_matter(code):
    image, _, masks = square()
    mirrored = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    by_columns = np.asfortranarray(image)
    by_columns.setflags(write=False)
    wanted = dense_crf(image, masks, code=code)
    for view in (mirrored, by_columns):
        np.testing.assert_array_equal(dense_crf(view, masks, code=code), wanted)


@needs_pydensecrf
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
        np.testing.assert_allclose(
            dense_crf(image, masks, kind, code="pydensecrf"), expected, atol=1e-5
        )


def test_wrong_input_is_named():
    image, _, masks = square()
    with pytest.raises(ValueError, match="kind: needs one of wsfcn, baseline, got 'x'"):
        dense_crf(image, masks, "x")
    with pytest.raises(ValueError, match="image is"):
        dense_crf(image[:-1], masks)


@pytest.mark.parametrize("code", CODES)
def test_a_protocol_with_crf_changes_the_label_map_and_says_so(toy_network, code):
    noise = np.random.default_rng(0).integers(-90, 90, (48, 64, 3))
    image = (square()[0] + noise).clip(0, 255).astype(np.uint8)
    plain = Protocol(name="plain", flip=False)
    with_crf = plain.change({"name": "crf", "crf": "baseline", "crf_code": code})
    first, second = (predict(toy_network(), [image], p)[0] for p in (plain, with_crf))
    expected = dense_crf(image, first.masks, "baseline", code=code).argmax(0)
    assert np.array_equal(second.labels, expected)
    assert not np.array_equal(first.labels, second.labels)
    assert f"CRF of baseline ({code})" in second.protocol.describe()


def photo(name: str, height: int, width: int) -> np.ndarray:
    picture = Image.fromarray(getattr(data, name)()).convert("RGB")
    return np.array(picture.resize((width, height), Image.Resampling.BICUBIC))


def guesses(height: int, width: int, count: int, seed: int = 0, absent: int = 0) -> np.ndarray:
    """Smooth masks of `count` classes, and of some that are nowhere, in a mixed order."""
    coarse = np.random.default_rng(seed).random((1, count, 4, 5), np.float32)
    fine = F.interpolate(torch.from_numpy(coarse), (height, width), mode="bicubic")[0]
    masks = np.zeros((count + absent, height, width), np.float32)
    places = [0, *np.linspace(1, count + absent - 1, count - 1).astype(int)]
    masks[places] = (4 * fine).softmax(0).numpy()
    return masks


def brute_force(image, energies, sxy, iterations):
    """Mean field over all pairs of pixels, in float64."""
    height, width, _ = image.shape
    ys, xs = np.mgrid[:height, :width]
    places, colours = np.stack([ys, xs], -1).reshape(-1, 2), image.reshape(-1, 3).astype(float)
    apart = np.square(places[:, None] - places).sum(-1)
    unlike = np.square(colours[:, None] - colours).sum(-1)
    pull = 0
    for weight, kernel in (
        (3, np.exp(-apart / (2 * 3**2))),
        (10, np.exp(-apart / (2 * sxy**2) - unlike / (2 * 13**2))),
    ):
        norm = 1 / np.sqrt(kernel.sum(1))
        pull = pull + weight * norm[:, None] * kernel * norm
    unary = energies.reshape(len(energies), -1).astype(float)
    q = np.exp(-unary) / np.exp(-unary).sum(0)
    for _ in range(iterations):
        q = np.exp(q @ pull - unary)
        q /= q.sum(0)
    return q.reshape(energies.shape)


@pytest.mark.parametrize("sxy", [30, 80])
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_torch_against_brute_force(name, sxy):
    """On photos of 40 x 52 px: below 0.01 on average, and 98.5 % of the pixels the same label."""
    image, masks = photo(name, 40, 52), guesses(40, 52, 4)
    energies, force = -np.log(masks.clip(1e-5, 1)), np.ones(4, np.float32)
    exact = brute_force(image, energies, sxy, 10)
    found = crf._torch(image, energies, force, sxy, 10)
    assert np.abs(exact - masks).mean() > 0.05  # the CRF has done something
    assert np.abs(found - exact).mean() < 0.01
    assert (found.argmax(0) == exact.argmax(0)).mean() > 0.985


def test_the_filter_of_the_grid_against_the_exact_one():
    image = photo("coffee", 30, 40)
    grid, values = crf.BilateralGrid(torch.from_numpy(image), 30, 13), torch.rand(2, 30, 40)
    ys, xs = np.mgrid[:30, :40]
    places = np.stack([ys, xs], -1).reshape(-1, 2) / 30
    features = np.concatenate([places, image.reshape(-1, 3) / 13], 1)
    kernel = np.exp(-0.5 * np.square(features[:, None] - features).sum(-1))
    exact = values.reshape(2, -1).numpy() @ kernel
    found = grid(values).reshape(2, -1).numpy()
    ratio = found / exact
    assert np.abs(ratio / np.median(ratio) - 1).mean() < 0.06  # one factor for all cancels


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("kind", ["wsfcn", "baseline"])
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_labels_present_alone_give_what_all_labels_give(name, kind, code):
    """Within the mass of a label left out; of 10,800 pixels one, where two labels tie, differs."""
    image, masks = photo(name, 90, 120), guesses(90, 120, 4, absent=17)
    masks[:, 20:40, 30:70] = 0  # where only rejected classes were: every label at the clip
    found = dense_crf(image, masks, kind, code=code)
    if kind == "wsfcn":
        masks = np.concatenate([(1 - masks[1:].max(0, keepdims=True)) ** 5, masks[1:]])
    energies, force = -np.log(masks.clip(1e-5, 1)), np.ones(21, np.float32)
    solve = densecrf.solve if code == "pydensecrf" else crf._torch
    whole = solve(image, energies, force, crf.BILATERAL_SXY[kind], 10)
    np.testing.assert_allclose(found, whole, atol=crf.NEGLIGIBLE)
    assert (found.argmax(0) != whole.argmax(0)).sum() <= 1


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_a_label_stands_for_the_absent_where_it_matters_or_costs_nothing(count):
    image, masks = photo("coffee", 20, 30), guesses(20, 30, count, absent=16)
    _, energies, force, _ = crf.problem_of(image, masks, "wsfcn").given
    assert len(energies) == len(force) == {2: 2, 3: 4, 4: 4, 5: 5}[count]
    masks[:, 5:9] = 0  # the baseline's background can be nothing as well
    _, energies, _, _ = crf.problem_of(image, masks, "baseline").given
    assert len(energies) == count + 1


@needs_pydensecrf
def test_leaving_absent_labels_out_is_not_the_same():
    """Where no class has a mask one label stands for the absent ones: without it, masks differ."""
    image, masks = photo("coffee", 60, 80), guesses(60, 80, 3, absent=18)
    masks[:, 20:40, 30:70] = 0
    energies = -np.log(masks.clip(1e-5, 1))
    kept = masks.max((1, 2)) > 0
    whole = densecrf.solve(image, energies, np.ones(21, np.float32), 80, 10)[kept]
    alone = densecrf.solve(image, energies[kept], np.ones(3, np.float32), 80, 10)
    found = dense_crf(image, masks, "baseline", code="pydensecrf")[kept]
    assert np.abs(found - whole).max() < 2e-4 < 1e-2 < np.abs(alone - whole).max()


def test_masks_of_nothing_stay_background():
    image = photo("coffee", 20, 30)
    for kind in ("wsfcn", "baseline"):
        found = dense_crf(image, np.zeros((5, 20, 30), np.float32), kind, code="torch")
        assert not found.argmax(0).any()


def test_which_code(monkeypatch):
    assert chosen_code("torch") == "torch" and chosen_code("pydensecrf") == "pydensecrf"
    with pytest.raises(ValueError, match="needs auto, pydensecrf or torch, got 'x'"):
        chosen_code("x")
    monkeypatch.setattr(crf.importlib.util, "find_spec", lambda name: None)
    assert chosen_code() == "torch"
    monkeypatch.setattr(crf.importlib.util, "find_spec", lambda name: object())
    for gpu, code in ((False, "pydensecrf"), (True, "torch")):
        monkeypatch.setattr(crf.torch.cuda, "is_available", lambda gpu=gpu: gpu)
        assert chosen_code() == code


def test_pydensecrf_asked_for_and_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    image, _, masks = square()
    with pytest.raises(ImportError, match=r"pip install 'wsfcn\[crf\]'.*crf_code torch"):
        dense_crf(image, masks, code="pydensecrf")


def test_large_photos_meet_the_crf_small(toy_network, monkeypatch):
    monkeypatch.setattr("wsfcn.predict.CRF_LONGEST", 40)
    image = photo("coffee", 60, 80)
    [found] = predict(toy_network(), [image], Protocol(crf="baseline", crf_code="torch"))
    assert found.labels.shape == (60, 80)


# --- work in several processes ---


def invert(value: int) -> float:
    return 1 / value


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_errors_reach_the_caller(processes):
    work = [(f"piece {i}", (i,)) for i in (1, 2, 4, 0, 5)]
    results = in_order(operator.neg, work, processes=processes)
    assert list(results) == [-1, -2, -4, 0, -5]
    results = in_order(invert_of(processes), work, processes=processes)
    assert [next(results) for _ in range(3)] == [1, 0.5, 0.25]
    with pytest.raises(WorkError, match="piece 0: ZeroDivisionError"):
        next(results)


def invert_of(processes: int):
    """1 / x; for other processes from a module that they can import."""
    return invert if processes == 1 else functools.partial(operator.truediv, 1)


def test_a_worker_that_dies_is_named():
    work = [("first", (0,)), ("second", (0,))]
    with pytest.raises(WorkError, match="first: a worker process died"):
        list(in_order(os._exit, work, processes=2))


def test_work_is_drawn_as_it_is_needed():
    drawn = []

    def work():
        for index in range(50):
            drawn.append(index)
            yield str(index), (index,)

    results = in_order(operator.neg, work(), processes=2)
    next(results)
    assert len(drawn) <= 4


@needs_pydensecrf
def test_a_pool_gives_the_same_labels_and_names_what_fails(toy_network):
    images = [photo("coffee", 40 + i, 52) for i in range(3)]
    protocol = Protocol(crf="baseline", crf_code="pydensecrf")
    one, two = (predict(toy_network(), images, protocol, processes=n) for n in (1, 2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)
    broken = dataclasses.replace(one[1], masks=one[1].masks[:, :, :0])
    work = [("good", one[0]), ("the broken one", broken)]
    with pytest.raises(WorkError, match="the broken one: "):
        list(refined(work, protocol, processes=2))


def test_evaluation_with_a_crf(toy_network):
    class Photos:
        classes = ("red", "green", "blue")

        def __len__(self):
            return 3

        def __getitem__(self, index):
            image, truth, _ = square(index)
            noise = np.random.default_rng(index).integers(-90, 90, image.shape)
            image = (image + noise).clip(0, 255).astype(np.uint8)[: 48 - 2 * index]
            mask = truth[: 48 - 2 * index].astype(np.uint8)
            return Sample(f"square-{index}", image, np.array([1, 0, 0], np.float32), mask)

    plain = Protocol(flip=False, background="constant", background_value=0.4)
    with_crf = plain.change({"crf": "wsfcn", "crf_code": "torch"})
    before, after = (
        evaluate(toy_network(), Photos(), p, progress=False) for p in (plain, with_crf)
    )
    assert after.images == 3 and after.confusion != before.confusion
    assert after.protocol.crf_code == "torch"
    auto = evaluate(toy_network(), Photos(), plain.change({"crf": "wsfcn"}), progress=False)
    assert auto.protocol.crf_code == chosen_code()
