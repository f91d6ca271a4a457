"""Answers to the exercises of 05_training."""

from __future__ import annotations

import numpy as np


def size_penalty(size, power, floor):
    return (1 - size) ** power * np.log(floor + size)


def may_teach(pseudo, labels):
    present = np.setdiff1d(pseudo, [255])
    return len(present) == labels.sum() + 1


def precision_and_coverage(pseudo, exact):
    labelled = pseudo != 255
    judged = labelled & (exact != 255)
    return (pseudo == exact)[judged].mean(), labelled.mean()


def mean_iou(confusion):
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    return np.mean(hits[union > 0] / union[union > 0])
