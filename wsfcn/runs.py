"""A training run's folder: recipe, circumstances, metrics, checkpoints, the finished network."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from . import __version__, build, weights
from .evaluate import Score
from .files import PART, check_output_folder, replacing
from .model.network import Network
from .recipes import Recipe
from .settings import SettingsError

SPEED = {"train.workers": 0}  # settings that change how fast a result comes, and nothing else


class RunError(ValueError):
    """A run that cannot be gone on with; the message says why and what would be right."""


class RunFolder:
    """What a training writes, and how it goes on from there.

    keep: so many checkpoints are kept, the newest ones. Raises FileExistsError where the folder
    holds a run and resume is False, RunError where that run has another recipe or another process
    trains in the folder, NotADirectoryError where the path is a file. With writes=False, for the
    later processes of a distributed run, nothing is checked or written. Close it, or enter it.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, resume: bool, writes: bool = True, keep: int = 2
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep: needs at least 1 checkpoint, not {keep}")
        self.folder, self.writes, self.keep = folder, writes, keep
        self._lock: Any = None
        saved = folder / "recipe.json"
        if writes and saved.exists():
            if not resume:
                raise FileExistsError(
                    f"{folder}: holds a run already; resume it or name another folder"
                )
            if read_recipe(folder).change(SPEED) != recipe.change(SPEED):
                raise RunError(f"{folder}: holds a run of another recipe; name another folder")
        self.finished = (folder / "score.json").exists()
        if writes and not self.finished:
            check_output_folder(folder).mkdir(parents=True, exist_ok=True)
            self._claim()
            if not saved.exists():
                write_text(saved, recipe.model_dump_json(indent=2))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def _claim(self) -> None:
        """Take the lock, which the kernel releases when this process ends in whatever way."""
        lock = open(self.folder / ".lock", "a+")  # noqa: SIM115
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            lock.seek(0)
            who = lock.read().strip() or "another process"
            lock.close()
            raise RunError(
                f"{self.folder}: {who} trains in it; wait for it, stop it, or name another folder"
            ) from None
        except OSError:  # a network disk without locks
            warnings.warn(
                f"{self.folder}: cannot be locked; start one training in it", stacklevel=4
            )
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        self._lock = lock
        for place in (self.folder, self.folder / "checkpoints"):
            for torn in place.glob(f".*{PART}"):  # of a process that was killed
                torn.unlink(missing_ok=True)

    def begin(self, facts: dict[str, Any], step: int) -> None:
        """Note in starts.jsonl what the training runs on, and hold it against its first start.

        Raises RunError where the data are others; other versions or threads are only told.
        """
        path = self.folder / "starts.jsonl"
        first = read_lines(path)[:1]
        line = {"step": step, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")} | facts
        changed = {k: (first[0][k], v) for k, v in facts.items() if first and first[0].get(k) != v}
        if "data" in changed:
            raise RunError(
                f"{self.folder}: the data are not those that the run began with: "
                f"{changed['data'][0]} in {path.name}, now {changed['data'][1]}; restore "
                "the files, or begin another run"
            )
        if changed:
            told = ", ".join(f"{k} was {old}, is {new}" for k, (old, new) in changed.items())
            warnings.warn(
                f"{self.folder}: {told}; results may differ from those of an undisturbed run",
                stacklevel=3,
            )
        self._append(path, line)

    def log(self, row: dict[str, Any], writer: Any = None) -> None:
        """Append a row to metrics.jsonl, and its numbers to TensorBoard."""
        if not self.writes:
            return
        self._append(self.folder / "metrics.jsonl", row)
        if writer is not None:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    writer.add_scalar(name, value, row.get("step", row["epoch"]))

    def _append(self, path: Path, row: dict[str, Any]) -> None:
        try:
            with open(path, "a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None

    def checkpoint(self, step: int, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Write what a State has packed after so many steps, then drop the oldest."""
        if not self.writes:
            return
        path = self.folder / "checkpoints" / f"step-{step:08d}.safetensors"
        weights.write_safetensors(path, tensors, values)
        for old in self.checkpoints()[: -self.keep]:
            old.unlink(missing_ok=True)

    def checkpoints(self) -> list[Path]:
        """The files of checkpoints, by step."""
        files = (self.folder / "checkpoints").glob("step-*.safetensors")
        return sorted(file for file in files if re.fullmatch(r"step-\d{8,}", file.stem))

    def newest(self) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
        """The newest checkpoint that is whole, with its file; None where there is none.

        Damaged ones are told and put aside, their names ending in .damaged.
        """
        for path in reversed(self.checkpoints()):
            try:
                return path, *weights.read_safetensors(path)
            except weights.WeightsError as error:
                warnings.warn(f"{error}; going on from the checkpoint before it", stacklevel=3)
                if self.writes:
                    path.rename(path.with_suffix(".damaged"))
        return None

    def rewind(self, rows: list[dict[str, Any]]) -> None:
        """Let metrics.jsonl hold these rows: later ones are of steps that will be done again."""
        if self.writes:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            write_text(self.folder / "metrics.jsonl", text)

    def best(self, model: Network, row: dict[str, Any]) -> None:
        """Keep a network as best.safetensors, with the monitor's row of its epoch."""
        if self.writes:
            build.save(model, self.folder / "best.safetensors", row)

    def finish(self, model: Network, score: Score) -> None:
        """Write the finished network, then its score, which marks the run as finished."""
        if not self.writes:
            return
        build.save(
            model, self.folder / "model.safetensors", {"mean_iou": score.to_dict()["mean_iou"]}
        )
        score.save(self.folder / "score.json")

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the log."""
        return read_lines(self.folder / "metrics.jsonl")


def read_recipe(folder: str | Path) -> Recipe:
    """The recipe of a run. Raises RunError naming the file where there is none or it is damaged."""
    path = Path(folder) / "recipe.json"
    try:
        return Recipe(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise RunError(f"{folder}: holds no run (no {path.name} in it)") from None
    except SettingsError as error:
        raise RunError(f"{path}: {error}") from None
    except (ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path}: is not the recipe of a run ({reason:.200})") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; a last one that was cut off is left out."""
    rows = []
    with suppress(FileNotFoundError, json.JSONDecodeError):
        for line in path.read_text().splitlines():
            rows.append(json.loads(line))
    return rows


def write_text(path: Path, text: str) -> None:
    """Replace a file, durably."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def circumstances(device: torch.device, processes: int) -> dict[str, Any]:
    """What a result depends on besides recipe and data."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "wsfcn": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": f"{device.type} {gpu}",
        "threads": torch.get_num_threads(),
        "processes": processes,
    }
