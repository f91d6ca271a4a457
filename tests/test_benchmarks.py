"""The benchmarks run, agree with themselves, and say so."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of benchmarks/."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def test_confusion_counts_agree_and_the_figures_are_written(bench, tmp_path, capsys):
    code = bench("run").main(["--only", "confusion", "--out", str(tmp_path / "new")])
    whole = json.loads((tmp_path / "new" / "benchmarks.json").read_text())
    found = whole["benchmarks"]["confusion"]
    assert found["agree"] and found["ratio"] == found["medians"][0] / found["medians"][1]
    assert found["ratio"] > 20  # 100 on a machine at rest
    assert code == (0 if found["ratio"] >= 100 else 1)
    printed, written = capsys.readouterr().out, (tmp_path / "new" / "benchmarks.md").read_text()
    for text in (printed, written):
        assert f"{found['ratio']:.1f} times faster (aim 100)" in text
    assert 0 < found["share"] < 1 and whole["ceilings"]["flops"] > 1e8


def test_missed_aims_and_disagreements_are_told(bench, monkeypatch, capsys, tmp_path):
    run, ratios = bench("run"), bench("ratios")

    def fake(agree, seconds, memory):
        def way():
            """Nothing."""
            turns = [[value] * 3 for value in seconds]
            return {"ways": ["a", "b"], "seconds": turns, "aim": 2, "agree": agree, "note": "-"} | (
                {"memory": memory, "aim_memory": 3}
            )

        return way

    for agree, seconds, memory, word, code in (
        (True, [1.0, 0.1], [9, 2], "ok", 0),
        (True, [1.0, 0.9], [9, 2], "MISSED", 1),
        (True, [1.0, 0.1], [9, 4], "MISSED", 1),
        (True, [1.0, 0.1], [0, 0], "ok", 0),  # memory that cannot be measured misses nothing
        (False, [1.0, 0.1], [9, 2], "DO NOT AGREE", 1),
    ):
        monkeypatch.setitem(ratios.RATIOS, "fake", fake(agree, seconds, memory))
        assert run.main(["--only", "fake", "--out", str(tmp_path)]) == code
        assert f": {word}." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run.main(["--only", "nothing"])


def test_the_plain_ways_compute_what_ours_do(bench):
    plain, ratios = bench("plain"), bench("ratios")
    from wsfcn.weak import PAMR, mask_loss, pseudo_labels

    image, masks, labels = ratios.example(2, 17)
    for dilations in ((1, 2, 4, 8, 12, 24), (1, 3)):
        refined = plain.pamr(image, masks, 3, dilations)
        torch.testing.assert_close(refined, PAMR(3, dilations)(image, masks), rtol=0, atol=1e-5)
    pseudo = plain.pseudo_labels(masks, labels, (33, 33))
    expected = pseudo_labels(masks, labels, (33, 33))
    known = expected != 255
    assert known.any() and torch.equal(pseudo.sum(1) == 1, known)
    assert torch.equal(pseudo.argmax(1)[known], expected[known].long())
    loss = plain.mask_loss(masks.log(), pseudo, labels)
    assert loss > 0
    torch.testing.assert_close(loss, mask_loss(masks.log(), expected, labels).mean())


def test_allocated_counts_what_lives_at_a_time(bench):
    measure = bench("measure")
    with measure.Allocated() as allocated:
        x = torch.zeros(1000)
        y = x + 1
        z = y * 2
        del y
        w = z + 1
        assert x[10:].data_ptr() != w.data_ptr()  # a view is no new memory
    assert allocated.peak == allocated.now == 3 * 4000


def test_exponents_and_their_figure(bench, tmp_path):
    measure, growth = bench("measure"), bench("growth")
    sizes = [1.0, 2.0, 4.0, 8.0]
    assert measure.exponent(sizes, [3 * s**1.5 for s in sizes]) == pytest.approx(1.5)
    row = {"values": sizes, "seconds": sizes, "bytes": np.square(sizes).tolist()}
    row |= {"time exponent": 1.0, "memory exponent": 2.0}
    growth.draw({"batch": {"PAMR": row}, "scale": {"prediction": row}}, tmp_path / "a" / "g.png")
    assert (tmp_path / "a" / "g.png").read_bytes()[:4] == b"\x89PNG"


def test_the_papers_step_fits_the_memory_of_its_gpus(bench):
    found = bench("ratios").paper_memory()
    # 147 million trained parameters: float32 weights, gradients and momentum alone are 1.8 GB.
    assert 1.8e9 < found["bf16, checkpointing"] < found["bf16"] < found["float32"] < 24e9
    assert found["bf16, checkpointing"] < 11e9


def test_the_rows_of_a_gpu_run_on_a_small_stand_in(bench):
    run, gpu = bench("run"), bench("gpu")
    from wsfcn.recipes import paper_voc

    changes = {"train.batch_size": 2, "augment.crop": 48, "model.backbone": "efficientnet_lite0"}
    narrow = {"model.width": 16, "model.align_width": 8, "model.skip_width": 8, "model.frozen": 2}
    recipe = paper_voc().change(changes | narrow | {"train.epochs": 3, "train.warmup_epochs": 1})
    sizes = gpu.Sizes(recipe, sides=(9,), images=20, copied=1 << 16, product=64, rounds=1)
    found, lines, good = run.on_gpu(torch.device("cpu"), sizes)
    assert not good  # a CPU misses the aims of a GPU
    for name in ("gpu_pamr_9", "gpu_step"):
        row = found[name]
        assert row["agree"] and row["verdict"] == "MISSED" and row["share"] > 0
        assert all(map(all, row["seconds"])) and row["flops"] > 1e5
    _, late, early, *_ = found["gpu_step"]["medians"]
    schedule = found["schedule"]
    assert schedule["steps"] == 30
    assert schedule["seconds"] == pytest.approx(10 * early + 20 * late)
    text = "\n".join(lines)
    assert "(aim 60) of what the machine can do" in text and "30 steps of the recipe" in text


def test_a_row_of_a_gpu_that_cannot_be_had_leaves_the_others(bench, monkeypatch):
    run, gpu = bench("run"), bench("gpu")

    def full(device, **others):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(gpu, "step", full)
    sizes = gpu.Sizes(sides=(9,), copied=1 << 16, product=64, rounds=1)
    found, lines, good = run.on_gpu(torch.device("cpu"), sizes)
    assert not good and "schedule" not in found and found["gpu_pamr_9"]["agree"]
    assert "**gpu_step** not measured: CUDA out of memory." in lines


def test_without_a_gpu_its_rows_are_told_as_not_measured(bench, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench("run").main(["--only", "gpu", "--out", str(tmp_path)]) == 0
    assert "**gpu** not measured" in capsys.readouterr().out
