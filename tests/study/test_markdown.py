from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from wsfcn.study.markdown import Renderer, tex_to_mathml

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


def test_markdown_has_no_tex_left():
    environment = r"\begin{align} a &= b \end{align}"
    source = rf"Inline $x^2$ and{GAP}$$y = \sqrt{{x}}$${GAP}{environment}{GAP}`$not math$`"
    html = Renderer("one", [], ".").render(source)
    assert html.count("<math") == 3
    assert "<code>$not math$</code>" in html
    assert "(1)" not in html  # equation numbers
    assert "$" not in re.sub(r"<code>.*?</code>|alttext=\"[^\"]*\"", "", html)


def test_headings_get_ids_of_their_notebook():
    renderer = Renderer("one", ["one", "two"], ".")
    html = renderer.render("# Title $x$\n## Same\n## Same\n### Größe & *more*")
    assert [(level, place) for level, place, _ in renderer.headings] == [
        (1, "one/title-x"),
        (2, "one/same"),
        (2, "one/same-2"),
        (3, "one/größe-more"),
    ]
    assert html.startswith('<h2 id="one/title-x">')
    assert '<h3 id="one/same-2">Same</h3>' in html


def test_links_within_the_course_stay_on_the_page():
    renderer = Renderer("one", ["one", "two"], ".")
    html = renderer.render(
        "[a](two.ipynb) [b](../two.ipynb#Some-Place) [c](#Here-Now) [d](three.ipynb) "
        "[e](https://example.org/x.html)"
    )
    links = re.findall(r'href="([^"]*)"', html)
    assert links == ["#two", "#two/some-place", "#one/here-now", "https://example.org/x.html"]
    assert "<span>d</span>" in html


def test_pictures_beside_the_notebook_are_inlined(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    html = Renderer("one", [], str(tmp_path)).render("![what it shows](a.png)")
    assert '<img src="data:image/png;base64,iVBORw==" alt="what it shows"' in html
