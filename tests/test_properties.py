"""What must hold of any input: PAMR, gate, flow, counts, flips, scales, and every format's way
there and back. WSFCN_EXAMPLES=1000 tries more of them, and others in each run."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from wsfcn import recipes
from wsfcn.data.images import read_image, read_mask
from wsfcn.data.labels import read_rows
from wsfcn.metrics import ConfusionMatrix
from wsfcn.model.decoder import StochasticGate
from wsfcn.model.sf2 import sampling_grid
from wsfcn.predict import predict
from wsfcn.protocols import Protocol
from wsfcn.results import read_mask as read_result
from wsfcn.results import write_mask
from wsfcn.score import Score
from wsfcn.weak import PAMR
from wsfcn.weights import read_safetensors, write_safetensors

EXAMPLES = int(os.environ.get("WSFCN_EXAMPLES", 25))
settings.register_profile(
    "wsfcn",
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 25,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("wsfcn")

unit = st.floats(0, 1, width=32)
sides = st.integers(1, 12)


@st.composite
def pictures(draw, channels: int | None = None):
    """An image (1, 3, H, W) and masks (1, C, H, W), float64 in [0, 1]."""
    height, width = draw(sides), draw(sides)
    count = channels or draw(st.integers(1, 4))
    shape = (3 + count, height, width)
    both = torch.from_numpy(draw(arrays.arrays(np.float64, shape, elements=unit)))
    return both[None, :3], both[None, 3:]


walks = st.builds(
    PAMR,
    iterations=st.integers(1, 4),
    dilations=st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True).map(tuple),
)


# --- PAMR ---


@given(pictures(), walks)
def test_pamr_mixes_and_never_leaves_the_range(picture, pamr):
    image, masks = picture
    refined = pamr(image, masks)
    low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
    assert refined.isfinite().all()
    assert (refined >= low - 1e-9).all() and (refined <= high + 1e-9).all()
    affinities = pamr.affinities(image)
    assert (affinities >= 0).all()
    torch.testing.assert_close(affinities.sum(1), torch.ones_like(affinities[:, 0]))


@given(pictures(), walks, unit)
def test_pamr_keeps_constant_maps(picture, pamr, value):
    image, masks = picture
    constant = torch.full_like(masks, value)
    torch.testing.assert_close(pamr(image, constant), constant, rtol=1e-9, atol=1e-12)


@given(pictures(), walks, st.randoms(use_true_random=False))
def test_pamr_treats_channels_alike(picture, pamr, random):
    image, masks = picture
    order = list(range(masks.shape[1]))
    random.shuffle(order)
    torch.testing.assert_close(pamr(image, masks[:, order]), pamr(image, masks)[:, order])


@given(pictures(channels=2), walks, unit)
def test_pamr_is_linear_in_the_masks(picture, pamr, share):
    image, masks = picture
    mixed = share * masks[:, :1] + (1 - share) * masks[:, 1:]
    refined = pamr(image, masks)
    expected = share * refined[:, :1] + (1 - share) * refined[:, 1:]
    torch.testing.assert_close(pamr(image, mixed), expected, rtol=1e-9, atol=1e-12)


@given(pictures(), walks)
def test_pamr_of_a_mirrored_picture_is_mirrored(picture, pamr):
    image, masks = picture
    mirrored = pamr(image.flip(-1), masks.flip(-1)).flip(-1)
    # Of equal neighbours the colours' deviation is rounding, whose order mirroring changes.
    assume((image - image.mean((2, 3), keepdim=True)).abs().max() > 1e-3)
    torch.testing.assert_close(mirrored, pamr(image, masks), rtol=1e-5, atol=1e-5)


# --- gate and flow ---


@given(st.floats(0, 0.9), st.floats(-5, 5), st.floats(-5, 5))
def test_the_gate_has_the_deep_map_as_expectation(rate, deep, shallow):
    gate = StochasticGate(rate)
    torch.manual_seed(0)
    size = (1, 1, 300, 300)
    mixed = gate.train()(torch.full(size, deep), torch.full(size, shallow)).double()
    # One draw is at most |deep - shallow| / (1 - rate) from the expectation; five deviations.
    spread = abs(deep - shallow) * math.sqrt(rate / (1 - rate)) / 300
    assert abs(float(mixed.mean()) - deep) <= 5 * spread + 1e-4
    values = torch.tensor([shallow, (deep - rate * shallow) / (1 - rate)], dtype=torch.float64)
    assert ((mixed[..., None] - values).abs().amin(-1) < 1e-4).all()


@given(
    arrays.arrays(np.float32, st.tuples(st.just(1), st.integers(1, 3), sides, sides), elements=unit)
)
def test_no_flow_leaves_a_map_as_it_is(values):
    high = torch.from_numpy(values)
    height, width = high.shape[-2:]
    assume(height > 1 and width > 1)  # one pixel lies in the middle of [-1, 1]
    grid = sampling_grid(torch.zeros(1, 2, height, width))
    warped = torch.nn.functional.grid_sample(high, grid, align_corners=True)
    torch.testing.assert_close(warped, high, rtol=1e-4, atol=1e-5)


# --- counts ---

N = 5
maps = st.tuples(sides, sides).flatmap(
    lambda shape: st.tuples(
        arrays.arrays(np.uint8, shape, elements=st.integers(0, N - 1)),
        arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 4, 255])),
    )
)


@given(st.lists(maps, min_size=1, max_size=6), st.data())
def test_counts_add_up_however_they_are_shared(pairs, data):
    whole, parts = ConfusionMatrix(N), [ConfusionMatrix(N) for _ in range(3)]
    for predicted, true in pairs:
        whole.update(predicted, true)
        parts[data.draw(st.integers(0, 2))].update(predicted, true)
    first, *others = parts
    for other in others:
        first.merge(other)
    assert np.array_equal(first.matrix, whole.matrix)
    assert whole.matrix.sum() == sum(int((true != 255).sum()) for _, true in pairs)
    plain = np.zeros((N, N), int)
    for predicted, true in pairs:
        for t, p in zip(true.ravel(), predicted.ravel(), strict=True):
            if t != 255:
                plain[t, p] += 1
    assert np.array_equal(whole.matrix, plain)
    rates = whole.iou()[~np.isnan(whole.iou())]
    assert ((rates >= 0) & (rates <= 1)).all()


@given(maps)
def test_a_perfect_prediction_scores_one(pair):
    _, true = pair
    assume((true != 255).any())
    matrix = ConfusionMatrix(N)
    matrix.update(np.where(true == 255, 0, true), true)
    assert matrix.mean_iou == 1 and matrix.pixel_accuracy == 1


# --- flips and scales ---

photos = st.tuples(st.integers(32, 48), st.integers(32, 48)).flatmap(
    lambda size: arrays.arrays(np.uint8, (*size, 3))
)


@given(photos, st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0]), min_size=1, max_size=3, unique=True))
@settings(max_examples=max(10, EXAMPLES // 5))
def test_masks_of_a_mirrored_photo_are_mirrored_at_every_scale(toy_network, photo, scales):
    protocol = Protocol(name="p", flip=True, scales=tuple(scales))
    found, mirrored = (
        predict(toy_network(), [image], protocol)[0] for image in (photo, photo[:, ::-1].copy())
    )
    assert found.labels.shape == photo.shape[:2]
    same = found.labels == mirrored.labels[:, ::-1]
    assert same.mean() > 0.99  # ties of two classes may fall either way by rounding


@given(photos, st.permutations([0.5, 1.0, 2.0]))
@settings(max_examples=max(10, EXAMPLES // 5))
def test_the_order_of_scales_does_not_matter(toy_network, photo, scales):
    ways = [Protocol(name="p", scales=tuple(order)) for order in (scales, sorted(scales))]
    first, second = (predict(toy_network(), [photo], way)[0] for way in ways)
    assert (first.labels == second.labels).mean() > 0.99
    assert first.scores == pytest.approx(second.scores, abs=1e-5)


# --- there and back ---

texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)
numbers = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
plain = st.recursive(numbers, lambda x: st.lists(x) | st.dictionaries(texts, x), max_leaves=10)
KINDS = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8]


@given(
    st.dictionaries(
        texts.filter(lambda name: name != "__metadata__"),
        st.tuples(st.lists(st.integers(0, 4), max_size=4), st.sampled_from([*KINDS, torch.bool])),
        max_size=5,
    ),
    st.dictionaries(texts.filter(lambda name: name != "sha256"), plain, max_size=4),
)
def test_safetensors(tmp_path, shapes, header):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: (torch.rand(shape, generator=generator) * 99).to(kind)
        for name, (shape, kind) in shapes.items()
    }
    write_safetensors(tmp_path / "a.safetensors", tensors, header)
    write_safetensors(tmp_path / "b.safetensors", tensors, dict(reversed(header.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    found, told = read_safetensors(tmp_path / "a.safetensors")
    assert told == header and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@given(arrays.arrays(np.uint8, st.tuples(sides, sides, st.just(3))))
def test_lossless_photos(tmp_path, photo):
    for name in ("a.png", "a.bmp", "a.tif", "a.ppm"):
        Image.fromarray(photo).save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name), photo)


@given(arrays.arrays(np.uint8, st.tuples(sides, sides)))
def test_masks(tmp_path, labels):
    path = write_mask(tmp_path, "a", labels)
    assert np.array_equal(read_result(tmp_path, "a"), labels)
    assert np.array_equal(read_mask(path), labels)


names = texts.map(str.strip).filter(lambda t: t and t[0] not in "#\ufeff" and ";" not in t)


@given(
    st.dictionaries(names, st.lists(names, min_size=1, max_size=3), min_size=1, max_size=5),
    st.booleans(),
)
def test_labels(tmp_path, rows, mark):
    import csv

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file", "class"])
    writer.writerows([file, "; ".join(classes)] for file, classes in rows.items())
    file = tmp_path / "labels.csv"
    file.write_bytes(("\ufeff" * mark + text.getvalue()).encode())
    assert {row.file: list(row.classes) for row in read_rows(file)} == rows


changes = st.fixed_dictionaries(
    {},
    optional={
        "train.learning_rate": st.floats(1e-9, 1),
        "train.seed": st.integers(0, 2**63),
        "model.strips": st.just((1, 255, 3, 5)),
        "data.root": texts,
        "data.classes": st.lists(texts, max_size=3).map(tuple),
        "name": texts,
    },
)


@given(changes)
def test_recipes(tmp_path, made):
    recipe = recipes.smoke_scenes().change(made)
    assert recipes.Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert recipes.Recipe(**json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe


rates = st.floats(0, 1) | st.just(math.nan)


@given(rates, st.dictionaries(texts, rates, min_size=1, max_size=3), st.integers(0, 2**40))
def test_scores(tmp_path, rate, per_class, count):
    score = Score(
        mean_iou=rate,
        pixel_accuracy=rate,
        foreground_precision=rate,
        foreground_recall=rate,
        per_class=per_class,
        images=count,
        protocol=Protocol(name="p"),
        size=1,
        seconds=0.5,
        confusion=((count, 0), (1, 2)),
        boundary_iou=rate,
        size_iou={"small": rate},
    )
    again = Score.read(score.save(tmp_path / "score.json"))
    assert json.dumps(again.to_dict()) == json.dumps(score.to_dict())
    assert Path(tmp_path / "score.json").exists()
