"""Answers to the exercises of 01_cams."""

from __future__ import annotations

import numpy as np
import torch


def my_cam(features, weights):
    evidence = torch.einsum("chw,c->hw", features, weights).clamp(min=0)
    most = evidence.max()
    return evidence / most if most > 0 else evidence


def my_logit(evidence, bias):
    return evidence.mean() + bias


def my_shares(found, truth):
    on_object = (truth > 0) & (truth < 255)
    return (found[on_object] > 0).mean(), (found[truth == 0] > 0).mean()


def my_threshold(cam, object_mask):
    def iou(threshold):
        found = cam > threshold
        return (found & object_mask).sum() / (found | object_mask).sum()

    best = max(np.linspace(0, 0.99, 100), key=iou)
    return best, iou(best)
