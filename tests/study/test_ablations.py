"""Scores over rows and seeds: what is measured, kept, refused; intervals against scipy's."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from wsfcn import recipes
from wsfcn.settings import SettingsError
from wsfcn.show import ablations as draw
from wsfcn.study import ablations as study
from wsfcn.study import params

CLASSES = 4


def run_of(row, seed, hits, **more):
    """A line on images of 100 px, half class 1: hits of each image, the rest called background."""
    counts = {f"{i:02d}": [0, 50, 100 - h, 1, h, 50] for i, h in enumerate(hits)}
    whole = study.counts_of({"counts": counts, "classes": CLASSES}).sum(0)
    rates = {"mIoU": float(study.mean_iou(whole)), "PixAcc": 50.0, "boundary IoU": 40.0}
    problems = {
        name: [0, 50, 1 - h / 50, 1, h // 5, 10] for name, (_, _, _, _, h, _) in counts.items()
    }
    rates["object missed"] = float(100 * np.mean([1 - h / 50 for h in hits]))
    about = {"protocol": "single", "classes": CLASSES, "data": "12 images", "parameters, M": 1.0}
    sums = {"counts": counts, "problems": problems}
    return {"row": row, "seed": seed, "score": "usual", **rates, **about, **sums} | more


@pytest.fixture
def runs():
    """Two rows over three seeds on twelve images; the second gains about two hits an image."""
    random, made = np.random.default_rng(0), []
    ease = random.integers(10, 40, 12)
    for row, seed in product(("baseline", "sf2"), range(3)):
        noise = random.integers(-1, 2, 12)
        made.append(run_of(row, seed, (ease + noise + 2 * (row == "sf2")).tolist()))
    return made


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
        ({"protocol": "with flip"}, "protocol: the records have single and with flip"),
        ({"classes": 5}, "classes: the records have 4 and 5"),
        ({"data": "9 images"}, "data: the records have 12 images and 9 images"),
        ({"made": {"train.epochs": 3}}, "made with other settings: train.epochs None and 3"),
        ({"row": "sf2"}, "sf2, seed 0: there are two records"),
    ],
)
def test_lines_that_were_made_differently_are_not_put_into_one_table(runs, change, named):
    with pytest.raises(SettingsError, match=f"score usual: {named}"):
        study.frame([*runs, run_of("fca", 0, [1] * 12) | change])


def test_lines_of_other_axes_are_apart_and_protocols_may_differ_along_scores(runs):
    other = [
        run | {"score": "flip", "protocol": "with flip", "at": {"s.size": 3}, "s.size": 3}
        for run in runs
    ]
    parts = study.groups([*runs, *other])
    assert [*parts] == ["score usual", "score flip, size 3"]
    assert [len(members) for members in parts.values()] == [6, 6]
    looks = [*runs[:3], *(run | {"score": "flip", "protocol": "with flip"} for run in runs[:3])]
    assert [*study.groups(looks, "score")] == ["row baseline"]
    summary = study.effects(looks, "usual", along="score")
    assert summary.loc["flip", "gain"] == 0
    with pytest.raises(SettingsError, match=r"along: 'size' is no axis .*row, score, s\.size"):
        study.groups(other, "size")


def test_changed_settings_may_differ_and_no_others(runs):
    made = [
        {"made": {"model.context": "aspp", "x": 1}, "changed": ["model.context"]},
        {"made": {"model.context": "fca", "x": 1}, "changed": []},
    ]
    both = [run | made[run["row"] == "sf2"] for run in runs]
    assert len(study.frame(both)) == 6
    made[1]["made"]["x"] = 2
    with pytest.raises(SettingsError, match="other settings: x 1 and 2"):
        study.frame([run | made[run["row"] == "sf2"] for run in runs])


def test_the_problems_have_intervals_over_images_as_well(runs):
    summary = study.effects(runs, measure="object missed")
    line = summary.loc["sf2"]
    scores = {(r["row"], r["seed"]): r["object missed"] for r in runs}
    wanted = [scores["sf2", s] - scores["baseline", s] for s in range(3)]
    assert line["gain"] == pytest.approx(np.mean(wanted)) and line["gain"] < 0
    assert line["images low"] < line["gain"] < line["images high"] < 0
    drawn = study.resampled([runs[0]], 50, 4, "thin parts found")
    weights = np.random.default_rng(4).multinomial(12, np.full(12, 1 / 12), 50)
    hits = np.array([sums[4] for sums in runs[0]["problems"].values()])
    np.testing.assert_allclose(drawn, 100 * weights @ hits / 120)
    bare = [run | {"counts": {}, "problems": {}} for run in runs]
    assert "images low" not in study.effects(bare)


def test_the_papers_rows_are_those_of_its_tables():
    parameters = {row: v for table in params.PAPER.values() for row, v in table.items()}
    assert parameters.keys() == study.PAPER.keys()
    assert {*recipes.table1()} | {*recipes.table2()} == {*study.PAPER}
    base = study.PAPER["baseline"]
    printed = {"mclm": (1.33, 0.83), "fca": (1.75, 0.97), "sf2": (1.07, 1.42), "full": (2.30, 1.74)}
    for row, gains in printed.items():
        np.testing.assert_allclose(np.subtract(study.PAPER[row], base), gains)
    assert study.PAPER_TABLE3["flip"] == study.PAPER["full"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"about": {}, "runs": []}', '{"records": [1]}'])
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
