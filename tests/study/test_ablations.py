"""Scores over rows and seeds: what is measured, kept, refused; intervals against scipy's."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from scipy import stats

from wsfcn import recipes
from wsfcn.data.sample import Sample
from wsfcn.evaluate import evaluate
from wsfcn.protocols import Protocol
from wsfcn.settings import SettingsError
from wsfcn.show import ablations as draw
from wsfcn.study import ablations as study
from wsfcn.study import params

CLASSES = 4


def run_of(row, seed, hits, **more):
    """A run on images of 100 px, half class 1: hits of each image, the rest called background."""
    counts = {f"{i:02d}": [0, 50, 100 - h, 1, h, 50] for i, h in enumerate(hits)}
    whole = study.counts_of({"counts": counts, "classes": CLASSES}).sum(0)
    rates = {"mIoU": float(study.mean_iou(whole)), "PixAcc": 50.0, "boundary IoU": 40.0}
    about = {"protocol": "single", "classes": CLASSES, "labels given": 60.0, "parameters, M": 1.0}
    return {"row": row, "seed": seed, **rates, **about, "counts": counts} | more


@pytest.fixture
def runs():
    """Two rows over three seeds on twelve images; the second gains about two hits an image."""
    random, made = np.random.default_rng(0), []
    ease = random.integers(10, 40, 12)
    for row, seed in product(("baseline", "sf2"), range(3)):
        noise = random.integers(-1, 2, 12)
        made.append(run_of(row, seed, (ease + noise + 2 * (row == "sf2")).tolist()))
    return made


class Stripes:
    """Images of several sizes in red, green and blue with ignored pixels, of the toy's classes."""

    classes, split = ("red", "green", "blue"), "val"

    def __len__(self):
        return 5

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        shape = (40, 48) if index % 2 else (32, 32)
        image = random.integers(0, 255, (*shape, 3), np.uint8)
        image[:16] = np.eye(3, dtype=np.uint8)[index % 3] * 250
        mask = random.choice(np.array([0, 1, 2, 3, 255], np.uint8), shape)
        mask[:16] = index % 3 + 1
        return Sample(f"{9 - index}", image, np.eye(3, dtype=np.float32)[index % 3], mask)


def test_a_measurement_is_the_score_and_its_counts_add_up_to_it(toy_network):
    network, data, protocol = toy_network(), Stripes(), Protocol()
    run = study.measure(network, data, protocol)
    score = evaluate(network, data, protocol, progress=False)
    wanted = (score.mean_iou, score.pixel_accuracy, score.boundary_iou, *score.size_iou.values())
    names = ("mIoU", "PixAcc", "boundary IoU", *score.size_iou)
    for name, value in zip(names, wanted, strict=True):
        assert run[name] is None if np.isnan(value) else abs(run[name] - 100 * value) < 1e-3
    assert run["protocol"] == score.protocol.describe()
    assert [*run["counts"]] == sorted(run["counts"]) and len(run["counts"]) == len(data)
    assert json.loads(json.dumps(run)) == run
    whole = study.counts_of(run).sum(0)
    assert abs(float(study.mean_iou(whole)) - 100 * score.mean_iou) < 1e-6
    matrix = np.array(score.confusion)
    np.testing.assert_array_equal(whole[0], matrix.diagonal())
    np.testing.assert_array_equal(whole[1], matrix.sum(0) + matrix.sum(1) - matrix.diagonal())
    assert len(study.measure(network, data, protocol, limit=2)["counts"]) == 2


def test_the_interval_is_students():
    values = [1.5, -0.5, 2.0, 0.25]
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    mean, low, high = study.interval(values)
    assert mean == np.mean(values)
    np.testing.assert_allclose((low, high), wanted)
    assert np.isnan(study.interval([1.0])[1:]).all()


def test_a_gain_is_over_the_baseline_of_the_same_seed(runs):
    table = study.frame(runs)
    gains = study.gains(table)
    assert [*gains.index] == ["sf2"] and [*gains.columns] == [0, 1, 2]
    scores = {(r["row"], r["seed"]): r["mIoU"] for r in runs}
    for seed in range(3):
        assert gains.loc["sf2", seed] == scores["sf2", seed] - scores["baseline", seed]
    lost = study.gains(study.frame(runs[:-1])).loc["sf2"]
    assert np.isnan(lost[2]) and lost[[0, 1]].notna().all()


def test_the_bootstrap_draws_whole_images_and_the_same_for_both(runs):
    first, second = runs[0], runs[3]
    drawn = study.resampled([first], draws=200, seed=4)
    counts = study.counts_of(first)
    share = np.full(12, 1 / 12)
    weights = np.random.default_rng(4).multinomial(12, share, 200)
    for value, weight in zip(drawn, weights, strict=True):
        again = np.repeat(counts, weight, axis=0)
        assert len(again) == 12
        assert value == pytest.approx(float(study.mean_iou(again.sum(0))))
    paired = study.resampled([second], 200, 4) - drawn
    unpaired = study.resampled([second], 200, 5) - drawn
    assert paired.std() < 0.5 * unpaired.std()
    np.testing.assert_array_equal(study.resampled([first], 200, 4), drawn)
    both = study.resampled([first, second], 200, 4)
    np.testing.assert_allclose(both, drawn + paired / 2)


def test_effects_say_gain_intervals_and_the_papers_gain(runs):
    summary = study.effects(runs)
    gains = study.gains(study.frame(runs)).loc["sf2"]
    line = summary.loc["sf2"]
    np.testing.assert_allclose(
        line[["gain", "seeds low", "seeds high"]].astype(float), study.interval(gains)
    )
    assert line["images low"] < line["gain"] < line["images high"]
    assert line["paper"] == pytest.approx(1.07)
    assert np.isnan(summary.loc["baseline", "gain"]) and summary["seeds"].tolist() == [3, 3]
    single = study.effects([runs[0], runs[3]]).loc["sf2"]
    assert np.isnan(single["seeds low"]) and single["images low"] < single["images high"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"protocol": "with flip"}, "protocol: .*single.*with flip|protocol: .*with flip.*single"),
        ({"classes": 5}, "classes: .*4.*5"),
        ({"counts": {"00": [0, 1, 1]}}, "images: .*"),
    ],
)
def test_runs_that_were_made_differently_are_not_put_into_one_table(runs, change, named):
    with pytest.raises(SettingsError, match=named):
        study.frame([*runs, run_of("fca", 0, [1] * 12) | change])


def test_the_papers_rows_are_those_of_its_tables():
    parameters = {row: v for table in params.PAPER.values() for row, v in table.items()}
    assert parameters.keys() == study.PAPER.keys()
    assert {*study.rows_of(1, recipes.lite_scenes())} <= {*study.PAPER}
    second = [*study.rows_of(2, recipes.lite_scenes())]
    assert second[0] == "baseline" and {*second} <= {*study.PAPER} and len(second) == 9
    base = study.PAPER["baseline"]
    printed = {"mclm": (1.33, 0.83), "fca": (1.75, 0.97), "sf2": (1.07, 1.42), "full": (2.30, 1.74)}
    for row, gains in printed.items():
        np.testing.assert_allclose(np.subtract(study.PAPER[row], base), gains)
    assert study.PAPER_TABLE3["flip"] == study.PAPER["full"]


@pytest.fixture(scope="module")
def tiny():
    """The smoke recipe on even fewer scenes: seconds a training."""
    changes = {"name": "tiny", "data.train": 8, "data.val": 3, "train.epochs": 1}
    return recipes.smoke_scenes().change(changes | {"train.warmup_epochs": 0})


@pytest.mark.timeout(300)
def test_a_sweep_goes_on_where_it_stopped_and_refuses_other_settings(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path / "cache"))
    out, rows = tmp_path / "scores" / "tiny.json", study.rows_of(1, tiny)
    nothing = study.sweep(tiny, rows, [0], out, finished=True)
    assert nothing["runs"] == [] and not out.exists()
    study.sweep(tiny, {"baseline": rows["baseline"]}, [0], out)
    first = study.read(out)["runs"]
    monkeypatch.setattr(study, "measure", lambda *_, **__: pytest.fail("is scored already"))
    assert study.sweep(tiny, {"baseline": rows["baseline"]}, [0], out)["runs"] == first
    monkeypatch.undo()
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path / "cache"))
    records = study.sweep(tiny, {n: rows[n] for n in ("baseline", "sf2")}, [0], out, floor=True)
    assert records == study.read(out) and records["runs"][0] == first[0]
    assert [(r["row"], r["seed"]) for r in records["runs"]] == [("baseline", 0), ("sf2", 0)]
    assert all(len(r["counts"]) == 3 and r["minutes"] > 0 for r in records["runs"])
    assert {*records["floor"]["0"]} == {"class filter", "image labels given"}
    text = study.markdown(records)
    assert "| sf2 |" in text and "labels given" in text and records["runs"][0]["protocol"] in text
    assert len(out.read_text().splitlines()) == 3  # a line a run
    other = tiny.change({"data.scenes.co_occurrence": 1.0})
    with pytest.raises(SettingsError, match=r"data\.scenes\.co_occurrence: 0\.3 and 1\.0"):
        study.sweep(other, study.rows_of(1, other), [0], out)


def test_the_command_names_changes_and_refuses_unknown_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path))
    given = {}

    def sweep(base, rows, seeds, out, finished, floor):
        given.update(base=base, rows=rows, seeds=seeds)
        return {"runs": []}

    monkeypatch.setattr(study, "sweep", sweep)
    out = ["--out", str(tmp_path / "a.json")]
    changes = ["--changes", "data.scenes.co_occurrence=1.0"]
    assert study.main(["--rows", "fca", "--seeds", "3", *changes, *out]) == 0
    assert [*given["rows"]] == ["baseline", "fca"] and given["seeds"] == [3]
    assert given["base"].data.scenes.co_occurrence == 1
    assert given["rows"]["fca"].name == "lite_scenes/co_occurrence=1/fca"
    assert study.main(["--table", "2", *out]) == 0 and len(given["rows"]) == 9
    with pytest.raises(SystemExit):
        study.main(["--rows", "fcb", *out])
    assert "fcb unknown; known: baseline" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"about": {}, "runs": []}'])
def test_a_file_that_holds_no_records_is_named(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"x\.json: holds no records"):
        study.read(path)


def drawn_at(axes, colour):
    return [line.get_xdata() for line in axes.lines if line.get_color() == colour]


def test_effects_are_drawn_where_they_are(runs):
    gains = {"mIoU": study.gains(study.frame(runs))}
    images = {"sf2": (1.0, 3.0)}
    figure = draw.effect_plot(gains, {"mIoU": {"sf2": 1.07}}, study.interval, images)
    (axes,) = figure.axes
    mean, *ends = study.interval(gains["mIoU"].loc["sf2"])
    np.testing.assert_allclose(drawn_at(axes, draw.SKY)[0], ends)
    assert drawn_at(axes, draw.ORANGE)[0][0] == 1.07
    dots = axes.collections[0].get_offsets()[:, 0]
    np.testing.assert_allclose(np.sort(dots), np.sort(gains["mIoU"].loc["sf2"]))
    assert f"sf2 {mean:+.1f}" in figure.alt


def test_the_fair_gain_is_beside_the_mixed_one():
    figure = draw.like_for_like({"paper": study.PAPER_LABELS["with CRF"]})
    said = [text.get_text() for text in figure.axes[0].texts]
    assert "mixed +2.32" in said and "fair\n-0.28" in said and "fair\n+0.53" in said
    assert "-0.28 like for like" in figure.alt
