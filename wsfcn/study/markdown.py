"""Markdown and formulas as HTML that needs nothing from outside: TeX becomes MathML."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping
from typing import Any

from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

# Environments that the converter does not know, and what browsers no longer know of MathML.
TEX_NAMES = (("{aligned}", "{align*}"), ("{split}", "{align*}"), ("{gathered}", "{align*}"))
MATHML_NAMES = (
    ('"negativethinmathspace"', '"-0.167em"'),
    ('"negativemediummathspace"', '"-0.222em"'),
    ('columnalign="left"', 'style="text-align:left"'),
    ('columnalign="right"', 'style="text-align:right"'),
)
FUNCTION = re.compile(r"<m([io])>(arg|cos|det|dim|exp|inf|lim|log|max|min|Pr|sin|sup|tanh?)</m\1>")


def tex_to_mathml(tex: str, block: bool = False) -> str:
    """A formula as a MathML element; as its own TeX, in code, where it cannot be converted."""
    from latex2mathml.converter import convert

    source = tex.strip()
    for name, known in TEX_NAMES:
        source = source.replace(name, known)
    try:
        mathml = convert(source, display="block" if block else "inline")
    except Exception:  # the converter has an error class of its own for each kind of fault
        mathml = ""
    if not mathml or "<mi>\\" in mathml:  # the latter: a command that it does not know
        code = f'<code class="tex">{html.escape(tex.strip())}</code>'
        return f"<p>{code}</p>" if block else code
    for name, known in MATHML_NAMES:
        mathml = mathml.replace(name, known)
    space = '<mspace width="0.167em"/>'
    mathml = FUNCTION.sub(rf"<mrow>{space}<mi>\2</mi>{space}</mrow>", mathml)
    text = html.escape(" ".join(tex.split()), quote=True)
    return mathml.replace("<math ", f'<math alttext="{text}" ', 1)


class Renderer(IPythonRenderer):
    """Markdown of one notebook among others on a page.

    Headings get ids that start with the notebook's name and are collected in `headings`
    as (level, id, HTML); links to other notebooks on the page lead to their place on it.
    """

    def __init__(self, name: str, others: Collection[str], folder: str) -> None:
        super().__init__(escape=False, embed_images=True, path=folder)
        self.name, self.others = name, others
        self.headings: list[tuple[int, str, str]] = []

    def render(self, source: str, attachments: Mapping[str, Any] | None = None) -> str:
        """One cell's markdown as HTML."""
        self.attachments = dict(attachments or {})
        return MarkdownWithMath(renderer=self).render(source)

    def heading(self, text: str, level: int, **_: Any) -> str:
        """A heading with an id; one level down, for the page has the first for itself."""
        plain = re.sub(r"<annotation.*?</annotation>|<[^>]*>", "", text)
        slug = f"{self.name}/{_slug(plain)}"
        taken = [known for _, known, _ in self.headings]
        number = 2
        while slug in taken:
            slug, number = f"{self.name}/{_slug(plain)}-{number}", number + 1
        self.headings.append((level, slug, text))
        tag = f"h{min(level + 1, 6)}"
        return f'<{tag} id="{html.escape(slug)}">{text}</{tag}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A link; those within the course stay on the page."""
        target, _, place = url.partition("#")
        stem = target.removesuffix(".ipynb").rsplit("/", 1)[-1]
        if not target and place:
            url = f"#{self.name}/{_slug(place)}"
        elif target.endswith(".ipynb"):
            if stem not in self.others:
                return f"<span>{text}</span>"
            url = f"#{stem}/{_slug(place)}" if place else f"#{stem}"
        return str(super().link(text, url, title))

    def block_math(self, body: str) -> str:
        """A formula on its own line."""
        return tex_to_mathml(body, block=True)

    def inline_math(self, body: str) -> str:
        """A formula in the text."""
        return tex_to_mathml(body)

    def latex_environment(self, name: str, body: str) -> str:
        """A formula that is an environment of its own."""
        starred = name if name.endswith("*") else f"{name}*"  # no equation numbers
        return tex_to_mathml(rf"\begin{{{starred}}}{body}\end{{{starred}}}", block=True)


def _slug(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", html.unescape(text)).strip("-").lower() or "section"
