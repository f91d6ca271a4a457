"""The command line, in this process: every mistake is one line and an exit code."""

import json
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

import wsfcn
from wsfcn import cli, flags, recipes
from wsfcn.protocols import Protocol
from wsfcn.settings import SettingsError


@pytest.fixture
def model(tiny_network, tmp_path) -> str:
    """A network file whose recipe has four small validation scenes."""
    tiny_network.recipe = tiny_network.recipe.change(
        {"data.val": 4, "data.scenes.size": 64, "augment.crop": 64}
    )
    wsfcn.save(tiny_network, tmp_path / "model.safetensors")
    return str(tmp_path / "model.safetensors")


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        coarse.resize((70, 50)).save(folder / name)
    return folder


@pytest.fixture
def call(capsys):
    """Run a command; (exit code, stdout, complaints), checking that complaints are whole lines."""

    def run(*arguments):
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as leaving:  # --help
            code = leaving.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, [s for s in err.splitlines() if s.startswith("wsfcn:")]

    return run


def one_line(result, *words):
    """The call failed with exit code 2 and one line that has the words."""
    code, _, lines = result
    assert code == 2, result
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0]


# --- overview and mistakes in flags ---


def test_overview_names_every_command(call):
    for arguments in ([], ["--help"], ["-h"]):
        code, out, lines = call(*arguments)
        assert code == 0 and not lines
        assert all(name in out for name in ("train", "evaluate", "segment", "run"))
    assert call("--version")[1].strip() == f"wsfcn {wsfcn.__version__}"


def test_complaints_are_the_same_on_a_plain_terminal(call, monkeypatch):
    for boxes in (True, False):
        monkeypatch.setattr("tyro._fmtlib._should_use_utf8_drawing_chars", lambda: boxes)  # noqa: B023
        _, _, [line] = call(*["train", "lite_scenes", "--train.epoch", "3"])
        assert line.endswith("options: --train.epoch, 3; did you mean --train.epochs?")


@pytest.mark.parametrize("command", ["train lite_scenes", "evaluate", "segment", "run", "train"])
def test_help_of_commands(call, command):
    code, out, lines = call(*command.split(), "--help")
    assert code in (0, None) and "usage: wsfcn" in out and not lines


def test_help_is_quick_and_loads_no_torch():
    script = """
import sys, time
start = time.perf_counter()
from wsfcn.cli import main
main(["--help"])
print(time.perf_counter() - start, "torch" in sys.modules, "numpy" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    seconds, torch_loaded, numpy_loaded = done.stdout.splitlines()[-1].split()
    assert float(seconds) < 0.5 and (torch_loaded, numpy_loaded) == ("False", "False")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("segmnt", ["no command 'segmnt'", "did you mean 'segment'"]),
        ("train lite_sceens", ["no recipe 'lite_sceens'", "did you mean 'lite_scenes'"]),
        ("train lite_scenes/ful", ["no row 'ful'", "did you mean 'full'"]),
        ("train lite_scenes --train.epoch 3", ["--train.epoch", "did you mean --train.epochs?"]),
        ("train lite_scenes --train.epochs 0", ["train.epochs", "greater than or equal to 1"]),
        ("train lite_scenes --train.epochs x", ["--train.epochs", "'x'"]),
        ("train lite_scenes --model.context asp", ["--model.context", "asp", "aspp"]),
        ("train lite_scenes --model.strips 1 2", ["dilations: needs one value per strip"]),
        ("segment", ["needs a photo"]),
        ("segment nothing.jpg", ["nothing.jpg: no such file"]),
        ("segment x --size big", ["--size: needs INT, got 'big'"]),
        ("segment x --scales a", ["--scales", "'a'"]),
        ("segment x --flip maybe", ["--flip", "maybe"]),
        ("segment x --speed 3", ["--speed"]),
        ("evaluate", ["MODEL"]),
        ("evaluate nothing.safetensors", ["nothing.safetensors"]),
        ("run", ["NOTEBOOK"]),
        ("run nothing.ipynb", ["nothing.ipynb"]),
        ("run x.ipynb -p steps", ["-p", "2 values"]),
        ("run x.ipynb --profile huge", ["--profile", "huge", "smoke"]),
    ],
)
def test_wrong_arguments_give_one_line(call, command, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one_line(call(*command.split()), *words)
    assert list(tmp_path.iterdir()) == []


# --- train ---


def test_train_passes_recipe_and_folder(call, monkeypatch, tmp_path):
    seen = {}

    def fake(recipe, folder, **options):
        seen.update(recipe=recipe, folder=folder, **options)
        return types.SimpleNamespace(score="mIoU 12.34")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wsfcn.train.train", fake)
    code, out, _ = call(
        *["train", "lite-scenes/baseline", "--train.epochs", "3", "--model.width", "32"],
        *["--data.scenes.objects", "1", "2", "--resume", "--every", "50", "--keep", "3"],
    )
    assert code == 0 and "mIoU 12.34" in out
    expected = recipes.table1(recipes.lite_scenes())["baseline"].change(
        {"train.epochs": 3, "data.scenes.objects": (1, 2), "model.width": 32}
    )
    assert seen["recipe"] == expected and seen["resume"] is True
    assert (seen["every"], seen["keep"], seen["bad"]) == (50, 3, 10)
    assert seen["folder"] == Path("runs/lite_scenes-baseline")


def test_train_goes_on_with_the_recipe_of_a_run(call, monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(
        "wsfcn.train.train",
        lambda recipe, folder, **options: (
            seen.update(recipe=recipe, folder=folder, **options)
            or types.SimpleNamespace(score="mIoU 1")
        ),
    )
    recipe = recipes.smoke_scenes().change({"model.width": 24})
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    assert call("train", "--resume", tmp_path, "--train.workers", 3)[0] == 0
    assert seen["recipe"] == recipe.change({"train.workers": 3})
    assert seen["folder"] == tmp_path and seen["resume"] is True
    one_line(call("train", "--resume"), "needs the folder of a run")
    one_line(call("train", "--resume", tmp_path / "no"), "no: holds no run")
    one_line(call("train", "--resume", tmp_path, "--out", "x"), "--out: --resume goes on in")
    (tmp_path / "recipe.json").write_text('{"name": 3}')
    one_line(call("train", "--resume", tmp_path), "recipe.json: name: Input should be a valid")
    (tmp_path / "recipe.json").write_text('{"name": ')
    one_line(call("train", "--resume", tmp_path), "recipe.json: is not the recipe of a run")


def test_train_into_a_file(call, tmp_path):
    (tmp_path / "file").touch()
    result = call("train", "smoke_scenes", "--out", tmp_path / "file" / "run")
    one_line(result, "is a file")


def test_every_recipe_is_offered():
    known = recipes.known_recipes()
    assert {"lite_scenes", "smoke_scenes"} <= set(known)
    for name, make in known.items():
        assert recipes.find_recipe(name) == make()
    assert recipes.find_recipe("lite-scenes/sf2") == recipes.table1(recipes.lite_scenes())["sf2"]


# --- evaluate ---


def test_evaluate_prints_and_saves(call, model, tmp_path):
    from wsfcn.evaluate import Score

    file = tmp_path / "new" / "score.json"
    code, out, lines = call("evaluate", model, "--json", file, "--limit", 3, "--scales", 1, 0.5)
    assert code == 0 and not lines
    score = Score.read(file)
    assert score.images == 3 and score.protocol.scales == (1.0, 0.5)
    assert "mean (mIoU)" in out and "scales 1, 0.5; flip" in out


def test_evaluate_protocol_flags(call, model):
    code, out, _ = call(
        *f"evaluate {model} --flip off --image-labels on --background power".split(),
        *["--background-value", "3", "--limit", "1", "--markdown"],
    )
    assert code == 0 and out.startswith("| class")
    assert "no flip; image labels given; background power 3" in out


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("--background power", ["--background power needs --background-value"]),
        ("--class-filter 2", ["class_filter", "less than 1", "got 2"]),
        ("--size 5", ["size: needs 32 to 2048 px, got 5"]),
        ("--limit 0", ["limit"]),
        ("--scales 9", ["scales", "less than or equal to 4"]),
    ],
)
def test_evaluate_wrong_values(call, model, extra, words):
    one_line(call("evaluate", model, *extra.split()), *words)


def test_evaluate_named_protocol_and_canvas(call, model):
    code, out, _ = call("evaluate", model, "--protocol", "paper", "--limit", 1, "--scales", 1)
    assert code == 0 and "scales 1; flip; class filter 0.1; background constant 0.25" in out
    given = ["--protocol", "baseline_gt_labels+canvas", "--canvas", "256", "--limit", "1"]
    code, out, _ = call("evaluate", model, *given)
    assert code == 0 and "padded to 256 px; image labels given; background power 3" in out
    assert "split val" in out
    one_line(call("evaluate", model, "--protocol", "papre"), "did you mean 'paper'")


def test_evaluate_table_3(call, model, tmp_path):
    from wsfcn.evaluate import Score

    file = tmp_path / "table.json"
    code, out, _ = call("evaluate", model, "--table", 3, "--limit", 2, "--json", file)
    lines = out.splitlines()
    assert code == 0 and len(lines) == 5 and lines[0].split()[:2] == ["mIoU", "gain"]
    rows = {name: Score.from_dict(value) for name, value in json.loads(file.read_text()).items()}
    assert [*rows] == ["single scale", "flip", "multi-scale", "multi-scale + flip"]
    settings = [(row.protocol.flip, len(row.protocol.scales)) for row in rows.values()]
    assert settings == [(False, 1), (True, 1), (False, 4), (True, 4)]
    for line, (name, row) in zip(lines[1:], rows.items(), strict=True):
        assert line.startswith(name) and f"{100 * row.mean_iou:.2f}" in line
    one_line(call("evaluate", model, "--table", 3, "--save", tmp_path), "--table makes several")


def test_evaluate_saves_masks_a_tar_and_the_confusion(call, model, tmp_path):
    extra = [
        "--save",
        tmp_path / "m",
        "--tar",
        tmp_path / "m.tgz",
        "--confusion",
        tmp_path / "c.png",
    ]
    code, out, _ = call("evaluate", model, *extra)
    assert code == 0 and (tmp_path / "m.tgz").stat().st_size > 0 and "tar: " in out
    pictures = names(tmp_path / "m")
    assert pictures[-1] == "val-0-000003.png" and "protocol.json" in pictures
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    one_line(
        call("evaluate", model, "--limit", 1, *extra[:1], tmp_path / "n", *extra[2:4]), "no pred"
    )
    one_line(call("evaluate", model, "--tar", tmp_path / "x.tgz"), "--tar packs")
    one_line(call("evaluate", model, "--confusion", tmp_path), "is a folder")


def test_evaluate_broken_model(call, tmp_path):
    broken = tmp_path / "model.safetensors"
    broken.write_bytes(b"nonsense")
    one_line(call("evaluate", broken), "model.safetensors")


def test_evaluate_checks_the_output_before_the_model(call, tmp_path):
    one_line(call("evaluate", "no-model", "--json", tmp_path), "is a folder")


# --- segment ---


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_segment_a_folder(call, model, photos, tmp_path):
    out = tmp_path / "out"
    code, text, lines = call("segment", photos, "--model", model, "--out", out, "--size", 64)
    assert code == 0 and not lines
    assert names(out) == [
        f"{stem}.{end}" for stem in "ab" for end in ("json", "mask.png", "overlay.png")
    ]
    assert text.count("->") == 2
    assert json.loads((out / "a.json").read_text())["working_size"] == [64, 46]


def test_segment_without_a_model_knows_animals_in_photos(call, tmp_path):
    cat = Path(skimage.__file__).parent / "data/chelsea.png"
    code, text, lines = call("segment", cat, "--out", tmp_path)
    assert code == 0 and not lines and "chelsea.png: cat" in text
    told = json.loads((tmp_path / "chelsea.json").read_text())
    assert told["classes"] == ["background", "cat", "cow", "dog", "horse", "person", "sheep"]
    assert max(told["scores"], key=told["scores"].get) == "cat" and told["scores"]["cat"] > 0.5
    areas = {name: area for name, area in told["areas"].items() if name != "background"}
    assert max(areas, key=areas.get) == "cat"
    mask = np.asarray(Image.open(tmp_path / "chelsea.mask.png"))
    assert mask.shape == (300, 451) and (mask == 1).mean() == pytest.approx(told["areas"]["cat"])


def test_segment_takes_less_than_a_second(tmp_path):
    """A photo of 1000 x 750 px from file to label map, mirrored image included, network loaded."""
    cat = Image.open(Path(skimage.__file__).parent / "data/chelsea.png")
    cat.resize((1000, 750), Image.Resampling.BICUBIC).save(tmp_path / "cat.jpg", quality=92)
    network, seconds, threads = wsfcn.load("lite-voc"), [], torch.get_num_threads()
    torch.set_num_threads(1)  # waiting threads would count as work
    try:
        for _ in range(4):
            start = time.process_time()
            result = wsfcn.segment(network, tmp_path / "cat.jpg")
            seconds.append(time.process_time() - start)
        start = time.process_time()
        result.save(tmp_path, "cat")
        saved = time.process_time() - start
    finally:
        torch.set_num_threads(threads)
    protocol = result.protocol.describe()
    print(f"{min(seconds):.2f} s of a core, {saved:.2f} s more to save; {protocol}")
    assert result.protocol.scales == (1.0,) and result.protocol.flip
    assert min(seconds) < 1.5  # of one core: less than a second on two; 0.9 where it was measured


def test_segment_twice_in_the_photos_own_folder(call, model, photos):
    for _ in range(2):
        assert call("segment", photos, "--model", model, "--out", photos)[0] == 0
    assert len(names(photos)) == 2 + 6


def test_segment_never_writes_over_a_photo(call, model, photos):
    target = photos / "a.mask.png"
    (photos / "b.jpg").rename(target)
    before = target.read_bytes()
    result = call("segment", photos / "a.png", target, "--model", model, "--out", photos)
    assert result[0] == 1 and "a.mask.png: is an input" in result[2][0]
    assert target.read_bytes() == before


def test_segment_equal_stems_do_not_collide(call, model, photos, tmp_path):
    (photos / "sub").mkdir()
    for name in ("a.jpg", "sub/a.png"):
        Image.new("RGB", (40, 40), "red").save(photos / name)
    out = tmp_path / "out"
    code, *_ = call(
        "segment", photos, photos / "sub", photos / "a.png", "--model", model, "--out", out
    )
    assert code == 0
    masks = [name for name in names(out) if name.endswith("mask.png")]
    assert masks == ["a.mask.png", "a_2.mask.png", "a_png.mask.png", "b.mask.png"]


def malformed(folder: Path) -> dict[str, str]:
    """Files that are no usable image, with a word of the complaint."""
    whole = folder / "whole.png"
    Image.effect_noise((60, 60), 50).save(whole)
    data = whole.read_bytes()
    whole.unlink()
    (folder / "truncated.png").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no image")
    return {"truncated.png": "truncated", "empty.png": "empty", "text.jpg": "no image"}


@pytest.mark.parametrize("name", ["truncated.png", "empty.png", "text.jpg"])
def test_segment_one_bad_photo(call, model, tmp_path, name):
    word = malformed(tmp_path)[name]
    out = tmp_path / "out"
    one_line(call("segment", tmp_path / name, "--model", model, "--out", out), name, word)
    assert not out.exists()


def test_segment_goes_on_after_bad_photos(call, model, photos, tmp_path):
    bad = malformed(photos)
    out = tmp_path / "out"
    code, text, lines = call("segment", photos, photos / "gone.jpg", "--model", model, "--out", out)
    assert code == 1 and text.count("->") == 2
    assert len(lines) == len(bad) + 1
    assert len(names(out)) == 6


def odd_images(folder: Path) -> None:
    Image.new("CMYK", (40, 30), (10, 200, 20, 0)).save(folder / "cmyk.jpg")
    Image.fromarray(np.full((30, 40), 40000, np.uint16)).save(folder / "sixteen.png")
    Image.new("P", (40, 30), 3).save(folder / "palette.png")
    Image.new("L", (40, 30), 99).save(folder / "grey.png")
    Image.new("RGBA", (40, 30), (9, 9, 200, 100)).save(folder / "clear.png")
    frames = [Image.new("L", (40, 30), value) for value in (0, 120, 250)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])


def test_segment_unusual_images_work(call, model, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    odd_images(folder)
    code, text, lines = call("segment", folder, "--model", model, "--out", tmp_path / "out")
    assert code == 0 and text.count("->") == 6
    assert len(lines) == 1 and "moving.gif: only the first of 3 frames" in lines[0]


def test_segment_folder_without_photos(call, model, tmp_path):
    (tmp_path / "bare").mkdir()
    one_line(call("segment", tmp_path / "bare", "--model", model), "bare", "no image")


def test_output_below_a_file_is_refused_first(call, photos, tmp_path):
    (tmp_path / "file").touch()
    result = call("segment", photos, "--model", "no-model", "--out", tmp_path / "file" / "out")
    one_line(result, "cannot be a folder", "is a file")


def test_read_only_output_folder_is_refused_first(call, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    result = call("segment", photos, "--model", "no-model", "--out", tmp_path / "out")
    one_line(result, "cannot write there", "read-only")
    assert not (tmp_path / "out").exists()


def test_write_errors_are_lines_too(call, model, photos, tmp_path, monkeypatch):
    def refuse(self, data):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    out = tmp_path / "out"
    code, _, lines = call("segment", photos, "--model", model, "--out", out)
    assert code == 2 and len(lines) == 2
    assert all("Permission denied" in line for line in lines) and names(out) == []


def test_names_with_control_characters_stay_on_one_line(call, tmp_path):
    one_line(call("segment", tmp_path / "a\nb\x1b[31m.jpg"), r"a b\x1b[31m.jpg")


def test_html_like_and_unicode_names(call, model, tmp_path):
    photo = tmp_path / "<b>né & ü.png"
    Image.new("RGB", (40, 40), "green").save(photo)
    code, text, _ = call("segment", photo, "--model", model, "--out", tmp_path / "o")
    assert code == 0 and "<b>né & ü.png" in text


# --- segment with image labels ---


def test_segment_with_labels(call, model, photos, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("file,labels\na.png, cat; dog\nb.jpg, person\n", encoding="utf-8-sig")
    out = tmp_path / "out"
    code, *_ = call("segment", photos, "--model", model, "--out", out, "--labels", labels)
    assert code == 0
    record = json.loads((out / "a.json").read_text())
    assert record["protocol"]["image_labels"] is True
    assert set(record["areas"]) <= {"background", "cat", "dog"}


def test_photo_without_labels_fails_alone(call, model, photos, tmp_path):
    (photos / "labels.csv").write_text("a.png,cat\n")
    code, _, lines = call(
        "segment",
        photos,
        "--model",
        model,
        "--out",
        tmp_path / "o",
        "--labels",
        photos / "labels.csv",
    )
    assert code == 1 and len(lines) == 1 and "b.jpg: has no line in" in lines[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.png,cat\nb.jpg,persn", ["line 2", "unknown class 'persn'", "did you mean 'person'"]),
        ("a.png,zzz", ["line 1", "unknown class 'zzz'", "aeroplane"]),
        ("\n# note\nc.png,cat", ["line 3", "no image c.png"]),
        ("a.png,cat\na.png,dog", ["line 2", "already"]),
        ("a.png,", ["line 1", "no class"]),
        ("a.png", ["line 1", "1 column"]),
        ("a.png,cat,dog", ["line 1", "3 column"]),
        ("", ["holds no labels"]),
        ("file,labels\n", ["holds no labels"]),
        ('a.png,"cat', ["not a CSV"]),
    ],
)
def test_wrong_label_files(call, model, photos, tmp_path, text, words):
    (tmp_path / "labels.csv").write_text(text)
    out = tmp_path / "out"
    result = call(
        "segment", photos, "--model", model, "--out", out, "--labels", tmp_path / "labels.csv"
    )
    one_line(result, "labels.csv", *words)
    assert not out.exists()


def test_missing_and_binary_label_files(call, model, photos, tmp_path):
    base = ["segment", photos, "--model", model, "--labels"]
    one_line(call(*base, tmp_path / "none.csv"), "none.csv: no such label file")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00a")
    one_line(call(*base, tmp_path / "binary.csv"), "binary.csv: is not UTF-8")


# --- run ---


@pytest.fixture
def notebooks(monkeypatch):
    """Stands in for the notebook runner; keeps what it was given."""
    seen = {}
    module = types.ModuleType("wsfcn.study.notebooks")

    def run_notebook(path, parameters, output_folder, *, profile, again, keyed, cell_seconds):
        seen.update(path=path, parameters=parameters, folder=output_folder, profile=profile)
        seen.update(keyed=keyed, cell_seconds=cell_seconds)
        if "wrong" in parameters:
            raise SettingsError("wrong: no such parameter; did you mean 'epochs'?")
        return output_folder / Path(path).name

    module.run_notebook = run_notebook
    monkeypatch.setitem(sys.modules, "wsfcn.study.notebooks", module)
    return seen


@pytest.fixture
def notebook(tmp_path) -> Path:
    path = tmp_path / "n.ipynb"
    path.write_text("{}")
    return path


def test_run_passes_parameters(call, notebooks, notebook, tmp_path):
    (tmp_path / "p.yaml").write_text("epochs: 9\nname: scenes\n")
    code, out, _ = call(
        *["run", notebook, "-p", "epochs", "3", "-p", "who", "a cat", "-p", "sizes", "[1, 2]"],
        *["-y", tmp_path / "p.yaml", "--profile", "smoke", "--out", tmp_path / "o"],
    )
    assert code == 0 and "n.ipynb" in out
    # Texts stay texts: the notebook's schema knows what they mean.
    assert notebooks["parameters"] == {
        "epochs": "3",
        "name": "scenes",
        "who": "a cat",
        "sizes": "[1, 2]",
    }
    assert notebooks["profile"] == "smoke" and notebooks["folder"] == tmp_path / "o"
    assert notebooks["keyed"] and notebooks["cell_seconds"] is None


def test_run_wrong_parameter(call, notebooks, notebook):
    one_line(call("run", notebook, "-p", "wrong", 1), "no such parameter", "'epochs'")


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [", "3"])
def test_run_wrong_parameter_file(call, notebooks, notebook, tmp_path, text):
    (tmp_path / "p.yaml").write_text(text)
    one_line(call("run", notebook, "-y", tmp_path / "p.yaml"), "p.yaml")
    assert not notebooks


# --- the frame around commands ---


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (SettingsError("a: bad", "b: bad"), 2, ["a: bad; b: bad"]),
        (PermissionError(13, "Permission denied", "/x/y"), 2, ["/x/y: Permission denied"]),
        (MemoryError(), 2, ["MemoryError"]),
        (ValueError("first\n second"), 2, ["first second"]),
        (RuntimeError("odd"), 3, ["RuntimeError: odd", "WSFCN_DEBUG=1"]),
        (KeyError("k"), 3, ["KeyError"]),
    ],
)
def test_errors_become_lines_and_codes(call, monkeypatch, error, code, words):
    def command(argv):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "train", command)
    found, _, lines = call("train")
    assert found == code and len(lines) == 1
    assert all(word in lines[0] for word in words)


def test_debug_shows_the_traceback(monkeypatch):
    def command(argv):
        raise ValueError("seen")

    monkeypatch.setenv("WSFCN_DEBUG", "1")
    monkeypatch.setitem(cli.COMMANDS, "train", command)
    with pytest.raises(ValueError, match="seen"):
        cli.main(["train"])


def test_protocol_flags_rename_what_they_change():
    applied = flags.ProtocolFlags().applied
    assert applied(Protocol()) == Protocol()
    changed = flags.ProtocolFlags(scales=(1.0, 0.5), flip="off").applied(Protocol())
    assert changed.name == "scales 1x0.5" and not changed.flip
    given = applied(Protocol(), image_labels=True)
    assert given.name == "single-scale+flip, labels given"


def test_weights_are_exported_and_imported(call, tmp_path):
    recipe = recipes.smoke_scenes().change(
        {"model.pretrained": False, "model.strips": (1, 3, 5, 7)}
    )
    wsfcn.save(wsfcn.build_model(recipe), tmp_path / "small.safetensors")
    out = tmp_path / "theirs.pth"
    code, said, _ = call("weights", "export", tmp_path / "small.safetensors", out)
    assert code == 0 and "sha256" in said
    one_line(call("weights", "export", tmp_path / "small.safetensors", out), "exists already")
    # A network of our own shape does not fit the paper's, and every misfit is told.
    result = call("weights", "import", out, tmp_path / "again.safetensors")
    one_line(result, "does not fit paper_voc", "fca.conv1.weight has shape")
    assert not (tmp_path / "again.safetensors").exists()


def test_weights_mistakes_are_one_line(call, tmp_path):
    assert call("weights")[0] == 0
    one_line(call("weights", "inport"), "weights inport", "did you mean 'import'")
    (tmp_path / "x.pth").write_bytes(b"no weights")
    one_line(call("weights", "import", tmp_path / "x.pth", tmp_path / "y.safetensors"), "x.pth")
    missing = tmp_path / "missing.pth"
    one_line(call("weights", "import", missing, tmp_path / "y.safetensors"), "missing.pth")
    one_line(call("params", "--table", "3"), "--table")
