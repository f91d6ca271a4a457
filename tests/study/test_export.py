"""Notebooks as HTML: formulas, headings, links, outputs, explorers."""

from __future__ import annotations

import base64
import io
import json
import re
from xml.etree import ElementTree

import pytest
from nbformat import v4
from PIL import Image

from wsfcn.study.export import STATE, render_notebook, tex_to_mathml
from wsfcn.study.record import MIME

GAP = "\n\n"
FORMULAS = {
    r"y_c = \frac{\sum_i m_{c,i}\, x_{c,i}}{\epsilon + \sum_i m_{c,i}}": 2,
    r"\begin{aligned} a &= b \\ c &= d \end{aligned}": 2,
    r"M_c = \max\Bigl(0, \sum_{k=1}^{C} w_{c,k}\, F_k\Bigr)": 1,
    r"\mathbf{F} \in \mathbb{R}^{B\times C\times H\times W}": 1,
    r"p\log(\lambda + \bar m_c) < 1": 1,
    r"\begin{cases} 1 & x > 0 \\ 0 & \text{otherwise}\end{cases}": 2,
}


@pytest.mark.parametrize("tex", FORMULAS)
def test_formulas_become_well_formed_mathml(tex):
    source = tex_to_mathml(tex, block=True)
    root = ElementTree.fromstring(source)
    assert root.tag.endswith("}math")
    assert root.get("display") == "block"
    assert root.get("alttext") == tex
    assert "negative" not in source and "columnalign" not in source
    shown = "".join(root.itertext())
    assert "\\" not in shown and "&" not in shown


def test_scripts_keep_their_number_of_children():
    root = ElementTree.fromstring(tex_to_mathml(r"\max_{ij} M + \log_2 x", block=True))
    expected = {"msub": 2, "munder": 2, "msup": 2, "mover": 2, "mfrac": 2, "msubsup": 3}
    scripts = [node for node in root.iter() if node.tag.split("}")[1] in expected]
    assert len(scripts) == 2
    assert all(len(node) == expected[node.tag.split("}")[1]] for node in scripts)


@pytest.mark.parametrize("tex", [r"x_{", r"\nosuchcommand{x} < 1", r"\left( x"])
def test_what_cannot_be_converted_stays_readable(tex):
    code = tex_to_mathml(tex)
    assert code == f'<code class="tex">{tex.replace("<", "&lt;")}</code>'
    assert tex_to_mathml(tex, block=True) == f"<p>{code}</p>"


def text(source):
    return v4.new_markdown_cell(source)


def test_markdown_has_no_tex_left(executed):
    environment = r"\begin{align} a &= b \end{align}"
    source = rf"Inline $x^2$ and{GAP}$$y = \sqrt{{x}}$${GAP}{environment}{GAP}`$not math$`"
    html = render_notebook(executed("one", text(source))).body
    assert html.count("<math") == 3
    assert "<code>$not math$</code>" in html
    assert "(1)" not in html  # equation numbers
    assert "$" not in re.sub(r"<code>.*?</code>|alttext=\"[^\"]*\"", "", html)


def test_headings_get_ids_of_their_notebook(executed):
    source = "# Title $x$\n## Same\n## Same\n### Größe & *more*"
    notebook = render_notebook(executed("one", text(source)))
    assert [(level, place) for level, place, _ in notebook.headings] == [
        (1, "one/title-x"),
        (2, "one/same"),
        (2, "one/same-2"),
        (3, "one/größe-more"),
    ]
    assert '<h2 id="one/title-x">' in notebook.body
    assert '<h3 id="one/same-2">Same</h3>' in notebook.body


def test_links_within_the_course_stay_on_the_page(executed):
    source = (
        "[a](two.ipynb) [b](../two.ipynb#Some-Place) [c](#Here-Now) [d](three.ipynb) "
        "[e](https://example.org/x.html)"
    )
    path = executed("one", text(source))
    html = render_notebook(path, ["one", "two"]).body
    links = re.findall(r'href="([^"]*)"', html)
    assert links == ["#two", "#two/some-place", "#one/here-now", "https://example.org/x.html"]
    assert " d " in html
    html = render_notebook(path, ["two"], lambda name, place: f"{name}.html|{place}").body
    links = re.findall(r'href="([^"]*)"', html)
    assert links[:3] == ["two.html|", "two.html|two/some-place", "one.html|one/here-now"]


def test_pictures_beside_the_notebook_are_inlined(executed, tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    html = render_notebook(executed("one", text("![what it shows](a.png)"))).body
    assert 'alt="what it shows" src="data:image/png;base64,iVBORw=="' in html


def png(colour="red", size=(40, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def b64(content):
    return base64.b64encode(content).decode()


def shown(data, **metadata):
    return v4.new_output("display_data", data, metadata=metadata)


def code(source, *outputs, tags=(), **metadata):
    return v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)} | metadata)


def test_a_notebook_is_rendered_for_readers(executed):
    stream = v4.new_output("stream", name="stderr", text="half\rdone <b>\x1b[1A\n")
    path = executed(
        "01_one",
        text("# The title\n\nThe *first* paragraph with [a link](02_two.ipynb).\n\n## Part\n$x_1$"),
        code("n = 1", tags=["parameters"]),
        code("# Parameters\nn = 5\n", tags=["injected-parameters"]),
        code("plot()", shown({"image/png": b64(png())}, **{"image/png": {"alt": 'A "red" box'}})),
        code("record('miou', 0.5)", shown({MIME: {"name": "miou"}, "text/plain": "miou = 0.5"})),
        code(
            "record('all', values)",
            shown({MIME: {"name": "all", "value": ["<", 2]}, "text/plain": "all: 2 entries"}),
        ),
        code("x", stream),
        code("df", shown({"text/html": "<table></table><script>alert(1)</script>"})),
        wsfcn={"seconds": 94.2},
    )
    notebook = render_notebook(path, ["01_one", "02_two"])
    assert notebook.title == "The title"
    assert notebook.summary == "The <em>first</em> paragraph with a link."
    assert [place for _, place, _ in notebook.headings] == ["01_one/the-title", "01_one/part"]
    assert notebook.figure == png()
    assert notebook.alt == 'A "red" box'
    assert notebook.seconds == 94.2
    assert not notebook.failed and not notebook.alive
    body = notebook.body
    assert body.count('<span class="n">n</span>') == 1  # the defaults are gone
    assert '<pre class="record" tabindex="0">miou = 0.5</pre>' in body
    assert '<details class="record"><summary>all: 2 entries</summary>' in body
    assert '["&lt;", 2]</pre></details>' in body
    assert ">done &lt;b&gt;" in body and "half" not in body and "[1A" not in body
    assert "<table></table>" in body and "alert" not in body
    assert """alt='A "red" box'""" in body


def test_an_error_is_shown_and_said(executed):
    error = v4.new_output(
        "error", ename="ValueError", evalue="x", traceback=["\x1b[31mboom\x1b[0m"]
    )
    notebook = render_notebook(executed("bad", code("1 / 0", error)))
    assert notebook.failed
    assert 'class="ansi-red-fg">boom' in notebook.body


def test_a_picture_within_html_makes_the_thumbnail(executed):
    both = {"text/html": "<b>mask</b>", "image/png": b64(png("blue"))}
    notebook = render_notebook(executed("x", code("result", shown(both))))
    assert notebook.figure == png("blue")
    assert "<b>mask</b>" in notebook.body and "<img" not in notebook.body


VIEW = "application/vnd.jupyter.widget-view+json"


def widget(model_id, *, still=True):
    data = {VIEW: {"model_id": model_id}, "text/plain": "Explorer(...)"}
    return shown(data | ({"image/png": b64(png())} if still else {}))


def stored(**states):
    models = {name: {"state": state, "buffers": []} for name, state in states.items()}
    return {STATE: {"version_major": 2, "version_minor": 0, "state": models}}


def test_a_stored_explorer_comes_with_its_state_and_its_picture(executed):
    state = {"_esm": "export default {render() {'</script><!--'}}", "_css": "b {}", "n": [1, "é"]}
    path = executed("x", code("a", widget("one")), widgets=stored(one=state))
    notebook = render_notebook(path)
    assert notebook.alive and notebook.figure == png()
    assert notebook.body.count("<img") == 1
    [inside] = re.findall(r"<script[^>]*>(.*?)</script>", notebook.body, re.DOTALL)
    content = json.loads(inside)
    assert content["esm"] == state["_esm"] and content["css"] == "b {}"
    assert content["state"] == {"n": [1, "é"]}


def test_widgets_without_a_stored_script_leave_their_picture_alone(executed):
    cells = [
        code("a", widget("gone")),
        code("b", widget("box")),
        code("c", widget("b2", still=False)),
    ]
    path = executed("x", *cells, widgets=stored(box={"children": []}, b2={"children": []}))
    notebook = render_notebook(path)
    assert notebook.body.count("<img") == 2
    assert "Explorer(" not in notebook.body and "<script" not in notebook.body
    assert not notebook.alive


def test_what_would_be_fetched_is_left_out(executed):
    html = {"text/html": 'a<img class="x" src="https://example.org/a.png" alt="b">c'}
    frame = "<iframe src='//example.org'></iframe>d<img alt=e src=data:,>"
    cells = [
        code("a", shown(html)),
        code("b", shown({"text/html": frame})),
        text("![f](http://example.org/b.png) `<img src='http://x'>`"),
    ]
    body = render_notebook(executed("x", *cells)).body
    assert ">ac</div>" in re.sub(r"\s", "", body)
    assert 'd<img alt="e" src="data:,"/>' in body
    assert body.count("<img") == 1
    assert "<code>&lt;img src='http://x'&gt;</code>" in body
