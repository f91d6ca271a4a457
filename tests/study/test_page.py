from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from nbformat import v4
from PIL import Image

from wsfcn.study.page import Bars, Picture, Score, build_page
from wsfcn.study.sources import NotebookError


def png(colour="red", size=(40, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def shown(data, **metadata):
    return v4.new_output("display_data", data, metadata=metadata)


def code(source, *outputs, tags=(), **metadata):
    return v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)} | metadata)


def full(executed, name="01_one"):
    picture = base64.b64encode(png()).decode()
    return executed(
        name,
        v4.new_markdown_cell("# The title\n\nText, [a link](02_two.ipynb).\n\n## Part\n$x_1$"),
        code("plot()", shown({"image/png": picture}, **{"image/png": {"alt": 'A "red" box'}})),
        wsfcn={"seconds": 94.2},
    )


class Checker(HTMLParser):
    """Collects what a browser would load, ids, and what lacks a text; checks the nesting."""

    EMPTY = ("meta", "link", "img", "br", "hr", "input", "mspace")

    def __init__(self):
        super().__init__()
        self.loads, self.ids, self.links, self.open, self.bare = [], [], [], [], []
        self.tags = []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.loads += [attrs[key] for key in ("src", "srcset", "data", "poster") if key in attrs]
        self.loads += [attrs["href"]] if tag == "link" else []
        self.links += [attrs["href"]] if tag == "a" else []
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "img" and not attrs.get("alt"):
            self.bare.append(attrs)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def checked(path):
    checker = Checker()
    text = path.read_text(encoding="utf-8")
    checker.feed(text)
    return text, checker


def build(executed, tmp_path, **options):
    notebooks = [full(executed), executed("02_two", v4.new_markdown_cell("Only text, no title."))]
    return build_page(
        tmp_path / "page",
        notebooks,
        title="A <course>",
        lead="About & about",
        scores=[Score("mIoU", "61.3 %", "single scale"), Score("CAM", "45.0 %")],
        pictures=[Picture(Image.new("RGBA", (30, 20)), "A see-through box", "Caption")],
        tables=[Bars("Classes", {"cat": 50.0, "dog": 130.0, "none": float("nan")})],
        facts={"seed": 0},
        credits=["By others, CC BY-SA 4.0"],
        **options,
    )


def test_the_page_needs_nothing_else(executed, tmp_path):
    path = build(executed, tmp_path)
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]
    text, checker = checked(path)
    assert checker.open == []
    assert checker.loads and all(source.startswith("data:") for source in checker.loads)
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:)", text)
    assert "script" not in checker.tags
    assert "default-src 'none'" in text
    assert checker.bare == []
    assert len(checker.ids) == len(set(checker.ids))
    places = {link[1:] for link in checker.links if link.startswith("#")}
    assert places <= set(checker.ids)
    assert {"01_one", "02_two", "scores", "masks", "notebooks", "facts"} <= places
    assert len(checker.links) == len([link for link in checker.links if link.startswith("#")])


def test_texts_are_escaped_and_shown(executed, tmp_path):
    text, _ = checked(build(executed, tmp_path))
    assert "<h1>A &lt;course&gt;</h1>" in text
    assert "About &amp; about" in text
    assert "61.3 %" in text and "single scale" in text
    assert "By others, CC BY-SA 4.0" in text
    assert "ran in 1 min 34 s" in text
    assert [f'style="width:{n}%"' in text for n in ("50.0", "100", "0")] == [True] * 3
    assert "130.0 %" in text and ">none<" in text and "nan" not in text
    assert 'alt="A &#34;red&#34; box"' in text  # the thumbnail on the overview


def test_a_page_without_anything_is_one(tmp_path):
    text, checker = checked(build_page(tmp_path, [], title="Bare"))
    assert checker.open == [] and "<h1>Bare</h1>" in text
    assert "<section" not in text and checker.links == []


def test_notebooks_apart_are_files_that_lead_to_each_other(executed, tmp_path):
    notebooks = [
        full(executed),
        executed("02_two", v4.new_markdown_cell("[one](01_one.ipynb#Part)")),
    ]
    index = build_page(tmp_path / "page", notebooks, title="Gallery", apart=True)
    names = ["01_one.html", "02_two.html", "index.html"]
    assert sorted(p.name for p in index.parent.iterdir()) == names
    pages = {p.name: checked(p) for p in index.parent.iterdir()}
    assert pages["index.html"][1].links[1:] == names[:2]  # the first leads to the cards
    assert "ran in 1 min 34 s" in pages["index.html"][0] and "x_1" not in pages["index.html"][0]
    assert "01_one.html#01_one/part" in pages["02_two.html"][1].links
    for _, checker in pages.values():
        assert checker.open == [] and all(source.startswith("data:") for source in checker.loads)
        for link in checker.links:
            name, _, place = link.partition("#")
            assert not place or place in (pages[name][1] if name else checker).ids


def test_a_card_asks_the_question_of_the_notebook(executed, tmp_path):
    page = build_page(
        tmp_path / "page", [executed("01_cams", v4.new_markdown_cell("Long."))], title="x"
    )
    assert "<p>Why a class activation map finds half an object.</p>" in page.read_text()


def test_wrong_input_leaves_the_old_page(executed, tmp_path):
    path = build_page(tmp_path, [], title="Old")
    old = path.read_text()
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{")
    with pytest.raises(NotebookError, match=r"broken\.ipynb: is not a notebook"):
        build_page(tmp_path, [broken], title="New")
    with pytest.raises(ValueError, match="needs a text for alt"):
        build_page(tmp_path, [], title="New", pictures=[Picture(Image.new("L", (2, 2)), " ")])
    (tmp_path / "other").mkdir()
    copy = executed("a").rename(tmp_path / "other/a.ipynb")
    with pytest.raises(ValueError, match="two notebooks have the same name"):
        build_page(tmp_path, [executed("a"), copy], title="New")
    with pytest.raises(NotADirectoryError):
        build_page(path, [], title="New")
    assert path.read_text() == old


def test_large_pictures_are_scaled_and_small_drawings_kept_exact(tmp_path):
    large = Picture(Image.new("RGB", (4000, 1000)), "A large picture")
    mask = Image.new("P", (20, 20), 1)
    mask.putpalette([0, 0, 0, 200, 30, 40])
    _, checker = checked(
        build_page(tmp_path, [], title="x", pictures=[large, Picture(mask, "A mask")])
    )
    sources = [s for s in checker.loads if s.startswith("data:image")]
    images = [Image.open(io.BytesIO(base64.b64decode(s.split(",")[1]))) for s in sources]
    assert [image.size for image in images] == [(1600, 400), (20, 20)]
    assert images[1].convert("RGB").getcolors() == [(400, (200, 30, 40))]
