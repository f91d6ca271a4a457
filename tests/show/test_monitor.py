"""The training monitor without a browser: a training that is stopped, resumed, taken over."""

from __future__ import annotations

import threading
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from wsfcn.data.sample import VOC_CLASSES
from wsfcn.recipes import Train, smoke_scenes
from wsfcn.show.monitor import Monitor, Stopped
from wsfcn.study.trained import film, trained

STEPS = 5


class Pretended:
    """A training of STEPS steps an epoch that keeps what a run folder keeps: finished epochs."""

    def __init__(self, epochs=3, seconds=0.0):
        self.epochs, self.seconds, self.rows, self.steps, self.gate = epochs, seconds, [], 0, None

    def train(self, on_epoch, on_step, progress):
        assert progress is False
        for epoch in range(self.finished, self.epochs):
            rows = list(self.rows)
            for step in range(epoch * STEPS, (epoch + 1) * STEPS):
                time.sleep(self.seconds)
                self.steps += 1
                rows.append({"epoch": (step + 1) / STEPS, "classification_loss": 1 / (step + 1)})
                on_step(step + 1, rows)
            self.rows = [*rows, {"epoch": epoch + 1, "mean_iou": 0.1 * epoch, "seconds": 1.0}]
            on_epoch(epoch + 1, None, self.rows)
        return SimpleNamespace(rows=self.rows, score="mIoU 20.00 (3 images)")

    @property
    def finished(self):
        return sum("mean_iou" in row for row in self.rows)

    def film(self):
        if not self.finished:
            raise FileNotFoundError("no frames")
        masks = np.full((2, 8, 8), 3, np.uint8)
        frames = np.stack([masks * (epoch % 2) for epoch in range(self.finished)])
        return SimpleNamespace(images=np.zeros((2, 8, 8, 3), np.uint8), masks=masks, frames=frames)

    def monitor(self):
        return Monitor(self.train, self.film, Train(epochs=3, warmup_epochs=1), VOC_CLASSES)


def stop_at(monitor, step):
    """Press the button once the training has come so far."""
    hook = monitor._after_step

    def pressed(number, rows):
        if number == step:
            monitor.asked = "stop"
        hook(number, rows)

    monitor._after_step = pressed


def wait(true, seconds=10):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_training_runs_through():
    work = Pretended()
    monitor = work.monitor()
    assert monitor.state == "ready" and monitor.run() is monitor.result
    assert (monitor.state, monitor.said) == ("finished", "mIoU 20.00")
    assert monitor.epochs == 3 and len(monitor.masks) == (1 + 3) * 2 * 64
    assert [row["mean_iou"] for row in monitor.rows if "mean_iou" in row] == [0, 0.1, 0.2]
    assert not any("seconds" in row for row in monitor.rows)  # what is not drawn is not sent
    monitor.run()
    assert work.steps == 3 * STEPS  # read, not trained again


def test_the_stop_button_ends_it_at_a_step_and_the_next_call_goes_on_after_the_last_epoch():
    work = Pretended()
    monitor = work.monitor()
    stop_at(monitor, 7)
    with pytest.raises(Stopped, match=r"Stopped at step 7.*after epoch 1"):
        monitor.run()
    assert monitor.state == "stopped" and work.steps == 7 and work.finished == 1
    assert Stopped("one line")._render_traceback_() == ["one line"]
    again = work.monitor()
    again.run()
    assert again.state == "finished" and work.steps == 7 + 2 * STEPS and again.epochs == 3


def test_the_resume_button_trains_on_in_the_background():
    work = Pretended()
    monitor = work.monitor()
    stop_at(monitor, 2)
    with pytest.raises(Stopped):
        monitor.run()
    monitor._after_step = lambda step, rows: None
    monitor.asked = "resume"
    wait(lambda: monitor.state == "finished")
    assert monitor.result is not None and monitor.asked == ""


def test_another_monitor_takes_a_running_training_over():
    work, before = Pretended(seconds=0.02), threading.active_count()
    first = work.monitor()
    first.asked = "resume"  # from "ready" too: it starts in the background
    wait(lambda: work.steps >= 2)
    second = work.monitor()
    second.run()
    assert first.state == "stopped" and second.state == "finished"
    assert work.finished == 3 and threading.active_count() <= before + 2


def test_a_failure_is_told_and_raised():
    def broken(**hooks):
        raise FloatingPointError("loss not finite at step 3")

    monitor = Monitor(broken, Pretended().film, Train(), VOC_CLASSES)
    with pytest.raises(FloatingPointError):
        monitor.run()
    assert (monitor.state, monitor.said) == ("stopped", "loss not finite at step 3")


def test_a_picture_stands_in_at_every_moment():
    work = Pretended()
    monitor = work.monitor()
    data, metadata = monitor._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and data["image/png"]
    monitor.run()
    later, metadata = monitor._repr_mimebundle_()
    assert later["image/png"] != data["image/png"]
    assert "mIoU from 0 to 20" in metadata["image/png"]["alt"] == later["text/plain"]


def test_a_real_training_is_stopped_and_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path))
    recipe = smoke_scenes().change(
        {"data.scenes.size": 64, "augment.crop": 64, "data.val": 2, "data.train": 16}
    )

    def monitor(seed):
        own = recipe.change({"train.seed": seed})
        parts = partial(trained, own, filmed=1), partial(film, own)
        return Monitor(*parts, own.train, VOC_CLASSES)

    first = monitor(0)
    stop_at(first, 3)  # in the second epoch
    with pytest.raises(Stopped):
        first.run()
    assert first.epochs == 1
    cut = monitor(0).run()
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path / "other"))
    whole = monitor(0).run()
    rows = [[{k: v for k, v in r.items() if k != "seconds"} for r in x.rows] for x in (cut, whole)]
    assert rows[0] == rows[1] and cut.score.mean_iou == whole.score.mean_iou
