"""A training run's folder: recipe, metrics, checkpoints, the finished network."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import torch

from . import build, weights
from .evaluate import Score
from .files import check_output_folder, write_all
from .model.network import Network
from .recipes import Recipe

KEPT = 2


class RunFolder:
    """What a training writes, and how it goes on from there.

    Raises FileExistsError where the folder holds a run and resume is False, ValueError where
    that run has another recipe, NotADirectoryError where the path is a file. With writes=False,
    for the later processes of a distributed run, nothing is checked or written.
    """

    def __init__(self, folder: Path, recipe: Recipe, resume: bool, writes: bool = True) -> None:
        self.folder, self.rows, self.writes = folder, [], writes
        if writes:
            self._claim(recipe, resume)
        self.finished = (folder / "score.json").exists()
        if self.finished:
            self.rows = self._read_rows()

    def _claim(self, recipe: Recipe, resume: bool) -> None:
        saved = self.folder / "recipe.json"
        check_output_folder(self.folder)
        if saved.exists() and not resume:
            raise FileExistsError(
                f"{self.folder}: holds a run already; resume it or name another folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        text = recipe.model_dump_json(indent=2)
        if saved.exists() and Recipe.model_validate_json(saved.read_text()) != recipe:
            raise ValueError(f"{self.folder}: holds a run of another recipe; name another folder")
        write_all(self.folder, {saved.name: text.encode()})

    def log(self, row: dict[str, Any], writer: Any = None) -> None:
        """Append a row to metrics.jsonl, and its numbers to TensorBoard."""
        self.rows.append(row)
        if not self.writes:
            return
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
        if writer is not None:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    writer.add_scalar(name, value, row.get("step", row["epoch"]))

    def checkpoint(self, epoch: int, model: Network, average: Network, optimizer: Any) -> None:
        """Weights and everything else needed to go on after `epoch` finished epochs."""
        if not self.writes:
            return
        state = {
            "epoch": epoch,
            "average": {} if average is model else average.state_dict(),
            "rows": self.rows,
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        weights_path, state_path = self._paths(epoch)
        build.save(model, weights_path)
        # The state file comes last: a checkpoint without one was cut off and does not count.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_all(state_path.parent, {state_path.name: buffer.getvalue()})
        for old in self._epochs()[:-KEPT]:
            for path in reversed(self._paths(old)):
                path.unlink(missing_ok=True)

    def restore(self, model: Network, average: Network, optimizer: Any) -> int:
        """Load the newest checkpoint into its three owners; returns the epochs finished."""
        epochs = self._epochs()
        self.rows = []
        if epochs:
            weights_path, state_path = self._paths(epochs[-1])
            tensors, _ = weights.read_safetensors(weights_path)
            weights.load_state(model, tensors, str(weights_path))
            state = torch.load(state_path, map_location="cpu", weights_only=True)
            if average is not model:
                weights.load_state(average, state["average"], str(state_path))
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
            if state["cuda_rng"] and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(state["cuda_rng"])
            self.rows = state["rows"]
        # Rows logged after the checkpoint belong to steps that will be done again.
        if not self.writes:
            return epochs[-1] if epochs else 0
        lines = "".join(json.dumps(r) + "\n" for r in self.rows)
        write_all(self.folder, {"metrics.jsonl": lines.encode()})
        return epochs[-1] if epochs else 0

    def finish(self, model: Network, score: Score) -> None:
        """Write the finished network, then its score, which marks the run as finished."""
        if not self.writes:
            return
        build.save(
            model, self.folder / "model.safetensors", {"mean_iou": score.to_dict()["mean_iou"]}
        )
        score.save(self.folder / "score.json")

    def _paths(self, epoch: int) -> tuple[Path, Path]:
        stem = self.folder / "checkpoints" / f"epoch-{epoch:03d}"
        return stem.with_suffix(".safetensors"), stem.with_suffix(".state")

    def _epochs(self) -> list[int]:
        names = [p.name for p in (self.folder / "checkpoints").glob("epoch-*.state")]
        return sorted(int(m[1]) for n in names if (m := re.fullmatch(r"epoch-(\d+)\.state", n)))

    def _read_rows(self) -> list[dict[str, Any]]:
        return [json.loads(s) for s in (self.folder / "metrics.jsonl").read_text().splitlines()]
