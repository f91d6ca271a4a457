"""wsfcn: weakly-supervised semantic segmentation with WS-FCN, as a package and a course.

The names below load on first use, so that `import wsfcn` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import data, evaluate, predict, protocols, recipes, train, weights
    from .build import build_model, load, save
    from .model.network import count_parameters
    from .predict import segment

_HOMES = {
    "build_model": "build",
    "load": "build",
    "save": "build",
    "count_parameters": "model.network",
    "segment": "predict",
}
_MODULES = {
    "data",
    "evaluate",
    "model",
    "predict",
    "protocols",
    "recipes",
    "show",
    "study",
    "train",
    "weak",
    "weights",
}

__all__ = sorted({*_HOMES, *_MODULES})


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
