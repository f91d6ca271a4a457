"""Scales, flips, class filter and background rules against a plain implementation; photos."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from wsfcn.predict import (
    at_size,
    default_size,
    label_map,
    merge_scales,
    predict,
    segment,
    working_size,
)
from wsfcn.protocols import Protocol, given_image_labels
from wsfcn.settings import SettingsError


def photo(height=60, width=80, seed=0) -> np.ndarray:
    """Smooth coloured blobs."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def plain_merge(network, image: np.ndarray, protocol: Protocol, labels=None):
    """The same formulas step by step, one image, Pillow for the scaling, lists and loops."""
    height, width = image.shape[:2]
    votes, scores = [], []
    for scale in protocol.scales:
        size = (round(scale * width), round(scale * height))
        scaled = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        for flip in [False, True] if protocol.flip else [False]:
            view = scaled[:, ::-1].copy() if flip else scaled
            with torch.no_grad():
                out = network(network.normalise(tensor(view)))
            mask = F.interpolate(out.masks, (height, width), mode="bilinear", align_corners=False)
            mask = mask[0].numpy()
            votes.append(mask[:, :, ::-1] if flip else mask)
            scores.append(1 / (1 + np.exp(-out.scores[0].numpy())))
    merged = sum(votes) / len(votes)
    best = np.max(scores, 0)
    for c in range(len(best)):
        if not (best[c] > protocol.class_filter if labels is None else labels[c]):
            merged[c + 1] = 0
    if protocol.background == "constant":
        merged[0] = protocol.background_value
    if protocol.background == "power":
        merged[0] = merged[0] ** protocol.background_value
    return merged, best


PROTOCOLS = [
    Protocol(flip=False),
    Protocol(),
    Protocol(scales=(0.5,), flip=False),
    Protocol(scales=(1.0, 0.5, 1.5, 2.0)),
    Protocol(scales=(1.0, 2.0), flip=False, class_filter=0.9),
    Protocol(background="constant", background_value=0.25),
    Protocol(scales=(1.0, 1.5), background="power", background_value=3.0),
    Protocol(image_labels=True),
]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=Protocol.describe)
def test_merging_equals_the_plain_formulas(toy_network, protocol):
    network, image = toy_network(ramp=2.0), photo(72, 96)
    labels = [1, 0, 1] if protocol.image_labels else None
    expected, best = plain_merge(network, image, protocol, labels)
    given = None if labels is None else np.array([labels], np.float32)
    [found] = predict(network, [image], protocol, given)
    # Pillow rounds the scaled image to 8 bits, torch does not.
    tolerance = 1e-6 if protocol.scales == (1.0,) else 0.02
    np.testing.assert_allclose(found.masks, expected, atol=tolerance)
    np.testing.assert_allclose(found.scores, best, atol=tolerance)
    assert (found.labels == expected.argmax(0)).mean() > 0.98
    assert found.labels.dtype == np.uint8 and found.masks.dtype == np.float32
    assert found.protocol == protocol


def test_real_network_merges_like_the_plain_formulas(tiny_network):
    image, protocol = photo(64, 96), Protocol(scales=(1.0, 0.5), class_filter=0.0)
    expected, best = plain_merge(tiny_network, image, protocol)
    [found] = predict(tiny_network, [image], protocol)
    np.testing.assert_allclose(found.masks, expected, atol=0.02)
    np.testing.assert_allclose(found.scores, best, atol=0.02)


def test_flip_changes_nothing_for_an_equivariant_network(toy_network):
    network, image = toy_network(), tensor(photo())
    with torch.no_grad():
        one = merge_scales(network, image, Protocol(flip=False))
        two = merge_scales(network, image, Protocol(flip=True))
    assert torch.equal(one.masks, two.masks)
    assert torch.equal(one.scores, two.scores)


def test_mirrored_photo_gives_mirrored_masks(toy_network):
    network, image = toy_network(ramp=2.0), tensor(photo())
    with torch.no_grad():
        there = merge_scales(network, image, Protocol(scales=(1.0, 0.5)))
        back = merge_scales(network, image.flip(-1), Protocol(scales=(1.0, 0.5)))
    # Equal up to the order of a sum of two.
    torch.testing.assert_close(there.masks.flip(-1), back.masks, atol=1e-6, rtol=0)


def test_masks_are_averaged_not_summed_over_views(toy_network):
    with torch.no_grad():
        merged = merge_scales(
            toy_network(ramp=1.0), tensor(photo()), Protocol(scales=(1.0, 0.5, 2.0), class_filter=0)
        )
    torch.testing.assert_close(merged.masks.sum(1), torch.ones(1, 60, 80))


def test_class_filter_takes_the_best_view_and_is_strict(toy_network):
    class Chosen(toy_network):
        def forward(self, images):
            out = super().forward(images)
            small = images.shape[-1] < 80
            out.scores = torch.full_like(out.scores, -9.0)
            out.scores[:, 1] = 2.0 if small else -9.0
            out.scores[:, 2] = 0.0  # sigmoid is 0.5, exactly the threshold
            return out

    protocol = Protocol(scales=(1.0, 0.5), class_filter=0.5)
    with torch.no_grad():
        merged = merge_scales(Chosen(), tensor(photo()), protocol)
        large = merge_scales(Chosen(), tensor(photo()), protocol.change({"scales": (1.0,)}))
    assert merged.kept.tolist() == [[False, True, False]]
    assert merged.masks[0, 2].max() > 0
    assert merged.masks[0, [1, 3]].abs().max() == 0
    assert not large.kept.any()


def test_without_any_class_all_is_background(toy_network):
    none = np.zeros((1, 3), np.float32)
    for rule in ("softmax", "constant", "power"):
        protocol = given_image_labels().change({"background": rule, "background_value": 2.0})
        [found] = predict(toy_network(), [photo()], protocol, none)
        assert not found.labels.any()
        assert found.areas() == {"background": 1.0} and found.found == ()


def test_background_rules_move_the_border(toy_network):
    areas = []
    for value in (0.1, 0.4, 0.9):
        protocol = Protocol(background="constant", background_value=value)
        areas.append(predict(toy_network(), [photo()], protocol)[0].areas().get("background", 0))
    assert areas[0] < areas[1] < areas[2]


def test_labels_and_protocol_must_agree(toy_network):
    network, image = toy_network(), photo()
    with pytest.raises(SettingsError, match="needs image labels"):
        predict(network, [image], given_image_labels())
    with pytest.raises(SettingsError, match="takes no image labels"):
        predict(network, [image], Protocol(), [["red"]])
    with pytest.raises(SettingsError, match="unknown class 'pink'; known: red, green, blue"):
        predict(network, [image], labels=[["pink"]])
    with pytest.raises(ValueError, match=r"need shape \(1, 3\), got \(2, 3\)"):
        predict(network, [image], labels=[["red"], ["blue"]])
    [found] = predict(network, [image], labels=[["red", "blue"]])
    assert found.protocol == given_image_labels()
    assert set(np.unique(found.labels)) <= {0, 1, 3}


def test_batches_of_mixed_sizes_keep_the_order(toy_network):
    network = toy_network(ramp=1.0)
    images = [photo(40, 50, 1), photo(40, 50, 2), photo(50, 40, 3), photo(40, 50, 4)]
    together = predict(network, images)
    for image, found in zip(images, together, strict=True):
        [alone] = predict(network, [image])
        np.testing.assert_array_equal(found.labels, alone.labels)
        np.testing.assert_allclose(found.masks, alone.masks, atol=1e-6)
        assert found.image is image


def test_array_of_images(toy_network):
    stack = np.stack([photo(seed=1), photo(seed=2)])
    assert len(predict(toy_network(), stack)) == 2
    assert len(predict(toy_network(), stack[0])) == 1
    assert predict(toy_network(), []) == []


def test_modes_and_gradients_are_left_as_they_were(tiny_network):
    tiny_network.train()
    tiny_network.context.eval()
    before = [m.training for m in tiny_network.modules()]
    [first], [second] = (predict(tiny_network, [photo(64, 64)]) for _ in range(2))
    np.testing.assert_array_equal(first.masks, second.masks)  # neither dropout nor random gate
    assert [m.training for m in tiny_network.modules()] == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("size", [(33, 47), (60, 80), (61, 203), (301, 77), (512, 700)])
def test_label_map_equals_argmax_of_resized_masks(size, monkeypatch):
    monkeypatch.setattr("wsfcn.predict.STRIP_PIXELS", 5000)
    masks = np.random.default_rng(0).random((5, 33, 47), dtype=np.float32)
    masks[3] = 0
    whole = F.interpolate(torch.from_numpy(masks)[None], size, mode="bilinear")[0]
    expected = whole.argmax(0).numpy()
    found = label_map(masks, size)
    second = whole.sort(0).values
    clear = (second[-1] - second[-2] > 1e-5).numpy()  # rounding may decide a tie
    np.testing.assert_array_equal(found[clear], expected[clear])
    assert clear.mean() > 0.99 and found.shape == size


def test_label_map_prefers_the_background_in_a_tie():
    assert label_map(np.zeros((3, 4, 4), np.float32), (8, 8)).max() == 0
    assert label_map(np.full((3, 4, 4), 0.3, np.float32), (4, 4)).max() == 0


def test_big_photos_are_seen_small_and_labelled_large(toy_network):
    image = photo(300, 400)
    [found] = predict(toy_network(), [image], size=100)
    assert found.masks.shape == (4, 75, 100) and found.labels.shape == (300, 400)
    [full] = predict(toy_network(), [image], size=400)
    assert full.masks.shape == (4, 300, 400)
    assert (found.labels == full.labels).mean() > 0.95


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (7, 5), (31, 33)])
def test_tiny_photos(tiny_network, shape):
    [found] = predict(tiny_network, [photo(*shape)], Protocol(scales=(1.0, 0.5)))
    assert found.labels.shape == shape and np.isfinite(found.masks).all()


def test_working_size(tiny_network, toy_network):
    assert default_size(tiny_network) == 2 * tiny_network.recipe.augment.crop
    assert working_size(toy_network(), None) == 512
    for wrong in (0, -5, 31, 5000):
        with pytest.raises(SettingsError, match=f"size: needs 32 to 2048 px, got {wrong}"):
            working_size(toy_network(), wrong)


def test_the_side_asked_for_comes_before_the_protocols_before_the_networks(tiny_network):
    protocol = tiny_network.recipe.protocol.change({"longest": 64})
    assert at_size(tiny_network, protocol, None) == (protocol, 64)
    assert at_size(tiny_network, protocol, 48) == (protocol.change({"longest": 48}), 48)
    plain = protocol.change({"longest": 0})
    assert at_size(tiny_network, plain, None) == (plain, default_size(tiny_network))
    assert at_size(tiny_network, plain, 48) == (plain, 48)
    photo = np.zeros((100, 80, 3), np.uint8)
    assert [s.masks.shape[1:] for s in predict(tiny_network, [photo], protocol)] == [(64, 51)]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 5), np.uint8), r"shape \(H, W, 3\), got \(5, 5\)"),
        (np.zeros((5, 5, 4), np.uint8), r"\(5, 5, 4\)"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        (np.zeros((5, 5, 3)), "uint8 array, got float64"),
        ([[1, 2, 3]], "uint8 array, got list"),
    ],
)
def test_wrong_images(toy_network, image, message):
    with pytest.raises(ValueError, match=message):
        predict(toy_network(), [image])


def test_broken_network_is_an_error_not_a_mask(toy_network):
    network = toy_network()
    network.gain.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        predict(network, [photo()])


def test_segment_takes_paths_arrays_and_pillow_images(toy_network, tmp_path):
    network, image = toy_network(), photo()
    Image.fromarray(image).save(tmp_path / "a.png")
    found = [
        segment(network, source).labels
        for source in (image, tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image))
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    grey = Image.fromarray(image).convert("L")
    assert segment(network, grey).image.shape == (60, 80, 3)


def test_areas_found_and_dictionary(toy_network):
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, :6, 2] = 255
    image[:3, 6:, 0] = 255
    found = segment(toy_network(), image)
    assert found.areas() == pytest.approx({"background": 0.28, "red": 0.12, "blue": 0.6})
    assert found.found == ("blue", "red")
    values = json.loads(json.dumps(found.to_dict()))
    assert values["size"] == [10, 10] and values["protocol_text"] == Protocol().describe()
    assert set(values["scores"]) == {"red", "green", "blue"}


def test_save_writes_three_files_that_read_back(toy_network, tmp_path):
    found = segment(toy_network(), photo())
    overlay, mask, record = found.save(tmp_path / "deep" / "out", "cat")
    names = sorted(p.name for p in (tmp_path / "deep" / "out").iterdir())
    assert names == ["cat.json", "cat.mask.png", "cat.overlay.png"]
    with Image.open(mask) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), found.labels)
        assert picture.getpalette()[3:6] == [128, 0, 0]  # aeroplane's red in VOC
    with Image.open(overlay) as picture:
        assert picture.mode == "RGB" and min(picture.size) >= 60
    assert json.loads(record.read_text())["areas"] == found.areas()
    found.save(tmp_path / "deep" / "out", "cat")  # own results may be written again


def test_save_never_writes_over_an_input(toy_network, tmp_path):
    found = segment(toy_network(), photo())
    source = tmp_path / "cat.mask.png"
    source.write_bytes(b"an input")
    with pytest.raises(FileExistsError, match=r"cat.mask.png: is an input"):
        found.save(tmp_path, "cat", protected=[tmp_path / "sub" / ".." / "cat.mask.png"])
    assert [p.name for p in tmp_path.iterdir()] == ["cat.mask.png"]
    assert source.read_bytes() == b"an input"


@pytest.mark.parametrize("method", ["write_bytes", "replace"])
def test_save_is_all_or_nothing(toy_network, tmp_path, monkeypatch, method):
    found = segment(toy_network(), photo())
    real, calls = getattr(Path, method), []

    def failing(self, *arguments):
        calls.append(self)
        if len(calls) == 3:
            raise OSError(28, "No space left on device", str(self))
        return real(self, *arguments)

    monkeypatch.setattr(Path, method, failing)
    with pytest.raises(OSError, match="No space left"):
        found.save(tmp_path, "cat")
    assert len(calls) == 3 and list(tmp_path.iterdir()) == []


def test_shows_itself_in_a_notebook(toy_network):
    network = toy_network()
    network.classes = ("<script>", "a&b", "blue")
    found = segment(network, photo(100, 100))
    assert found._repr_png_().startswith(b"\x89PNG")
    html = found._repr_html_()
    assert "<script>" not in html and 'alt="Segmented photo: ' in html
    assert "&lt;script&gt;" in html or "a&amp;b" in html


def test_photo_of_12_megapixels_in_bounded_memory(tmp_path):
    """A phone's 4000 x 3000 JPEG, lying on its side as EXIF says, in a process of its own."""
    ramp = np.linspace(0, 255, 4000, dtype=np.uint8)
    image = np.empty((3000, 4000, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = ramp, 90, ramp[::-1]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "phone.jpg", exif=exif, quality=80)
    script = """
        import resource, sys, torch
        torch.set_num_threads(1)
        import wsfcn
        from wsfcn import recipes
        torch.manual_seed(0)
        model = wsfcn.build_model(recipes.lite_scenes().change({"model.pretrained": False}))
        protocol = wsfcn.protocols.Protocol(scales=(1.0, 0.5), class_filter=0.0)
        found = wsfcn.segment(model, sys.argv[1], protocol)
        found.save(sys.argv[2], "phone")
        if sys.platform == "linux":  # getrusage counts what the parent held when it forked
            with open("/proc/self/status") as file:
                peak = next(int(s.split()[1]) << 10 for s in file if s.startswith("VmHWM"))
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on macOS bytes
        print(*found.labels.shape, *found.masks.shape, peak >> 20)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "phone.jpg"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    height, width, n, h, w, peak = map(int, done.stdout.split())
    assert (height, width) == (4000, 3000)  # upright
    assert (n, h, w) == (21, 256, 192)
    assert peak < 1536, f"{peak} MiB"
    with Image.open(tmp_path / "phone.mask.png") as mask:
        assert mask.size == (3000, 4000)
