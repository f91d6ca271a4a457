"""How image labels become masks: scores, CAM, PAMR, pseudo labels, losses. Tensors only."""

from .cam import cam_to_labels, class_activation_maps
from .losses import gate_open, mask_loss
from .pamr import PAMR
from .pseudo import pseudo_labels, refine
from .scores import classification_loss, ngwp_scores

__all__ = [
    "PAMR",
    "cam_to_labels",
    "class_activation_maps",
    "classification_loss",
    "gate_open",
    "mask_loss",
    "ngwp_scores",
    "pseudo_labels",
    "refine",
]
