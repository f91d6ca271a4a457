"""The training monitor: curves and masks while a training runs, with a button to stop it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from PIL import Image

from ..recipes import Train
from .colours import class_colours
from .curves import METRICS, curves
from .panels import painted
from .widget import Interactive

REDRAWN = 0.5  # s between two messages to the browser
_lock = threading.Lock()  # one training at a time


class Stopped(Exception):  # noqa: N818
    """A training was stopped by its button; in a notebook one line, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Monitor(Interactive):
    """Runs a training and shows it: `result = Monitor(training, film, settings, classes).run()`.

    training: takes on_epoch, on_step and progress, goes on where it was cut off, and returns the
    result, as `partial(trained, recipe)` does. film: the masks of some scenes by epoch, as
    `partial(study.trained.film, recipe)`. A click on "Stop" sets `asked`, which the next step
    reads; "Resume" trains on in the background, and a further `run` takes over from there. Where
    a busy kernel hears no button, its interrupt does the same.
    """

    _running: Monitor | None = None

    _esm = Path(__file__).with_suffix(".js")
    meta = traitlets.Dict().tag(sync=True)
    rows: Any = traitlets.List().tag(sync=True)
    state = traitlets.Unicode("ready").tag(sync=True)
    said = traitlets.Unicode("").tag(sync=True)
    asked = traitlets.Unicode("").tag(sync=True)
    epochs = traitlets.Int(0).tag(sync=True)
    images = traitlets.Bytes().tag(sync=True)
    masks = traitlets.Bytes().tag(sync=True)

    def __init__(
        self,
        training: Callable[..., Any],
        film: Callable[[], Any],
        settings: Train,
        classes: Sequence[str],
    ) -> None:
        self.training, self.film, self.settings = training, film, settings
        self.result: Any = None
        self._sent = 0.0
        known = {"classes": [*classes], "colours": class_colours(len(classes) + 1).tolist()}
        meta = {"epochs": settings.epochs, "warmup": settings.warmup_epochs, "shape": [0, 1, 1]}
        super().__init__(meta=meta | known)
        # ipykernel answers where a comm spoke last, here the busy cell; the frontend chose better.
        if self.comm is not None:
            self.comm._reply_subshell_for = lambda data, chosen: chosen

    def run(self) -> Any:
        """Train in this cell and return the result. Raises Stopped where the button was pressed."""
        from IPython.display import display

        handle = display(self, display_id=True)
        try:
            return self._train()
        finally:
            if handle is not None:  # the picture that stays is that of the end
                handle.update(self)

    def _train(self) -> Any:
        if (other := Monitor._running) is not None:
            other.asked = "stop"
        with _lock:
            if self.result is not None:
                return self.result
            Monitor._running = self
            self.asked, self.state, self.said = "", "running", "starting"
            with suppress(FileNotFoundError):  # where it goes on, earlier epochs have frames
                self._tell([], frames=True)
            hooks = {"on_epoch": self._after_epoch, "on_step": self._after_step}
            try:
                self.result = self.training(**hooks, progress=False)
                self._tell(self.result.rows, frames=True)
                self.state, self.said = "finished", str(self.result.score).split(" (")[0]
            except BaseException as error:
                self.state, self.said = "stopped", str(error) or type(error).__name__
                raise
            finally:
                Monitor._running = None
        return self.result

    def _after_step(self, step: int, rows: list[dict[str, Any]]) -> None:
        if self.asked == "stop":
            raise Stopped(
                f"Stopped at step {step}. Run the cell again, or press Resume, to go on "
                f"after epoch {self.epochs}."
            )
        if time.monotonic() - self._sent > REDRAWN:
            self.said = f"step {step}"
            self._tell(rows)

    def _after_epoch(self, epoch: int, model: Any, rows: list[dict[str, Any]]) -> None:
        self._tell(rows, frames=True)
        self.said = f"epoch {epoch} of {self.settings.epochs} done"

    def _tell(self, rows: list[dict[str, Any]], frames: bool = False) -> None:
        self._sent = time.monotonic()
        if frames:
            shots = self.film()
            self.meta = self.meta | {"shape": shots.images.shape[:3]}
            self.images = shots.images.tobytes()
            self.masks = np.concatenate((shots.masks[None], shots.frames)).tobytes()
            self.epochs = len(shots.frames)
        names = ("epoch", *METRICS)
        self.rows = [{name: row[name] for name in names if name in row} for row in rows]

    @traitlets.observe("asked")
    def _resume(self, change: Any) -> None:
        if change.new == "resume" and self.state != "running":
            threading.Thread(target=self._in_background, daemon=True).start()

    def _in_background(self) -> None:
        with suppress(Exception):  # `said` tells it
            self._train()

    def still(self) -> Image.Image:
        """The curves, and the first scene with the mask of the last epoch."""
        picture, caption = None, ""
        if self.epochs:
            n, height, width = self.meta["shape"]
            image = np.frombuffer(self.images, np.uint8).reshape(n, height, width, 3)[0]
            last = np.frombuffer(self.masks, np.uint8).reshape(-1, n, height, width)[-1, 0]
            picture, caption = painted(image, last), f"One scene: after epoch {self.epochs}"
        warmup = self.settings.warmup_epochs
        figure = curves(self.rows, warmup, picture=picture, caption=caption)
        self.alt = figure.alt
        file = BytesIO()
        figure.savefig(file, format="png")
        return Image.open(file)
