"""Checks of the exercises: each says what is wrong with an answer, without giving it away.

A check takes the reader's function and returns one sentence; RIGHT where all is well. It never
raises for what that function does, so that a notebook with unsolved exercises runs to its end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..data.sample import IGNORE
from ..evaluate import ConfusionMatrix
from ..weak.cam import class_activation_maps
from ..weak.losses import gate_open
from ..weak.scores import ngwp_scores

RIGHT = "Right."
Answer = Callable[..., Any]


def check_my_cam(answer: Answer) -> str:
    """01_cams: my_cam(features (C, h, w), weights (C,)) -> (h, w), as class_activation_maps."""
    random = torch.Generator().manual_seed(1)
    mixed, against = (1.5, -3.0, 0.5, 1.0, 0.3), (-1.5, -2.0, -0.5, -1.0, -0.3)
    for weights in (torch.tensor(mixed), torch.tensor(against)):
        features = torch.rand(5, 3, 4, generator=random)
        given, wrong = _tensor(answer, features, weights)
        if given is None:
            return wrong
        if given.shape != (3, 4):
            return f"The map has shape {tuple(given.shape)}; features (5, 3, 4) give one of (3, 4)."
        if given.isnan().any():
            return "A map without any positive evidence has become NaN; it should be all zero."
        if given.min() < 0:
            return f"The map reaches down to {given.min():.2f}; evidence against a class is cut."
        truth = class_activation_maps(features[None], weights[None])[0, 0].double()
        if not np.isclose(given.max(), truth.max()):
            return f"The largest value is {given.max():.2f}; it should be {truth.max():.0f} here."
        if not torch.allclose(given, truth, atol=1e-5):
            return "Range and shape fit, the values do not: which channel has which weight?"
    return RIGHT


def check_my_logit(answer: Answer) -> str:
    """01_cams: my_logit(evidence (h, w), bias) -> the classifier's logit."""
    evidence = torch.tensor([[4.0, -1.0, 0.5], [0.0, -2.0, 1.5]])
    given, wrong = _tensor(answer, evidence, 0.25)
    if given is None:
        return wrong
    if given.numel() != 1:
        return f"A logit is one number; this has shape {tuple(given.shape)}."
    if np.isclose(given.item(), evidence.relu().mean().item() + 0.25):
        return "Evidence against the class counts in the logit as well; only the CAM cuts it."
    if np.isclose(given.item(), evidence.mean().item()):
        return "Nearly: a linear layer has a bias, too."
    if not np.isclose(given.item(), evidence.mean().item() + 0.25):
        return "Not this number: what does global average pooling do to a sum over channels?"
    return RIGHT


def check_my_shares(answer: Answer) -> str:
    """01_cams: my_shares(found, truth) -> (share of object found, share of background claimed)."""
    truth = np.array([[0, 0, 0, 0, 0], [0, 3, 3, 3, 3], [IGNORE, IGNORE, 0, 0, 0]], np.uint8)
    found = np.array([[0, 0, 0, 0, 3], [3, 3, 3, 3, 0], [3, 3, 0, 0, 0]], np.uint8)
    given, wrong = _tensor(answer, found, truth)
    if given is None:
        return wrong
    if given.shape != (2,):
        return "Two numbers are asked for: the object's share found, the background's claimed."
    part, claimed = given.tolist()
    if np.isclose(claimed, 4 / 11) or np.isclose(claimed, 4 / 9):
        return "Pixels with the label 255 are neither object nor background: leave them out."
    if np.isclose(part, 2 / 9) and np.isclose(claimed, 3 / 4):
        return "Right shares, but in the other order."
    if not np.isclose(part, 3 / 4):
        return f"Share of the object found: {part:.3f} is not it; 4 pixels are object, 3 are found."
    if not np.isclose(claimed, 2 / 9):
        return f"Share of the background claimed: {claimed:.3f} is not it; 9 pixels are background."
    return RIGHT


def check_my_threshold(answer: Answer) -> str:
    """01_cams: my_threshold(cam, object_mask) -> (threshold, IoU) that is best for one image."""
    rows, columns = np.mgrid[:24, :24] / 23
    cam = np.exp(-8 * ((rows - 0.5) ** 2 + (columns - 0.4) ** 2)).astype(np.float32)
    cam /= cam.max()
    mask = (abs(rows - 0.5) < 0.3) & (abs(columns - 0.5) < 0.25)
    given, wrong = _tensor(answer, cam, mask)
    if given is None:
        return wrong
    if given.shape != (2,):
        return "Two numbers are asked for: the threshold and its IoU."
    threshold, iou = given.tolist()
    if not 0 <= threshold <= 1:
        return f"The threshold {threshold:.2f} is outside 0..1."
    own = _iou(cam > threshold, mask)
    if abs(iou - own) > 0.01:
        return f"At threshold {threshold:.2f} the IoU is {own:.3f}, not {iou:.3f}."
    best = max(_iou(cam > level, mask) for level in np.linspace(0, 0.99, 100))
    if own < best - 0.01:
        return f"{own:.3f} is not the best: some threshold is {best - own:.3f} better."
    return RIGHT


def _iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / max(1, (found | truth).sum()))


def _tensor(answer: Answer, *inputs: Any) -> tuple[torch.Tensor | None, str]:
    """What the reader's function returns as float64, or None and a sentence."""
    name = getattr(answer, "__name__", "the function")
    copies = copy.deepcopy(inputs)
    try:
        value = answer(*copies)
        if value is None:
            return None, f"Not yet: {name} returns nothing."
        if isinstance(value, tuple | list):
            value = [float(part) for part in value]
        return torch.as_tensor(value).detach().double(), ""
    except Exception as error:
        text = (str(error).splitlines() or [""])[0]
        return None, f"{name} stops with {type(error).__name__}: {text}"


# 05_training: the first case that fails decides what is said.

Case = tuple[tuple[Any, ...], Any, str]  # inputs, the value wanted, the sentence where it is not


def check_size_penalty(answer: Answer) -> str:
    """05_training: size_penalty(size, power, floor) -> what is added to a class's score."""

    def case(size: float, power: float, floor: float, hint: str) -> Case:
        flat = torch.zeros(1, 2, 4, 4)  # logits of 0: the penalty is all there is to the score
        score = ngwp_scores(flat, torch.full_like(flat, size), power, floor)
        return (size, power, floor), float(score), hint

    return _judged(
        answer,
        case(0.0, 3.0, 0.01, "An empty mask must get the logarithm of the floor."),
        case(1.0, 3.0, 0.01, "A mask that fills the image must not be punished."),
        case(0.1, 3.0, 0.01, "Wrong for a tenth of the image: compare with the formula above."),
        case(0.1, 1.0, 0.01, "Right for the power 3 alone: is it written into your code?"),
        case(0.1, 3.0, 0.2, "Right for the floor 0.01 alone: is it written into your code?"),
    )


def check_may_teach(answer: Answer) -> str:
    """05_training: may_teach(pseudo (H, W), labels (K,)) -> whether the gate is open."""

    def case(pseudo: list[list[int]], labels: list[int], hint: str) -> Case:
        maps, given = np.array(pseudo, np.uint8), np.array(labels, np.float32)
        is_open = gate_open(torch.from_numpy(maps)[None], torch.from_numpy(given)[None])
        return (maps, given), bool(is_open), hint

    return _judged(
        answer,
        case([[0, 0], [2, 2]], [0, 1, 0], "Background and class are there, yet it is shut."),
        case([[0, 0], [0, 0]], [0, 1, 0], "A class of the image labels is lost, yet it opens."),
        case([[2, 2], [2, 2]], [0, 1, 0], "The background is lost, yet it opens."),
        case([[255, 255], [0, 0]], [1, 0, 0], "255 means that nothing is known: no class."),
        case([[0, 2], [2, 255]], [0, 1, 1], "255 means that nothing is known: no class."),
        case([[0, 2], [3, 255]], [0, 1, 1], "Pixels with 255 beside all classes do no harm."),
    )


def check_precision_and_coverage(answer: Answer) -> str:
    """05_training: precision_and_coverage(pseudo, exact) -> (share right, share labelled)."""

    def case(pseudo: list[int], exact: list[int], wanted: tuple[float, float], hint: str) -> Case:
        return (np.array([pseudo], np.uint8), np.array([exact], np.uint8)), wanted, hint

    return _judged(
        answer,
        case([0, 1], [0, 1], (1, 1), "Labels everywhere, all of them right: both are 1."),
        case([0, 1], [1, 1], (0.5, 1), "One label of two is wrong: half the precision."),
        case(
            [0, 1, 255, 255],
            [0, 1, 1, 0],
            (1, 0.5),
            "A pixel without a label lowers the coverage, and the coverage alone.",
        ),
        case(
            [0, 1, 1, 255],
            [0, 1, 255, 255],
            (1, 0.75),
            "Where the exact mask is 255 nobody can say what is right: leave such pixels out "
            "of the precision.",
        ),
    )


def check_mean_iou(answer: Answer) -> str:
    """05_training: mean_iou(confusion (N, N)) -> the mean over the classes that occur."""

    def case(rows: list[list[int]], hint: str) -> Case:
        counts = ConfusionMatrix(len(rows))
        counts.matrix += np.array(rows)
        return (np.array(rows),), counts.mean_iou, hint

    return _judged(
        answer,
        case([[8, 0], [0, 2]], "Without a mistake it is 1, however large the classes are."),
        case([[6, 2], [1, 1]], "The union of a class is its row and its column, hits once."),
        case([[6, 2, 0], [1, 1, 0], [0, 0, 0]], "A class that is nowhere has no IoU."),
        case([[6, 2, 1], [1, 1, 0], [0, 0, 0]], "A class predicted by mistake has IoU 0."),
    )


def _judged(answer: Answer, *cases: Case) -> str:
    """RIGHT, or what the first case that fails has to say."""
    for inputs, wanted, hint in cases:
        given, wrong = _tensor(answer, *inputs)
        if given is None:
            return wrong
        truth = torch.as_tensor(wanted, dtype=torch.float64)
        if given.shape != truth.shape:
            numbers = truth.numel()
            return f"{'One number is' if numbers == 1 else f'{numbers} numbers are'} asked for."
        if not torch.allclose(given, truth, atol=1e-4):
            return hint
    return RIGHT
