from __future__ import annotations

from wsfcn.study import course
from wsfcn.study.gallery import main


def test_every_notebook_becomes_a_page_and_is_run_once(
    write_notebook, parameters, tmp_path, monkeypatch, capsys
):
    text = ("markdown", "# Tiny\n\nA question?", {})
    paths = [write_notebook([text, parameters("n = 3"), "n"], name) for name in ("01_a", "02_b")]
    monkeypatch.setattr(course, "notebooks", lambda folder: paths)
    arguments = ["--out", str(tmp_path / "out"), "--executed", str(tmp_path / "runs")]
    for _ in range(2):
        assert main(arguments) == 0
    assert capsys.readouterr().out.count("unchanged, kept") == 2
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["01_a.html", "02_b.html", "index.html"]
    index = (tmp_path / "out/index.html").read_text()
    assert 'href="02_b.html">Tiny</a>' in index and "A question?" in index
