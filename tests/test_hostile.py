"""Files of strangers: none runs code, leaves its folder, or asks for more memory than it has."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

import wsfcn
from wsfcn import build, cli, recipes
from wsfcn.data import Coco, Folder
from wsfcn.data.images import ImageError, read_image
from wsfcn.data.labels import LabelError, read_rows
from wsfcn.data.sample import DataError
from wsfcn.data.unpack import FetchError, unpack
from wsfcn.data.voc import Voc, read_mat
from wsfcn.settings import SettingsError
from wsfcn.study import sources
from wsfcn.study.parameters import PARAMETERS
from wsfcn.weights import WeightsError, read_pth, read_safetensors, write_safetensors

HTML = '<!--<script><img src=x onerror="alert(1)">"\'&</script><script>alert(2)</script>'


class Exploit:
    """Unpickled as it was meant, it leaves a file."""

    def __reduce__(self):
        return os.system, ("touch exploded",)


# --- weights ---


def saved_by_torch(path: Path) -> None:
    torch.save({"weight": torch.ones(1), "more": Exploit()}, path)


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": Exploit()}))


def old_pickle(path: Path) -> None:
    torch.save({"weight": Exploit()}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [saved_by_torch, bare_pickle, old_pickle])
@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model.pt"])
def test_a_pickle_with_code_is_refused_unexecuted(tmp_path, monkeypatch, capsys, write, name):
    monkeypatch.chdir(tmp_path)
    write(Path(name))
    ways = (
        lambda: read_pth(name),
        lambda: wsfcn.load(name),
        lambda: wsfcn.weights.load_published(name, recipes.paper_voc()),
        lambda: build.build_model(recipes.smoke_scenes().change({"model.pretrained": name})),
    )
    for way in ways:
        with pytest.raises(WeightsError, match=name):
            way()
    assert cli.main(["segment", __file__, "--model", name]) == 2
    assert cli.main(["weights", "import", name, "out.safetensors"]) == 2
    assert name in capsys.readouterr().err
    assert os.listdir() == [name]
    os.system("touch exploded")  # the check above would have seen it
    assert Path("exploded").exists()


def test_a_checkpoint_of_a_stranger_is_no_pickle(tmp_path):
    """Runs hold safetensors alone, so that a .pth put in its place is damaged at most."""
    from wsfcn.runs import RunFolder

    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / "step-00000001.safetensors"
    saved_by_torch(path)
    with (
        RunFolder(tmp_path, recipes.smoke_scenes(), resume=True) as run,
        pytest.warns(UserWarning, match="not a whole safetensors file"),
    ):
        assert run.newest() is None


def test_a_pth_that_would_unpack_to_more_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    torch.save({"weight": torch.zeros(1_000_000)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(path, "w", 8) as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    assert path.stat().st_size < 10_000
    with pytest.raises(WeightsError, match=r"bomb.pth: refused, it would unpack to more"):
        read_pth(path)


def test_tensors_of_other_kinds_are_refused(tmp_path):
    torch.save({"weight": torch.eye(3).to_sparse()}, tmp_path / "sparse.pth")
    with pytest.raises(WeightsError, match=r"sparse.pth: needs a flat table"):
        read_pth(tmp_path / "sparse.pth")


def test_a_safetensors_that_claims_more_than_it_holds(tmp_path):
    header = {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    for told in (header, {"a": header["a"] | {"data_offsets": [0, 4]}}):
        text = json.dumps(told).encode()
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
        with pytest.raises(WeightsError, match=r"a.safetensors: not a whole"):
            read_safetensors(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(WeightsError, match=r"a.safetensors: not a whole"):
        read_safetensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"recipe": [1]}, "header"),
        ({"recipe": {"name": "x", "model": {"width": 10**9}}, "classes": ["a"]}, "model.width"),
        ({"recipe": {"name": "x", "modle": {}}, "classes": ["a"]}, "modle"),
        ({"recipe": {"name": "x"}, "classes": "ab" * 200}, "400 classes"),
        ({"recipe": {"name": "x"}, "classes": [[]]}, "1 to 254 names"),
        ({"recipe": {"name": "x"}, "classes": []}, "0 classes"),
        ({"recipe": {"name": "x"}, "classes": 7}, "header"),
        (
            {"recipe": {"name": "x", "model": {"strips": [10**6 + 1] * 4}}, "classes": ["a"]},
            "strips",
        ),
        ({"recipe": {"name": "x", "model": {"rates": [1] * 17}}, "classes": ["a"]}, "rates"),
    ],
)
def test_a_header_that_is_no_recipe_is_named(tmp_path, header, words):
    write_safetensors(tmp_path / "a.safetensors", {"a": torch.ones(1)}, header)
    with pytest.raises(WeightsError, match=words) as caught:
        wsfcn.load(tmp_path / "a.safetensors")
    assert "a.safetensors" in str(caught.value) and len(str(caught.value)) < 500


def test_a_recipe_is_held_against_the_tensors_before_memory_is_taken(tmp_path, monkeypatch):
    """The largest network that settings allow would take gigabytes; the file holds a number."""
    recipe = recipes.paper_voc().change(
        {"model.width": 1024, "model.strips": (255,) * 16, "model.dilations": (1,) * 16}
    )
    header = {"recipe": recipe.model_dump(mode="json"), "classes": ["a"]}
    write_safetensors(tmp_path / "a.safetensors", {"decoder.0.weight": torch.ones(1)}, header)
    made = []
    usual = build.build_model
    monkeypatch.setattr(
        build, "build_model", lambda *a, **k: made.append(usual(*a, **k)) or made[-1]
    )
    with pytest.raises(WeightsError, match=r"does not fit the recipe in its header: decoder\.0"):
        wsfcn.load(tmp_path / "a.safetensors")
    assert [p.device.type for network in made for p in network.parameters()][:1] == ["meta"]
    assert len(made) == 1 and sum(p.numel() for p in made[0].parameters()) > 500e6


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "nul", "\ud800"])
def test_a_header_that_is_no_json(tmp_path, text):
    from safetensors.torch import save_file

    raw = json.dumps({"__metadata__": {"recipe": text}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    with pytest.raises(WeightsError, match=r"a.safetensors: "):
        wsfcn.load(tmp_path / "a.safetensors")
    assert save_file


# --- archives ---


def test_archives_that_unpack_out_of_all_proportion_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(150 << 20))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        info = tarfile.TarInfo("a")
        info.size = 150 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    (tmp_path / "a.tgz").write_bytes(buffer.getvalue())
    for name in ("a.zip", "a.tgz"):
        assert (tmp_path / name).stat().st_size < 1 << 20
        with pytest.raises(FetchError, match=rf"{name}: refused, it would unpack to 157.3 MB"):
            unpack(tmp_path / name, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["a.tgz", "a.zip"]


# --- images ---


def png(width: int, height: int, depth: int = 8, kind: int = 0, data: bytes = b"") -> bytes:
    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pictures(folder: Path) -> dict[str, str]:
    """Odd photos, with a word of the complaint about those that cannot be used."""
    grey = Image.effect_noise((40, 30), 60)
    grey.convert("1").save(folder / "one-bit.png")
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)).save(folder / "deep.png")
    grey.convert("CMYK").save(folder / "cmyk.jpg")
    grey.save(folder / "png-called.jpg", "PNG")
    grey.save(folder / "tiff-called.png", "TIFF")
    Image.new("RGB", (65_000, 2), "red").save(folder / "wide.png")
    Image.new("L", (1, 3000)).save(folder / "thin.png")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    (folder / "flat.png").write_bytes(png(0, 9))
    (folder / "bomb.png").write_bytes(png(60_000, 60_000))
    (folder / "lie.png").write_bytes(png(5000, 5000, data=b"short"))
    (folder / "torn.png").write_bytes((folder / "png-called.jpg").read_bytes()[:600])
    (folder / "empty.jpg").touch()
    return {
        "flat": "flat.png",
        "bomb": "pixels",
        "lie": "damaged",
        "torn": "damaged",
        "empty": "empty",
    }


def test_odd_photos_are_segmented_or_named(tmp_path, tiny_network, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    wrong = pictures(photos)
    wsfcn.save(tiny_network, tmp_path / "model.safetensors")
    out = tmp_path / "out"
    command = ["segment", str(photos), "--model", str(tmp_path / "model.safetensors")]
    assert cli.main([*command, "--out", str(out), "--size", "64"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("wsfcn: ")]
    assert len(lines) == len(wrong)
    for name, word in wrong.items():
        assert any(name in line and word in line for line in lines), (name, lines)
    for photo in photos.iterdir():
        if photo.stem not in wrong:
            with Image.open(out / f"{photo.stem}.mask.png") as mask, Image.open(photo) as image:
                assert mask.size == image.size


def test_no_program_is_started_for_a_file_that_calls_itself_a_photo(tmp_path, monkeypatch):
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    path = tmp_path / "photo.jpg"
    lines = "%!PS-Adobe-3.0 EPSF-3.0", "%%BoundingBox: 0 0 9 9", "%%EndComments", "showpage", ""
    path.write_text("\n".join(lines))
    with pytest.raises(ImageError, match=r"photo.jpg: is no image"):
        read_image(path)
    assert not (tmp_path / "started").exists()


# --- labels ---


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    return tmp_path


def test_formulas_and_marks_in_labels_are_only_names(folder):
    table = folder / "labels.csv"
    classes = ["=cmd|'/c calc'!A1", "@SUM(1)", "+1", "-1", HTML, "été"]
    text = "\ufefffile,class\n" + 'a.png,"{}"\n'.format("; ".join(classes).replace('"', '""'))
    table.write_text(text, encoding="utf-8")
    data = Folder(folder, "all")
    assert set(data.classes) == set(classes) and data[0].labels.sum() == len(classes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.png, x\0y", "line 1: holds control characters"),
        ("a.png, x\x1b[2Jy", "line 1: holds control characters"),
        ('a.png, x\n"b\n.png", y', "line 3: holds control characters"),
        ("a.png, x\na.png, y", "line 2: a.png already has labels"),
        ("a.png, " + "x" * 200_000, "field larger than field limit"),
        ("../a.png, x", "line 1: ../a.png is no file name inside"),
        ("/etc/passwd, x", "line 1: /etc/passwd is no file name inside"),
        ('a.png,"x', "is not a CSV file"),
    ],
)
def test_labels_that_cannot_be_used_are_named(folder, text, words):
    (folder / "labels.csv").write_text(text)
    with pytest.raises(LabelError) as caught:
        Folder(folder, "all")
    assert words in str(caught.value) and str(caught.value).isprintable()


def test_a_table_of_gigabytes_is_not_read(folder):
    with open(folder / "labels.csv", "wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(DataError, match=r"labels.csv: has 3,221,225,472 bytes"):
        read_rows(folder / "labels.csv")


# --- annotations ---


def instances(folder: Path, image: dict, outline, name: str = "instances_train2014") -> Path:
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "train2014").mkdir(exist_ok=True)
    Image.new("RGB", (20, 10)).save(folder / "train2014" / "a.jpg")
    image = {"id": 1, "file_name": "a.jpg", "height": 10, "width": 20} | image
    thing = {"image_id": 1, "category_id": 1, "segmentation": outline}
    found = {
        "images": [image],
        "annotations": [thing],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = folder / "annotations" / f"{name}.json"
    path.write_text(json.dumps(found))
    return path


SQUARE = [[0, 0, 4, 0, 4, 4, 0, 4]]


@pytest.mark.parametrize(
    ("image", "outline", "words"),
    [
        ({"height": 10**9, "width": 10**9}, SQUARE, "more than 80,000,000"),
        ({"height": -5}, SQUARE, "a size of 20 x -5"),
        ({"height": "10"}, SQUARE, "a size of"),
        ({"file_name": "../../secret.jpg"}, SQUARE, "no file name inside the folder"),
        ({"file_name": "/etc/passwd"}, SQUARE, "no file name inside the folder"),
        ({"file_name": "a\0.jpg"}, SQUARE, "no file name inside the folder"),
        ({}, [[0, 0, 1e12, 0, 4, 4]], "far outside the image"),
        ({}, [[0, 0, float("nan"), 0, 4, 4]], "far outside the image"),
        ({}, [[0, 0, 4, 0]], "needs three points"),
        ({}, [[0, 0, 4, 0, 4]], "needs three points"),
        ({}, {"counts": [2**31, 5], "size": [10, 20]}, "another number of pixels"),
        ({}, {"counts": [-5, 205], "size": [10, 20]}, "another number of pixels"),
        ({}, {"counts": [10**10], "size": [10**5, 10**5]}, "a code for"),
        ({}, {"counts": "zzzzzzzz", "size": [10, 20]}, "another number of pixels"),
        ({}, {"counts": "^i^^i^7", "size": [10, 20]}, "another number of pixels"),
        ({}, {"counts": 7, "size": [10, 20]}, "a code of"),
    ],
)
def test_annotations_that_lead_out_of_the_image_are_named(tmp_path, image, outline, words):
    pytest.importorskip("pycocotools")
    path = instances(tmp_path, image, outline)
    with pytest.raises(DataError) as caught:
        Coco(tmp_path)[0]
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_annotations_without_an_end(tmp_path):
    path = instances(tmp_path, {}, SQUARE)
    path.write_text('{"images": ' + "[" * 200_000)
    with pytest.raises(DataError, match="holds no instances as COCO writes them"):
        Coco(tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
        "<a><object><name>&b;</name></object></a>",
        "<!DOCTYPE a [<!ENTITY b0 'cat'>"
        + "".join(f"<!ENTITY b{i + 1} '{f'&b{i};' * 10}'>" for i in range(12))
        + "]><a><object><name>&b12;</name></object></a>",
        "x" * 2_000_000,
    ],
)
def test_annotations_in_xml_fetch_and_unfold_nothing(tmp_path, body):
    for place in ("JPEGImages", "Annotations", "ImageSets"):
        (tmp_path / place).mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "ImageSets" / "train.txt").write_text("a\n")
    (tmp_path / "Annotations" / "a.xml").write_text(body)
    with pytest.raises(DataError, match=r"a\.xml: ") as caught:
        Voc(tmp_path, "train", labels="xml")[0]
    assert "root:" not in str(caught.value)


def test_a_packed_mask_of_many_bytes_is_not_unpacked(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0" + bytes(1_000_000))
    with pytest.raises(DataError, match=r"a\.mat: has 1,000,010 bytes"):
        read_mat(tmp_path / "a.mat", 20)


# --- parameters ---

CODE = [
    "__import__('os').system('touch exploded')",
    '"; import os; os.system("touch exploded") #',
    "'''\nimport os\nos.system('touch exploded')\n'''",
    '\\"\\\nimport os',
    "{{ 1 }} %(x)s ${y}",
]


@pytest.mark.parametrize("code", CODE)
def test_code_in_a_parameter_stays_a_text(code):
    """As papermill writes it into the notebook, which is what would be executed."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    notebook = load_notebook_node(str(sources.find_notebook("07_failure_cases")))
    values = sources.resolve(PARAMETERS["07_failure_cases"], {"split": code})
    written = parameterize_notebook(notebook, values)
    [cell] = [c for c in written.cells if "injected-parameters" in c.metadata.get("tags", ())]
    found = {}
    for node in ast.parse(cell.source).body:
        assert isinstance(node, ast.Assign)
        found[node.targets[0].id] = ast.literal_eval(node.value)
    assert found == values and found["split"] == code


@pytest.mark.parametrize("code", CODE)
def test_code_in_a_name_or_in_another_type_is_refused(code):
    schema = PARAMETERS["07_failure_cases"]
    for wrong in ({code: 1}, {"mined": code}, {"photos": code}, {"profile": code}):
        with pytest.raises(SettingsError):
            sources.resolve(schema, wrong)


def test_a_parameters_cell_of_a_stranger_is_read_not_run(tmp_path):
    monkey = "import os\nos.system('touch exploded')\nx = 1"
    with pytest.raises(ValueError, match="line 1 is no plain assignment"):
        sources.assignments(monkey)
    with pytest.raises(ValueError, match="line 1 is no plain assignment"):
        sources.assignments("x = __import__('os').getcwd()")


UNFOLDING = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    "text",
    [
        "scenes: !!python/object/apply:os.system ['touch exploded']",
        "scenes: !!python/name:os.system",
        UNFOLDING,
        "[" * 20_000,
        "- 1",
        "3: 4",
        "\0",
    ],
)
def test_a_file_of_parameters_runs_and_unfolds_nothing(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(text)
    assert cli.main(["run", "01_cams", "--file", "p.yaml", "--out", "out"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "p.yaml" in line and len(line) < 1000
    assert os.listdir() == ["p.yaml"]


def test_a_value_without_end_is_told_in_short():
    value: list = ["x"]
    for _ in range(40):
        value = [value] * 9
    with pytest.raises(SettingsError) as caught:
        recipes.Train(epochs=value)
    assert len(str(caught.value)) < 300


# --- names with HTML in pages ---


class Tags(HTMLParser):
    """Names of all elements, and of all attributes that run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found += [tag, *(name for name, _ in attributes if name.startswith("on"))]


def harmless(page: str) -> bool:
    assert "alert(1)" in page  # the name is there
    found = Tags(page).found
    return "onerror" not in found and page.count("<script>alert") == 0


def test_names_in_pages_of_photos_and_findings(tmp_path, tiny_network):
    from wsfcn.data.check import check
    from wsfcn.predict import segment
    from wsfcn.show.gallery import Gallery
    from wsfcn.study.findings import save_page

    tiny_network.classes = (HTML, *tiny_network.classes[1:])
    labels = [HTML]
    protocol = tiny_network.recipe.protocol.change({"image_labels": True, "class_filter": 0.0})
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    result = segment(tiny_network, picture, protocol, labels=labels)
    gallery = Gallery()
    gallery.add(result, f"{HTML}.png")
    assert harmless(gallery.save(tmp_path / "gallery").read_text())
    shown = result._repr_html_()
    assert HTML not in shown and "onerror" not in Tags(shown).found
    Image.fromarray(picture).save(tmp_path / "a.png")
    quoted = HTML.replace('"', '""')
    (tmp_path / "labels.csv").write_text(f'a.png,"{quoted}"\nb.png,"{quoted}"\n')
    page = save_page(check(tmp_path), tmp_path / "findings.html").read_text()
    assert harmless(page)


def test_names_in_the_state_of_an_explorer_cannot_end_its_script(tmp_path):
    from wsfcn.study.page import build_page

    view = {"model_id": "m"}
    state = {"_esm": "export default {}", "names": [HTML]}
    cell = nbformat.v4.new_code_cell("explorer", execution_count=1)
    output = nbformat.v4.new_output(
        "display_data", {"application/vnd.jupyter.widget-view+json": view, "text/plain": "w"}
    )
    cell.outputs = [output]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), cell])
    key = "application/vnd.jupyter.widget-state+json"
    stored = {"m": {"model_name": "AnyModel", "model_module": "anywidget", "state": state}}
    notebook.metadata["widgets"] = {key: {"state": stored, "version_major": 2, "version_minor": 0}}
    nbformat.write(notebook, tmp_path / "a.ipynb")
    page = build_page(tmp_path / "out", [tmp_path / "a.ipynb"], title="T").read_text()
    assert harmless(page)
    start = page.index('<script type="application/json">')
    inside = page[start : page.index("</script>", start)].partition(">")[2]
    assert json.loads(inside)["state"]["names"] == [HTML]
