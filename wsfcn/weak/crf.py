"""The fully connected CRF on masks (Kraehenbuehl & Koltun, NIPS 2011), as the two codes set it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BILATERAL_SXY = {"wsfcn": 30, "baseline": 80}


def dense_crf(
    image: NDArray[np.uint8], masks: NDArray[np.float32], kind: str = "wsfcn", iterations: int = 10
) -> NDArray[np.float32]:
    """Masks (N, H, W) in [0, 1], channel 0 the background, refined by an image (H, W, 3) uint8.

    kind "wsfcn" replaces the background by (1 - strongest foreground)^5 and compares pixels over
    30 px; "baseline" takes the background as it comes (its protocol cubes it) and compares over
    80 px. Both: Gaussian term sxy 3, compat 3; bilateral term srgb 13, compat 10; the unary term
    is -log of the masks, which are not normalised. Raises ImportError without pydensecrf.
    """
    try:
        import pydensecrf.densecrf as dcrf
        from pydensecrf.utils import unary_from_softmax
    except ImportError:
        raise ImportError(
            "the CRF needs pydensecrf: pip install 'wsfcn[crf]' (a C++ compiler compiles it)"
        ) from None
    if kind not in BILATERAL_SXY:
        raise ValueError(f"kind: needs one of {', '.join(BILATERAL_SXY)}, got {kind!r}")
    if image.shape[:2] != masks.shape[1:]:
        raise ValueError(f"image is {image.shape[:2]}, masks are {masks.shape[1:]}")
    count, height, width = masks.shape
    if kind == "wsfcn":
        masks = np.concatenate([(1 - masks[1:].max(0, keepdims=True)) ** 5, masks[1:]])
    field = dcrf.DenseCRF2D(width, height, count)
    field.setUnaryEnergy(unary_from_softmax(np.ascontiguousarray(masks, np.float32)))
    field.addPairwiseGaussian(sxy=3, compat=3)
    field.addPairwiseBilateral(
        sxy=BILATERAL_SXY[kind], srgb=13, rgbim=np.ascontiguousarray(image), compat=10
    )
    return np.asarray(field.inference(iterations), np.float32).reshape(count, height, width)
