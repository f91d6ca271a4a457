"""Benchmarks: ratios of two ways to compute the same, timed in turns in one run.

python benchmarks/run.py [NAME...] [--json FILE]

A ratio says how many times faster the second way is. Times are CPU seconds of one thread: on a
machine at rest the clock shows the same, and on a busy one they still compare. Exit code 1: a ratio
is below its aim, or the two ways do not agree.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROUNDS = 3


def in_turns(*ways: Callable[[], Any], rounds: int = ROUNDS) -> tuple[list[float], list[Any]]:
    """Least CPU seconds of each way, timed one after the other in each round; last results."""
    best, results = [float("inf")] * len(ways), [None] * len(ways)
    for _ in range(rounds):
        for index, way in enumerate(ways):
            start = time.process_time()
            results[index] = way()
            best[index] = min(best[index], time.process_time() - start)
    return best, results


def confusion() -> dict[str, Any]:
    """Confusion matrix of a 500 x 375 label map: per-pixel loop, ours."""
    from wsfcn.evaluate import ConfusionMatrix

    rng = np.random.default_rng(0)
    target = rng.integers(0, 21, (375, 500)).astype(np.uint8)
    prediction = np.where(rng.random(target.shape) < 0.7, target, rng.integers(0, 21, target.shape))
    target[rng.random(target.shape) < 0.05] = 255

    def loop() -> np.ndarray:
        matrix = np.zeros((21, 21), np.int64)
        for row in range(target.shape[0]):
            for column in range(target.shape[1]):
                if target[row, column] != 255:
                    matrix[target[row, column], prediction[row, column]] += 1
        return matrix

    def ours() -> np.ndarray:
        confusion = ConfusionMatrix(21)
        confusion.update(prediction, target)
        return confusion.matrix

    # Several of ours a turn, so that a pause of the machine does not decide.
    seconds, (expected, _) = in_turns(loop, lambda: [ours() for _ in range(20)])
    return {
        "ways": ["per-pixel loop", "bincount"],
        "seconds": [seconds[0], seconds[1] / 20],
        "aim": 100,
        "agree": bool((ours() == expected).all()),
    }


def canvas() -> dict[str, Any]:
    """Four scales with flips of a 500 x 375 photo: padded to 1,024 px, each at its own size."""
    from skimage import data

    import wsfcn
    from wsfcn.predict import predict
    from wsfcn.protocols import padded, paper
    from wsfcn.views import resized

    torch.manual_seed(0)
    recipe = wsfcn.recipes.lite_scenes().change({"model.pretrained": False})
    network = wsfcn.build_model(recipe).eval()
    image = resized(data.coffee(), 375, 500)

    def way(protocol: Any) -> Callable[[], Any]:
        return lambda: predict(network, [image], protocol, size=500)[0]

    seconds, (padded_result, own) = in_turns(way(padded(paper())), way(paper()), rounds=1)
    return {
        "ways": ["padded canvas", "own size"],
        "seconds": seconds,
        "aim": 2.5,
        "agree": padded_result.masks.shape == own.masks.shape == (21, 375, 500),
    }


def crf() -> dict[str, Any]:
    """pydensecrf on a 500 x 375 photo with 4 of 21 labels present: all labels, those present."""
    from skimage import data

    from wsfcn.views import resized
    from wsfcn.weak import crf

    image = np.array(resized(data.coffee(), 375, 500))
    coarse = torch.from_numpy(np.random.default_rng(0).random((1, 4, 4, 5), np.float32))
    fine = torch.nn.functional.interpolate(coarse, (375, 500), mode="bicubic")[0]
    masks = np.zeros((21, 375, 500), np.float32)
    masks[[0, 8, 12, 15]] = (6 * fine).softmax(0).numpy()
    energies, force = -np.log(masks.clip(1e-5, 1)), np.ones(21, np.float32)
    seconds, (whole, ours, _) = in_turns(
        lambda: crf._pydensecrf(image, energies, force, 80, 10),
        lambda: crf.dense_crf(image, masks, "baseline", code="pydensecrf"),
        lambda: crf.dense_crf(image, masks, "baseline", code="torch"),
    )
    return {
        "ways": ["all 21 labels", "labels present", "labels present, in torch"],
        "seconds": seconds,
        "aim": 1,
        "agree": bool((whole.argmax(0) == ours.argmax(0)).all()),
    }


BENCHMARKS = {"confusion": confusion, "canvas": canvas, "crf": crf}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; known: {', '.join(BENCHMARKS)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found, good = {}, True
    for name in arguments.names or BENCHMARKS:
        result = BENCHMARKS[name]()
        result["ratio"] = result["seconds"][0] / result["seconds"][1]
        passed = result["agree"] and result["ratio"] >= result["aim"]
        good, found[name] = good and passed, result
        print(f"{name}: {(BENCHMARKS[name].__doc__ or '').strip()}")
        for way, seconds in zip(result["ways"], result["seconds"], strict=True):
            print(f"  {way:<26}{1000 * seconds:10.1f} ms")
        verdict = "ok" if passed else "MISSED" if result["agree"] else "DO NOT AGREE"
        print(f"  {result['ratio']:.1f} times faster (aim {result['aim']}): {verdict}", flush=True)
    if arguments.json:
        about = {
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(about | {"benchmarks": found}, indent=1) + "\n")
    torch.set_num_threads(threads)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
