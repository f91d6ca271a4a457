"""The whole course in one go: train, evaluate, run the notebooks, write one page.

`python -m wsfcn.study.course` is what `make course` calls. What an earlier call left in the
cache or in the output folder is used again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ..allocation import keep_freed_memory
from ..data import build as build_data
from ..data.artwork import credit_lines
from ..files import check_output_folder
from ..predict import predict
from ..show.colours import overlay
from ..train import TrainingResult
from .cam_floor import cam_floor
from .notebooks import NotebookRun, run_notebook
from .page import Bars, Picture, Score, build_page
from .sources import FOLDER, notebooks
from .trained import recipe_of, trained

SHOWN = 6


def course(folder: str | Path, profile: str = "laptop", progress: bool = True) -> Path:
    """Train the profile's recipe, score it, execute every notebook, write `folder`/index.html.

    The trained network is left beside it as model.safetensors.
    """
    started = time.perf_counter()
    folder, recipe = check_output_folder(folder), recipe_of(profile)
    _say("1/4 training from image labels")
    result = trained(recipe, progress=progress)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(result.folder / "model.safetensors", folder / "model.safetensors")
    _say(f"    {result.score}")
    _say("2/4 the floor: thresholded CAMs of the same backbone")
    threshold, floor = cam_floor(recipe, progress=progress).best()
    _say(f"    mIoU {100 * floor:.1f} at its best threshold {threshold:g}")
    _say("3/4 the notebooks")
    runs = execute_all(folder, profile, progress)
    _say("4/4 the page")
    score = result.score
    ordered = sorted(score.per_class.items(), key=lambda row: -np.nan_to_num(row[1]))
    per_class = {name: 100 * value for name, value in ordered}
    page = build_page(
        folder,
        [run.path for run in runs],
        title="WS-FCN: masks from image labels",
        lead="Trained on emoji scenes with image labels alone, scored against their exact masks.",
        scores=[
            Score("mIoU", f"{100 * score.mean_iou:.1f} %", "WS-FCN, 21 classes"),
            Score("PixAcc", f"{100 * score.pixel_accuracy:.1f} %", "WS-FCN"),
            Score("best CAM", f"{100 * floor:.1f} %", "mIoU at the best threshold"),
        ],
        pictures=_pictures(result),
        tables=[Bars("IoU by class", per_class, score.protocol.describe())],
        facts={
            "recipe": recipe.name,
            "protocol": score.protocol.describe(),
            "validation scenes": score.images,
            "this call took": f"{(time.perf_counter() - started) / 60:.1f} min",
        },
        credits=credit_lines(),
    )
    _say(f"    {page}")
    return page


def execute_all(folder: Path, profile: str, progress: bool) -> list[NotebookRun]:
    """Every notebook, two at a time: much of one is a single thread's work."""
    usual = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = usual or str(max(1, (os.cpu_count() or 2) // 2))
    runs = []
    try:
        with ThreadPoolExecutor(2) as pool:
            started = [
                pool.submit(run_notebook, path, {}, folder, profile=profile, progress=progress)
                for path in notebooks(FOLDER)
            ]
            for run in started:
                runs.append(run.result())
                _say(f"    {runs[-1]}")
    finally:
        if usual is None:
            del os.environ["OMP_NUM_THREADS"]
    return runs


def _say(text: str) -> None:
    print(text, flush=True)


def _pictures(result: TrainingResult) -> list[Picture]:
    """Scene, found mask and exact mask side by side, for a few validation scenes."""
    val = build_data(result.model.recipe.data)[1]
    samples = [val[i] for i in range(min(SHOWN, len(val)))]
    found = predict(result.model, [s.image for s in samples])
    pictures = []
    for sample, segmentation in zip(samples, found, strict=True):
        exact = np.zeros_like(segmentation.labels) if sample.mask is None else sample.mask
        gap = np.full((sample.image.shape[0], 4, 3), 255, np.uint8)
        drawn = overlay(sample.image, segmentation.labels), overlay(sample.image, exact)
        strip = np.concatenate([sample.image, gap, drawn[0], gap, drawn[1]], axis=1)
        present = [c for c, there in zip(val.classes, sample.labels, strict=True) if there]
        seen = ", ".join(segmentation.found) or "background alone"
        pictures.append(
            Picture(
                Image.fromarray(strip.repeat(3, 0).repeat(3, 1)),
                alt=f"A scene with {', '.join(present)}; WS-FCN found {seen}; the exact mask.",
                caption=f"{', '.join(present)}: scene, WS-FCN, exact mask",
            )
        )
    return pictures


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of `make course`."""
    parser = argparse.ArgumentParser(description="Train, evaluate, run the notebooks, one page.")
    parser.add_argument("--out", default="runs/course", help="output folder")
    parser.add_argument("--profile", default="laptop", choices=("smoke", "laptop"))
    options = parser.parse_args(arguments)
    keep_freed_memory()
    course(options.out, options.profile)
    return 0


if __name__ == "__main__":
    sys.exit(main())
