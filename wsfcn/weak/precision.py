"""One rule for half-precision networks: what is summed over pixels is summed in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32, or as it is if it has more digits than that."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
