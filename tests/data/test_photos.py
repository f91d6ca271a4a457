"""From labels.csv to a page of masks by the commands of the README, and training on files."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsfcn import cli, recipes
from wsfcn.build import build_model
from wsfcn.data import Coco, Folder, Voc
from wsfcn.features import cache_folder, cached_features
from wsfcn.study.cam_floor import cam_floor
from wsfcn.study.execute import run_one
from wsfcn.study.experiments import Run, Scoring
from wsfcn.train import train

README = (Path(__file__).parents[2] / "README.md").read_text()
SMALL = {
    "augment.crop": 32,
    "model.width": 16,
    "model.align_width": 8,
    "model.skip_width": 8,
    "train.epochs": 1,
    "train.warmup_epochs": 0,
    "train.batch_size": 2,
    "train.epoch_steps": 0,
}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path / "cache"))


def flags(changes):
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in changes.items())
    return [word for pair in pairs for word in pair]


def photos(folder, count):
    """Discs and stripes on grounds of their own, so that no two photos look alike."""
    folder.mkdir()
    rows, columns = np.mgrid[:40, :48]
    lines = ["file,class"]
    for number in range(count):
        ground = np.random.default_rng(number).integers(40, 200, (5, 6, 3), np.uint8)
        image = np.array(Image.fromarray(ground).resize((48, 40), Image.Resampling.BICUBIC))
        disc = (rows - 20) ** 2 + (columns - 10 - number % 25) ** 2 < 80
        name = "größe" if number == 7 else f"{number:03d}"
        if number % 2:
            image[disc] = (220, 40, 40)
        if number % 3 == 0 or not number % 2:
            image[::5] = (30, 30, 200)
        names = ["disc"] * (number % 2) + ["stripes"] * (number % 3 == 0 or not number % 2)
        Image.fromarray(image).save(folder / f"{name}.jpg")
        lines.append(f"{name}.jpg,{'; '.join(names)}")
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.timeout(600)  # seconds alone, minutes on a busy machine
def test_three_commands_lead_from_labels_to_a_page_of_masks(tmp_path, monkeypatch, capsys):
    section = README.split("## Your own photos")[1].split("\n## ")[0]
    commands = re.findall(r"^\.venv/bin/wsfcn (.*?)(?: +#.*)?$", section, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["data", "train", "segment"]
    check, *rest = (shlex.split(command) for command in commands)
    folder = rest[0][rest[0].index("--data") + 1]
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / folder, 300)
    assert cli.main(check) == 0
    assert "clean" in capsys.readouterr().out
    small = SMALL | {"train.batch_size": 16}
    with pytest.warns(UserWarning, match="nothing is scored"):
        assert cli.main(rest[0] + flags(small)) == 0
    assert "not scored" in capsys.readouterr().out
    assert cli.main([*rest[1], "--size", "32"]) == 0
    [page] = re.findall(r"^page: (.*)$", capsys.readouterr().out, re.MULTILINE)
    text = Path(page).read_text(encoding="utf-8")
    assert page in section and text.count("<img ") == 300 and "größe.jpg" in text
    assert "http" not in text.replace("http-equiv", "") and "default-src 'none'" in text
    assert all(source.startswith("data:") for source in re.findall(r'src="(.{9})', text))


@pytest.mark.parametrize("split", ["train", "train_aug"])
def test_a_voc_tree_trains_and_is_scored(voc, tmp_path, split):
    recipe = recipes.lite_folder().change(
        SMALL | {"data.kind": "voc", "data.root": str(voc), "data.labels": "masks"}
    )
    recipe = recipe.change({"data.train_split": split})
    score = train(recipe, tmp_path / "run", progress=False).score
    assert score.images == 2 and len(score.confusion) == 21
    assert sum(map(sum, score.confusion)) == 2 * 24 * 15


def test_a_coco_tree_trains_and_is_scored(coco, tmp_path):
    recipe = recipes.lite_folder().change(
        SMALL | {"data.kind": "coco", "data.root": str(coco), "data.labels": "masks"}
    )
    classes = ("dog", "toothbrush", "frisbee")
    score = train(recipe.change({"data.classes": classes}), tmp_path / "run", progress=False).score
    assert list(score.per_class) == ["background", *classes] and score.images == 2


def test_features_are_made_anew_when_a_photo_changes(folder):
    recipe = recipes.lite_folder().change(SMALL | {"data.root": str(folder)})
    data = Folder(folder)
    model = build_model(recipe, data.classes)
    found = []
    for colour in ("red", "red", "blue"):
        if colour == "blue":
            Image.new("RGB", (24, 16), colour).save(data.image_path(0))
        found.append(cached_features(model, recipe, data, progress=False))
    assert len(list((cache_folder() / "features").iterdir())) == 2
    assert found[0].folder == found[1].folder != found[2].folder


def test_only_validation_photos_with_a_mask_are_scored(folder, make, tmp_path):
    names = Folder(folder, "val").names
    make.mask(folder / f"masks/{names[0]}.png", 2)
    recipe = recipes.lite_folder().change(SMALL | {"data.root": str(folder)})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert train(recipe, tmp_path / "run", progress=False).score.images == 1


def test_photos_of_several_sizes_have_a_record_and_a_floor(folder, make):
    """What a sweep does with each run."""
    val = Folder(folder, "all")
    for index in range(len(val)):
        size = (24 + 4 * (index % 3), 16)
        make.photo(val.image_path(index), size, colour=(25 * index, 80, 40))
        make.mask(folder / f"masks/{val.names[index]}.png", 2, size=size)
    changes = {"data.root": str(folder), "data.train_split": "all", "data.val_split": "all"}
    recipe = recipes.lite_folder().change(SMALL | changes)
    run = Run(row="baseline", seed=0, recipe=recipe, scores={"usual": Scoring()}, floor=True)
    record = run_one(run.model_dump(mode="json"))
    assert len(record["scores"]["usual"]["counts"]) == 10
    assert 0 < record["metrics"]["best CAM"] <= 100


def test_wrong_data_stop_before_the_run_folder_is_claimed(folder, tmp_path, capsys):
    out = tmp_path / "run"
    for arguments, words in (
        (["lite_folder", "--data", str(tmp_path / "no")], "no: no such folder"),
        (["lite_folder"], "data.root: kind 'folder' needs the folder of its photos (--data DIR)"),
        (["lite_scenes", "--data", str(folder)], "--data: lite_scenes draws its images"),
        (["paper_voc", "--data", str(folder)], "holds no VOC tree"),
        (["paper_coco", "--data", str(folder)], "holds no COCO tree"),
    ):
        assert cli.main(["train", *arguments, "--out", str(out)]) == 2
        assert words in capsys.readouterr().err and not out.exists()


def test_every_kind_tells_its_photos(voc, coco, folder):
    for data in (Voc(voc), Coco(coco), Folder(folder, "all")):
        assert len(data.names) == len(data) and data.image_path(0).is_file()
        assert data[0].id == data.names[0]


def test_the_floor_of_a_folder_is_found_again(folder, make):
    for name in Folder(folder, "val").names:
        make.mask(folder / "masks" / f"{name}.png", 1)
    recipe = recipes.lite_folder().change(SMALL | {"data.root": str(folder)})
    first, again = (cam_floor(recipe, epochs=1, progress=False) for _ in range(2))
    assert first.curves == again.curves and again.network.classes == ("ant", "zebra")


def test_a_read_only_cache_is_named_with_what_to_set(folder, tmp_path, monkeypatch):
    recipe = recipes.lite_folder().change(SMALL | {"data.root": str(folder)})
    data = Folder(folder)
    model = build_model(recipe, data.classes)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(PermissionError, match=r"cache/features: cannot write.*WSFCN_CACHE"):
        cached_features(model, recipe, data, progress=False)
