"""The fully connected CRF on masks (Kraehenbuehl & Koltun, NIPS 2011), as the two codes set it."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .. import densecrf
from ..densecrf import BILATERAL_COMPAT, GAUSSIAN_COMPAT, GAUSSIAN_SXY, SRGB
from .sparse import compressed_rows

ITERATIONS = 10
BILATERAL_SXY = {"wsfcn": 30, "baseline": 80}
CLIP = 1e-5  # masks below count as this much
# Sides of a cell of the bilateral grid in standard deviations of the kernel; finer ones in colour
# cost twice the time and gain nothing that can be measured.
SPACE_CELL, COLOUR_CELL = 0.75, 1.0
NEGLIGIBLE = 1e-3  # of the mass of every pixel: absent labels that share less are left out
LANES = 4  # labels that pydensecrf takes at once; a fourth is cheaper than none


def chosen_code(code: str = "auto") -> str:
    """ "pydensecrf" or "torch"; "auto" takes torch where there is a GPU or no pydensecrf."""
    if code == "auto":
        installed = importlib.util.find_spec("pydensecrf") is not None
        return "pydensecrf" if installed and not torch.cuda.is_available() else "torch"
    if code not in ("pydensecrf", "torch"):
        raise ValueError(f"crf_code: needs auto, pydensecrf or torch, got {code!r}")
    return code


def dense_crf(
    image: NDArray[np.uint8],
    masks: NDArray[np.float32],
    kind: str = "wsfcn",
    iterations: int = ITERATIONS,
    code: str = "auto",
) -> NDArray[np.float32]:
    """Masks (N, H, W) in [0, 1], channel 0 the background, refined by an image (H, W, 3) uint8.

    kind "wsfcn" replaces the background by (1 - strongest foreground)^5 and compares pixels over
    30 px; "baseline" takes the background as it comes (its protocol cubes it) and compares over
    80 px. Both: Gaussian term sxy 3, compat 3; bilateral term srgb 13, compat 10; the unary term
    is -log of the masks, which are not normalised. code: see `chosen_code`.

    Classes that are nowhere in the masks cost no time, and yet the result is that of all N
    labels: their unary terms are equal, so by symmetry their results are, and one label stands
    for all M of them. Its unary term is lower by log M, and neighbours draw it with 1/M of the
    force, since they hold its mass in M parts. Where it is negligible at every pixel, as it is
    unless some have no mask at all, it is left out too, and the absent classes get 0.

    Raises ImportError where pydensecrf is asked for and missing.
    """
    code = chosen_code(code)
    solver, problem = solvers()[code], problem_of(image, masks, kind)
    return problem.whole(solver(*problem.given, iterations))


class Problem(NamedTuple):
    """What a solver is given, (image, energies, force, sxy), and how its result is read."""

    given: tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32], float]
    present: NDArray[np.bool_]

    def whole(self, found: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of all N labels from those of the labels present and the shared one."""
        absent = int((~self.present).sum())
        whole = np.empty((len(self.present), *found.shape[1:]), np.float32)
        count = len(whole) - absent
        whole[self.present] = found[:count]
        whole[~self.present] = found[-1] / absent if len(found) > count else 0
        return whole


def problem_of(image: NDArray[np.uint8], masks: NDArray[np.float32], kind: str) -> Problem:
    """The part of `dense_crf` that comes before solving; arguments as there."""
    if kind not in BILATERAL_SXY:
        raise ValueError(f"kind: needs one of {', '.join(BILATERAL_SXY)}, got {kind!r}")
    if image.shape[:2] != masks.shape[1:]:
        raise ValueError(f"image is {image.shape[:2]}, masks are {masks.shape[1:]}")
    if kind == "wsfcn":
        masks = np.concatenate([(1 - masks[1:].max(0, keepdims=True)) ** 5, masks[1:]])
    present = masks.max((1, 2)) > CLIP
    present[0] = True
    absent = int((~present).sum())
    kept = masks[present].clip(CLIP, 1)
    energies = -np.log(kept)
    free = len(kept) % LANES == LANES - 1
    stands = absent > 0 and (free or CLIP * absent > NEGLIGIBLE * kept.max(0).min())
    force = np.ones(len(energies) + stands, np.float32)
    if stands:
        # A trifle more, so that rounding, which iterations amplify, decides no tie against the
        # background.
        shared = np.full((1, *image.shape[:2]), 2e-6 - np.log(CLIP * absent), np.float32)
        energies, force[-1] = np.concatenate([energies, shared]), 1 / absent
    # pydensecrf refuses photos that are read-only or mirrored views, hence a copy.
    given = (np.array(image, order="C"), energies, force, BILATERAL_SXY[kind])
    return Problem(given, present)


def solvers() -> dict[str, Callable[..., NDArray[np.float32]]]:
    """By code: (*problem.given, iterations) -> probabilities."""
    return {"pydensecrf": densecrf.solve, "torch": _torch}


def _torch(
    image: NDArray[np.uint8],
    energies: NDArray[np.float32],
    force: NDArray[np.float32],
    sxy: float,
    iterations: int,
) -> NDArray[np.float32]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seen, unary, scale = (torch.from_numpy(a).to(device) for a in (image, energies, force))
    with torch.no_grad():
        return mean_field(seen, unary, scale, sxy, iterations).cpu().numpy()


def mean_field(
    image: Tensor, energies: Tensor, force: Tensor, sxy: float, iterations: int
) -> Tensor:
    """Mean field of the fully connected Potts CRF in torch, on the tensors' device.

    image (H, W, 3) uint8; energies (L, H, W); force (L,) scales what neighbours do for a label.
    Kernels are normalised as in the original code, D^-1/2 K D^-1/2. -> (L, H, W), sums to 1.
    """
    grid = BilateralGrid(image, sxy, SRGB)
    ones = torch.ones_like(energies[:1])
    near, far = (torch.rsqrt(f(ones) + 1e-20) for f in (_gaussian, grid))
    force = force[:, None, None]
    q = (-energies).softmax(0)
    for _ in range(iterations):
        message = GAUSSIAN_COMPAT * near * _gaussian(near * q)
        message += BILATERAL_COMPAT * far * grid(far * q)
        q = (force * message - energies).softmax(0)
    return q


def _gaussian(maps: Tensor) -> Tensor:
    """(L, H, W) filtered by exp(-d^2 / 2 sxy^2), cut at 4 sxy; there is nothing outside."""
    reach = 4 * GAUSSIAN_SXY
    offsets = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    taps = (-0.5 * (offsets / GAUSSIAN_SXY) ** 2).exp()
    columns = F.conv2d(maps[:, None], taps[None, None, :, None], padding=(reach, 0))
    return F.conv2d(columns, taps[None, None, None], padding=(0, reach))[:, 0]


class BilateralGrid:
    """sum_j exp(-|p_i - p_j|^2 / 2 sxy^2 - |c_i - c_j|^2 / 2 srgb^2) x_j in time linear in pixels.

    Pixels spread their values over the corners of their cell in (y, x, r, g, b), corners are
    filtered by the exact kernel, and pixels read them back (Paris & Durand, ECCV 2006). Only
    colours that the image has exist. Spreading and reading widen the kernel by cell^2 / 3, so
    that of the corners is narrower by as much.
    """

    def __init__(self, image: Tensor, sxy: float, srgb: float) -> None:
        height, width, _ = image.shape
        device = image.device
        place, fraction, kernels = [], [], []
        for length in (height, width):
            at = torch.arange(length, device=device) / (SPACE_CELL * sxy)
            place.append(at.long())
            fraction.append(at - at.floor())
            nodes = torch.arange(int(at[-1]) + 2, device=device)
            kernels.append(_kernel((nodes[:, None] - nodes[None]).square(), SPACE_CELL))
        self.rows, self.columns = kernels
        colours = image.reshape(-1, 3) / (COLOUR_CELL * srgb)
        corner, rest = colours.long(), colours - colours.floor()
        # One whole number for each colour corner; filters reach less than 8 cells beyond.
        radix = torch.tensor([64**2, 64, 1], device=device)
        corners = torch.tensor([*itertools.product((0, 1), repeat=3)], device=device)
        bases, base = ((corner + 8) * radix).sum(1).unique(return_inverse=True)
        keys = bases[:, None] + (corners * radix).sum(1)
        self.colours, index = keys.unique(return_inverse=True)
        weights = torch.where(corners.bool(), rest[:, None], 1 - rest[:, None]).prod(2)
        self.size = (len(self.colours), len(self.rows), len(self.columns))
        where, values = [], []
        for steps in itertools.product((0, 1), repeat=2):
            y, x = (p + step for p, step in zip(place, steps, strict=True))
            wy, wx = (s if step else 1 - s for s, step in zip(fraction, steps, strict=True))
            spot = (y[:, None] * self.size[2] + x).reshape(-1, 1)
            where.append(index[base] * (self.size[1] * self.size[2]) + spot)
            values.append(weights * (wy[:, None] * wx).reshape(-1, 1))
        pixels = torch.arange(height * width, device=device).repeat_interleave(32)
        nodes, share = torch.cat(where, 1).reshape(-1), torch.cat(values, 1).reshape(-1)
        shape = (height * width, self.size[0] * self.size[1] * self.size[2])
        self.read = _sparse(pixels, nodes, share, shape)
        order = nodes.argsort()
        self.spread = _sparse(nodes[order], pixels[order], share[order], shape[::-1])
        self.mix = self._colour_kernel(radix)

    def _colour_kernel(self, radix: Tensor) -> Tensor:
        """The kernel between colour corners, sparse: beyond its reach it is below 1e-3."""
        reach = range(-5, 6)
        offsets = torch.tensor([*itertools.product(reach, repeat=3)], device=radix.device)
        weights = _kernel(offsets.square().sum(1), COLOUR_CELL)
        offsets, weights = offsets[weights > 1e-3], weights[weights > 1e-3]
        wanted = self.colours[:, None] + (offsets * radix).sum(1)
        found = torch.searchsorted(self.colours, wanted).clamp(max=len(self.colours) - 1)
        hit = self.colours[found] == wanted
        rows = torch.arange(len(found), device=radix.device)[:, None].expand_as(found)
        size = (len(self.colours), len(self.colours))
        return _sparse(rows[hit], found[hit], weights.expand_as(found)[hit], size)

    def __call__(self, maps: Tensor) -> Tensor:
        """(L, H, W) -> (L, H, W)."""
        colours, rows, columns = self.size
        nodes = (self.spread @ maps.reshape(len(maps), -1).t().contiguous()).view(colours, -1)
        nodes = (self.mix @ nodes).view(colours, rows, columns, -1)
        nodes = torch.einsum("yv,xu,cvul->cyxl", self.rows, self.columns, nodes)
        return (self.read @ nodes.reshape(-1, len(maps))).t().reshape(maps.shape)


def _sparse(rows: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """A compressed sparse matrix of entries in the order of their rows."""
    ends = torch.bincount(rows, minlength=size[0]).cumsum(0)
    return compressed_rows(F.pad(ends, (1, 0)), columns, values, size)


def _kernel(squares: Tensor, cell: float) -> Tensor:
    """exp(-d^2 / 2 v) of squared distances in cells, v = 1 - cell^2 / 3 in the kernel's units."""
    return (-0.5 * squares * cell**2 / (1 - cell**2 / 3)).exp()
