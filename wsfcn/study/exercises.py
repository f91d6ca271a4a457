"""The judge of the exercises: says what is wrong with an answer, without giving it away."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Case = tuple[Any, Any, str]  # inputs, what is wanted of them, the hint where it is not


def judge(answer: Callable[..., Any], *cases: Case) -> None:
    """Print "Right", or "Not yet" and the hint of the first case that fails.

    A case is (inputs, wanted, hint). inputs: the arguments as a tuple, each case gets a copy.
    wanted: the value (numbers, arrays and tensors count as equal to four digits, also within
    tuples), or a function of the answer's value that says whether it is right. It never raises
    for what the answer does, so that a notebook with unsolved exercises runs to its end.
    """
    for inputs, wanted, hint in cases:
        wrong = _wrong(answer, inputs if isinstance(inputs, tuple) else (inputs,), wanted, hint)
        if wrong:
            print(f"Not yet: {wrong}")
            return
    print("Right.")


def _wrong(answer: Callable[..., Any], inputs: tuple[Any, ...], wanted: Any, hint: str) -> str:
    """What is wrong with the value of one case; empty where nothing is."""
    name = getattr(answer, "__name__", "the function")
    try:
        given = answer(*copy.deepcopy(inputs))
        if given is None or given is ...:
            return f"{name} returns nothing."
    except Exception as error:
        text = (str(error).splitlines() or [""])[0]
        return f"{name} stops with {type(error).__name__}: {text}"
    try:
        if callable(wanted):
            return "" if wanted(given) else hint
        return _different(given, wanted, hint)
    except Exception:  # a value that cannot be compared is not the one that is wanted
        return hint


def _different(given: Any, wanted: Any, hint: str) -> str:
    if isinstance(wanted, str | dict | set):
        return "" if given == wanted else hint
    if isinstance(wanted, tuple | list):
        if not hasattr(given, "__len__") or len(given) != len(wanted):
            return f"{len(wanted)} values are asked for."
        parts = (_different(a, b, hint) for a, b in zip(given, wanted, strict=True))
        return next(filter(None, parts), "")
    value, truth = _tensor(given), _tensor(wanted)
    if value.shape != truth.shape:
        if not truth.shape:
            return f"one number is asked for, this has shape {tuple(value.shape)}."
        return f"the shape is {tuple(value.shape)}; {tuple(truth.shape)} is asked for."
    return "" if torch.allclose(value, truth, atol=1e-4, equal_nan=True) else hint


def _tensor(value: Any) -> torch.Tensor:
    return (
        torch.as_tensor(np.asarray(value) if isinstance(value, list) else value).detach().double()
    )
