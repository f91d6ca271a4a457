"""The dense CRF as pydensecrf solves it, without torch: a process for it alone starts at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SRGB, BILATERAL_COMPAT = 13, 10
GAUSSIAN_SXY, GAUSSIAN_COMPAT = 3, 3


def solve(
    image: NDArray[np.uint8],
    energies: NDArray[np.float32],
    force: NDArray[np.float32],
    sxy: float,
    iterations: int,
) -> NDArray[np.float32]:
    """Probabilities (L, H, W) of labels with unary energies (L, H, W) on an image (H, W, 3).

    force: (L,), scales what neighbours do for a label. Raises ImportError without pydensecrf.
    """
    try:
        import pydensecrf.densecrf as dcrf
    except ImportError:
        raise ImportError(
            "pydensecrf is not installed: pip install 'wsfcn[crf]' (a C++ compiler compiles it), "
            "or take the CRF in torch (crf_code torch)"
        ) from None
    count, height, width = energies.shape
    field = dcrf.DenseCRF2D(width, height, count)
    field.setUnaryEnergy(np.ascontiguousarray(energies, np.float32).reshape(count, -1))
    field.addPairwiseGaussian(sxy=GAUSSIAN_SXY, compat=-GAUSSIAN_COMPAT * force)
    field.addPairwiseBilateral(sxy=sxy, srgb=SRGB, rgbim=image, compat=-BILATERAL_COMPAT * force)
    return np.asarray(field.inference(iterations), np.float32).reshape(count, height, width)
