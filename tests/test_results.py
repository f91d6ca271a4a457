"""Masks as files, folders of predictions, the VOC server's tar, comparisons of scores."""

import json
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from wsfcn.data.sample import Sample
from wsfcn.evaluate import Score, compare, evaluate, evaluate_folder, write_masks
from wsfcn.metrics import Tally
from wsfcn.protocols import Protocol
from wsfcn.results import MissingPredictionsError, mask_path, read_mask, voc_tar, write_mask
from wsfcn.settings import SettingsError
from wsfcn.show.confusion import confusion_map


class Stripes:
    """Noisy red and blue stripes of several sizes, as a data set with names and a split."""

    classes = ("red", "green", "blue")
    split = "val"

    def __init__(self, count: int = 5, masks: bool = True) -> None:
        self.masks = masks
        self.names = [f"photo-{i}" for i in range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        height, width = 40 + 4 * (index % 2), 60
        mask = np.zeros((height, width), np.uint8)
        mask[:, 10:25], mask[5:20, 40:55] = 1, 3
        colours = np.array([(90, 90, 90), (220, 40, 40), (40, 220, 40), (40, 40, 220)])
        noise = np.random.default_rng(index).integers(-70, 70, (height, width, 3))
        image = (colours[mask] + noise).clip(0, 255).astype(np.uint8)
        labels = np.array([1, 0, 1], np.float32)
        return Sample(self.names[index], image, labels, mask if self.masks else None)


PLAIN = Protocol(name="plain", flip=False)


@pytest.fixture
def saved(toy_network, tmp_path):
    """A score, and the folder its masks were saved to."""
    score = evaluate(toy_network(), Stripes(), PLAIN, save=tmp_path / "masks", progress=False)
    return score, tmp_path / "masks"


def test_a_folder_of_saved_masks_scores_as_the_network_does(saved):
    score, folder = saved
    read = evaluate_folder(folder, Stripes(), progress=False)
    assert 0 < score.mean_iou < 1 and read.confusion == score.confusion
    assert (read.boundary_iou, read.size_iou["large"]) == (
        score.boundary_iou,
        score.size_iou["large"],
    )
    assert read.protocol == score.protocol and read.protocol.split == "val"
    assert score.difference(read) == 0
    with Image.open(folder / "photo-0.png") as picture:
        assert picture.mode == "P" and picture.getpalette()[3:6] == [128, 0, 0]


def test_masks_without_truth_are_written_alike(saved, toy_network, tmp_path):
    write_masks(toy_network(), Stripes(masks=False), tmp_path / "b", PLAIN, progress=False)
    for name in (*(f"photo-{i}.png" for i in range(5)), "protocol.json"):
        assert (tmp_path / "b" / name).read_bytes() == (saved[1] / name).read_bytes()


def test_masks_of_another_protocol_are_not_mixed_in(saved, toy_network):
    _, folder = saved
    before = (folder / "photo-0.png").read_bytes()
    with pytest.raises(ValueError, match=r"masks: has masks made otherwise \(flip: False and True"):
        evaluate(toy_network(2.0), Stripes(), Protocol(), save=folder, limit=2, progress=False)
    assert (folder / "photo-0.png").read_bytes() == before
    evaluate(toy_network(), Stripes(), PLAIN, save=folder, progress=False)


def test_masks_of_a_run_that_broke_say_their_protocol(toy_network, tmp_path):
    class Broken(Stripes):
        def __getitem__(self, index: int) -> Sample:
            if index == 4:
                raise OSError("broken")
            return super().__getitem__(index)

    with pytest.raises(OSError, match="broken"):
        evaluate(
            toy_network(), Broken(), PLAIN, batch_size=1, save=tmp_path / "masks", progress=False
        )
    with pytest.raises(MissingPredictionsError, match="1 of 5"):
        evaluate_folder(tmp_path / "masks", Stripes(), progress=False)


def test_a_grey_file_of_four_bits_is_refused(saved):
    path = saved[1] / "photo-2.png"
    header = struct.pack(">IIBBBBB", 60, 40, 4, 0, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress((b"\0" + b"\x13" * 30) * 40)),
        (b"IEND", b""),
    )
    parts = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(ValueError, match=r"photo-2.png: .*needs an 8-bit PNG"):
        evaluate_folder(saved[1], Stripes(), progress=False)  # Pillow makes 17 and 51 of 1 and 3


def test_missing_predictions_are_an_error_that_names_them(saved):
    _, folder = saved
    (folder / "photo-1.png").unlink()
    (folder / "photo-4.png").unlink()
    with pytest.raises(MissingPredictionsError, match="2 of 5 images: photo-1, photo-4") as caught:
        evaluate_folder(folder, Stripes(), progress=False)
    assert caught.value.names == ["photo-1", "photo-4"]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        evaluate_folder(folder / "x", Stripes(), PLAIN, progress=False)


def test_files_that_do_not_fit_are_named(saved, tmp_path):
    _, folder = saved
    good = (folder / "photo-2.png").read_bytes()
    for content, words in (
        (np.zeros((9, 9), np.uint8), r"photo-2: shapes differ"),
        (np.full((40, 60), 4, np.uint8), r"photo-2: prediction: label 4 is not one of 0..3"),
        (np.zeros((40, 60, 3), np.uint8), r"photo-2.png: has pixels of kind RGB; a mask needs"),
    ):
        Image.fromarray(content).save(folder / "photo-2.png")
        with pytest.raises(ValueError, match=words):
            evaluate_folder(folder, Stripes(), progress=False)
    (folder / "photo-2.png").write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"photo-2.png: the image is truncated or damaged"):
        evaluate_folder(folder, Stripes(), progress=False)
    (folder / "photo-2.png").write_bytes(good)
    (folder / "protocol.json").write_text("[]")
    with pytest.raises(ValueError, match=r"protocol.json: is no protocol"):
        evaluate_folder(folder, Stripes(), progress=False)
    (folder / "protocol.json").unlink()
    with pytest.raises(ValueError, match="say which protocol"):
        evaluate_folder(folder, Stripes(), progress=False)
    assert evaluate_folder(folder, Stripes(), PLAIN, progress=False).images == 5


def test_names_stay_in_the_folder(tmp_path):
    assert mask_path(tmp_path, "a/b ü") == tmp_path / "a" / "b ü.png"
    for name in ("../x", "/x", "", "a/../../x"):
        with pytest.raises(ValueError, match="cannot be the name"):
            mask_path(tmp_path, name)
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path, "a/b ü", labels)
    np.testing.assert_array_equal(read_mask(tmp_path, "a/b ü"), labels)


def test_tar_for_the_voc_server(saved, tmp_path):
    _, folder = saved
    names = Stripes().names
    path = voc_tar(folder, names, tmp_path / "deep" / "results.tgz")
    with tarfile.open(path) as tar:
        inside = tar.getnames()
        first = tar.extractfile(inside[0]).read()
        assert all(m.mtime == 0 and not m.uname for m in tar.getmembers())
    assert inside == [f"results/VOC2012/Segmentation/comp6_test_cls/{n}.png" for n in names]
    assert first == (folder / "photo-0.png").read_bytes()
    with pytest.raises(MissingPredictionsError, match="no-such"):
        voc_tar(folder, [*names, "no-such"], tmp_path / "results.tgz")
    assert not (tmp_path / "results.tgz").exists()


def test_scores_of_different_protocols_are_not_compared(saved, toy_network):
    score, _ = saved
    flipped = evaluate(toy_network(ramp=1.0), Stripes(), Protocol(), progress=False)
    with pytest.raises(SettingsError, match="flip: False and True"):
        score.difference(flipped)
    assert score.difference(flipped, across_protocols=True) == pytest.approx(
        score.mean_iou - flipped.mean_iou
    )
    with pytest.raises(SettingsError, match=r"a and b were made differently: flip"):
        compare({"a": score, "b": flipped})
    mixed = compare({"a": score, "b": flipped}, across_protocols=True, markdown=True)
    assert "no flip" in mixed
    assert len({line.count("|") for line in mixed.splitlines()}) == 1
    fewer = evaluate(toy_network(), Stripes(3), PLAIN, progress=False)
    with pytest.raises(SettingsError, match="images: 5 and 3"):
        compare({"a": score, "b": fewer})
    smaller = evaluate(toy_network(), Stripes(), PLAIN, size=40, progress=False)
    with pytest.raises(SettingsError, match="size: 512 and 40 px"):
        score.difference(smaller)
    ramped = evaluate(toy_network(ramp=3.0), Stripes(), PLAIN, progress=False)
    lines = compare({"one": score, "two": ramped}).splitlines()
    assert f"{100 * (ramped.mean_iou - score.mean_iou):+.2f}" in lines[2]
    assert PLAIN.describe() in lines[-1]
    with pytest.raises(SettingsError, match="needs a score"):
        compare({})


def test_the_split_of_a_score(saved, toy_network):
    score, _ = saved
    assert score.protocol.split == "val" and "split val" in str(score)
    other = PLAIN.change({"split": "test"})
    with pytest.raises(SettingsError, match="the protocol says test, the data set is val"):
        evaluate(toy_network(), Stripes(), other, progress=False)


def test_scores_of_older_versions_read(saved, tmp_path):
    values = saved[0].to_dict()
    for name in ("boundary_iou", "size_iou"):
        del values[name]
    for name in ("padding", "canvas", "crf_code", "split"):
        del values["protocol"][name]
    (tmp_path / "old.json").write_text(json.dumps(values))
    read = Score.read(tmp_path / "old.json")
    assert read.confusion == saved[0].confusion and np.isnan(read.boundary_iou)
    assert "small objects" not in read.table() and "boundary" in read.table()
    del values["confusion"]
    (tmp_path / "old.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="not a saved score"):
        Score.read(tmp_path / "old.json")


def test_new_rates_round_trip_and_are_in_the_table(saved, tmp_path):
    score, _ = saved
    read = Score.read(score.save(tmp_path / "score.json"))
    assert read.boundary_iou == score.boundary_iou and [*read.size_iou] == [*score.size_iou]
    assert f"{100 * score.boundary_iou:.2f}" in score.table()
    assert f"{100 * score.size_iou['large']:.2f}" in score.table()
    counted = Tally(4)
    for index, sample in enumerate(Stripes()[i] for i in range(5)):
        counted.update(read_mask(saved[1], f"photo-{index}"), sample.mask)
    assert counted.boundary_iou == score.boundary_iou


def test_confusion_map_shows_the_shares(saved):
    figure = confusion_map(saved[0])
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert {"background", "red", "blue"} <= set(names)
    shares = np.asarray(axes.images[0].get_array())
    counts = np.array(saved[0].confusion, float)
    known = counts.sum(1) > 0
    picked = [names.index(n) for n, k in zip(saved[0].per_class, known, strict=True) if k]
    expected = 100 * counts[known] / counts[known].sum(1, keepdims=True)
    columns = [[*saved[0].per_class].index(name) for name in names]
    np.testing.assert_allclose(shares[picked], expected[:, columns])
    assert "Confusion of" in figure.alt and "%" in figure.alt
