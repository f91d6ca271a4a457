"""Sparse matrices."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def compressed_rows(ends: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """A matrix of `size` from its entries row by row (CSR).

    Row r has the entries ends[r] to ends[r + 1]: their columns and their values.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # "is in beta state"
        return torch.sparse_csr_tensor(ends, columns, values, size, check_invariants=False)
