from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbformat import v4
from PIL import Image

from wsfcn.study.page import Picture, Score, Table, build_page
from wsfcn.study.record import MIME
from wsfcn.study.render import render_notebook, settle
from wsfcn.study.sources import NotebookError


def png(colour="red", size=(40, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def shown(data, **metadata):
    return v4.new_output("display_data", data, metadata=metadata)


@pytest.fixture
def executed(tmp_path):
    """executed(name, *cells) -> path of a notebook as a run leaves it."""

    def build(name, *cells, **metadata):
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(v4.new_notebook(cells=list(cells), metadata=metadata), path)
        return path

    return build


def code(source, *outputs, tags=(), **metadata):
    return v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)} | metadata)


def full(executed, name="01_one"):
    picture = base64.b64encode(png()).decode()
    return executed(
        name,
        v4.new_markdown_cell(
            "# The title\n\nThe *first* paragraph with [a link](02_two.ipynb).\n\n## Part\n$x_1$"
        ),
        code("n = 1", tags=["parameters"]),
        code("# Parameters\nn = 5\n", tags=["injected-parameters"]),
        code("plot()", shown({"image/png": picture}, **{"image/png": {"alt": 'A "red" box'}})),
        code("record('miou', 0.5)", shown({MIME: {"name": "miou"}, "text/plain": "miou = 0.5"})),
        code("x", v4.new_output("stream", name="stderr", text="  5%|#   | 1/20 [00:0\rdone\n")),
        code("df", shown({"text/html": "<table></table><script>alert(1)</script>"})),
        v4.new_markdown_cell("Because.", metadata={"tags": ["solution"]}),
        code("assert True", tags=["solution"]),
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
        tables=[Table("Classes", ["class", "IoU"], [["cat", 50.0], ["dog", 130.0]], bar="IoU")],
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
    assert 'style="width:50.0%"' in text and 'style="width:100.0%"' in text
    assert 'alt="A &#34;red&#34; box"' in text  # the thumbnail on the overview


def test_a_page_without_anything_is_one(tmp_path):
    text, checker = checked(build_page(tmp_path, [], title="Bare"))
    assert checker.open == [] and "<h1>Bare</h1>" in text
    assert "<section" not in text and checker.links == []


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


def test_a_notebook_is_rendered_for_readers(executed):
    notebook = render_notebook(full(executed), ["01_one", "02_two"])
    assert notebook.title == "The title"
    assert notebook.summary == "The <em>first</em> paragraph with a link."
    assert [place for _, place, _ in notebook.headings] == ["01_one/the-title", "01_one/part"]
    assert notebook.figure == png()
    assert notebook.alt == 'A "red" box'
    assert notebook.seconds == 94.2
    assert not notebook.failed
    body = notebook.body
    assert "Parameters of this run" in body
    assert body.count("n</span>") == 1  # the defaults and papermill's comment are gone
    assert "# Parameters" not in body
    assert '<pre class="record" tabindex="0">miou = 0.5</pre>' in body
    assert '<pre class="stderr" tabindex="0">done</pre>' in body
    assert "<table></table></div>" in body and "alert" not in body
    assert body.count("<summary>Solution</summary>") == 1
    assert 'alt="A &quot;red&quot; box"' in body


def test_an_error_is_shown_and_said(executed):
    error = v4.new_output(
        "error", ename="ValueError", evalue="x", traceback=["\x1b[31mboom\x1b[0m"]
    )
    notebook = render_notebook(executed("bad", code("1 / 0", error)))
    assert notebook.failed
    assert 'class="ansi-red-fg">boom' in notebook.body


def test_figures_without_a_text_are_named_by_their_section(executed):
    picture = {"image/png": base64.b64encode(png()).decode()}
    cells = [
        v4.new_markdown_cell("## Curves & *more*"),
        code("a", shown(picture)),
        code("b", shown(picture), alt="Loss over epochs"),
    ]
    body = render_notebook(executed("x", *cells)).body
    assert re.findall(r'alt="([^"]*)"', body) == [
        "Figure of the section Curves &amp; more",
        "Loss over epochs",
    ]


def test_a_picture_within_html_makes_the_thumbnail(executed):
    both = {"text/html": "<b>mask</b>", "image/png": base64.b64encode(png("blue")).decode()}
    notebook = render_notebook(executed("x", code("result", shown(both))))
    assert notebook.figure == png("blue")
    assert "<b>mask</b>" in notebook.body and "<img" not in notebook.body


def test_live_widgets_leave_no_trace_of_their_names(executed):
    view = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "VBox(...)"}
    fallback = view | {"image/png": base64.b64encode(png()).decode()}
    body = render_notebook(executed("x", code("a", shown(view)), code("b", shown(fallback)))).body
    assert "VBox" not in body
    assert body.count("<img") == 1


def test_what_would_be_fetched_is_left_out(executed):
    html = {"text/html": 'a<img class="x" src="https://example.org/a.png" alt="b">c'}
    cells = [
        code("a", shown(html)),
        code(
            "b",
            shown({"text/html": "<iframe src='//example.org'></iframe>d<img alt=e src=data:,>"}),
        ),
        v4.new_markdown_cell("![f](http://example.org/b.png) `<img src='http://x'>`"),
    ]
    body = render_notebook(executed("x", *cells)).body
    assert "ac</div>" in body
    assert "d<img alt=e src=data:,>" in body
    assert body.count("<img") == 1
    assert "<code>&lt;img src='http://x'&gt;</code>" in body


def test_settle_shows_what_a_terminal_would():
    assert settle("a\rb\rc\nd\n") == "c\nd"
    assert settle("  0%|   | 0/20 [00:00<?, ?it/s]\r100%|###| 20/20 [00:01<00:00]\nok\n") == "ok"
    assert settle("up\x1b[A\x1b[31mred\x1b[0m") == "up\x1b[31mred\x1b[0m"
    assert settle("50% | of all\n") == "50% | of all"


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
