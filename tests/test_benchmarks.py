"""The benchmarks run, agree with themselves, and say so."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run():
    spec = importlib.util.spec_from_file_location("benchmarks_run", ROOT / "benchmarks" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_confusion_counts_agree_and_the_figures_are_written(run, tmp_path, capsys):
    code = run.main(["confusion", "--json", str(tmp_path / "new" / "b.json")])
    found = json.loads((tmp_path / "new" / "b.json").read_text())["benchmarks"]["confusion"]
    assert found["agree"] and found["ratio"] == found["seconds"][0] / found["seconds"][1]
    assert found["ratio"] > 20  # 100 on a machine at rest
    assert code == (0 if found["ratio"] >= 100 else 1)
    assert f"{found['ratio']:.1f} times faster (aim 100)" in capsys.readouterr().out


def test_a_missed_aim_and_a_disagreement_are_told(run, monkeypatch, capsys):
    def fake(agree, seconds):
        return lambda: {"ways": ["a", "b"], "seconds": seconds, "aim": 2, "agree": agree}

    for agree, seconds, word, code in (
        (True, [1.0, 0.1], "ok", 0),
        (True, [1.0, 0.9], "MISSED", 1),
        (False, [1.0, 0.1], "DO NOT AGREE", 1),
    ):
        monkeypatch.setitem(run.BENCHMARKS, "fake", fake(agree, seconds))
        assert run.main(["fake"]) == code and word in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run.main(["nothing"])
