r"""The permutohedral lattice: Gaussian filtering of values that lie at points of a feature space.

Each pixel is a point in a space of d features. The space is cut into simplices, whose corners are the
lattice's points; a pixel shares its values with the d + 1 corners of its simplex by barycentric weights
(splat), the points exchange values along d + 1 axes (blur), and the pixel reads them back (slice). The result
approximates the Gaussian $\exp(-|f_i - f_j|^2 / 2)$, the pixel's own value included.

The dense CRF's labels depend on this very approximation: an exact Gaussian changes 1-6% of them.

Source:
    Adams, Baek and Davis, Eurographics 2010; in the form of the dense CRF of Krähenbühl and Koltun (NIPS
    2011) as the field runs it.
    Differs: pixels are not padded to a multiple of four with zero features, as its SSE build does (up to
    5e-5 in marginals).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from wsss.errors import ShapeError

MOST_PACKED: Final = 2.0**62  # of a key packed into 64 bits


@dataclass(frozen=True, eq=False)
class Lattice:
    """What filtering needs of one set of features.

    Args:
        vertices: numbers of the corners of each pixel's simplex; (P, d + 1), int32.
        weights: barycentric weights of these corners; (P, d + 1), float32.
        neighbours: number of the point before and after each point along each axis, M where there is none;
            (d + 1, M, 2), int32.
    """

    vertices: Tensor
    weights: Tensor
    neighbours: Tensor

    @property
    def num_points(self) -> int:
        """M."""
        return self.neighbours.shape[1]


@dataclass(frozen=True)
class Packing:
    """How d coordinates become one number: each minus its lowest value, times its place value.

    Args:
        lowest: of each coordinate.
        strides: place values.
        span: number of possible keys.
    """

    lowest: tuple[int, ...]
    strides: tuple[int, ...]
    span: int

    @property
    def moves(self) -> tuple[int, ...]:
        """What a step forward along each of the d + 1 axes adds to a packed key.

        A step adds 1 to every coordinate; along axis j < d coordinate j gets -d instead.
        """
        d, total = len(self.strides), sum(self.strides)
        return (*(total - (d + 1) * stride for stride in self.strides), total)


def build_lattice(features: Tensor, groups: Tensor | None = None, *, threads: int = 1) -> Lattice:
    """Build the lattice of some features, on their device.

    Args:
        features: finite, in units of standard deviations; (P, d), float32.
        groups: pixels of different groups never meet (the images of a batch); (P,), int64; None: one group.
        threads: of the compiled loops on a CPU.

    Raises:
        ShapeError: features are not (P, d) or not finite, or spread over more than 2^62 cells.
    """
    if features.ndim != 2 or not features.numel() or not bool(torch.isfinite(features).all()):
        raise ShapeError(
            f"`features` must be finite and (P, d) with at least one pixel; got {tuple(features.shape)}. "
            "Check image and standard deviations."
        )
    features = features.float().contiguous()
    packing = _packing(features, 1 if groups is None else int(groups.max()) + 1)
    if features.device.type == "cpu" and groups is None:
        return _build_on_cpu(features, packing, threads)
    keys, weights = embed(features, packing)
    if groups is not None:
        keys += (groups * packing.span)[:, None]
    points, vertices = torch.unique(keys, return_inverse=True)
    return Lattice(vertices.int(), weights, _neighbours(points, packing.moves).int())


def embed(features: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
    """Packed keys (P, d + 1) int64 and barycentric weights (P, d + 1) of the corners around each pixel."""
    count, d = features.shape
    scaled = features * torch.tensor(_scales(d), device=features.device)
    y = features.new_empty(count, d + 1)
    total = features.new_zeros(count)
    for i in range(d, 0, -1):
        y[:, i] = total - i * scaled[:, i - 1]
        total = total + scaled[:, i - 1]
    y[:, 0] = total
    v = torch.round(y * _reciprocal(d))  # halves to even, as the reference's SSE build
    r, shift = v.long() * (d + 1), v.sum(dim=1).long()
    delta = y - r
    rank = torch.zeros_like(r)
    for i in range(d):
        for j in range(i + 1, d + 1):
            is_less = delta[:, i] < delta[:, j]
            rank[:, i] += is_less
            rank[:, j] += ~is_less
    rank += shift[:, None]
    turn = (rank < 0).long() - (rank > d).long()
    rank, r = rank + turn * (d + 1), r + turn * (d + 1)
    t = (y - r) / (d + 1)
    b = features.new_zeros(count, d + 2)
    b.scatter_add_(1, d - rank, t)
    b.scatter_add_(1, d + 1 - rank, -t)
    b[:, 0] += 1 + b[:, d + 1]
    strides = torch.tensor(packing.strides, device=features.device)
    base = ((r[:, :d] - torch.tensor(packing.lowest, device=features.device)) * strides).sum(dim=1)
    corners = torch.arange(d + 1, device=features.device)
    wraps = rank[:, None, :d] > d - corners[:, None]  # (P, d + 1, d)
    keys = base[:, None] + ((corners[:, None] - (d + 1) * wraps) * strides).sum(dim=2)
    return keys, b[:, : d + 1].contiguous()


def _neighbours(points: Tensor, moves: tuple[int, ...]) -> Tensor:
    """(d + 1, M, 2) from ascending packed keys (M,)."""
    found = []
    for move in moves:
        for step in (-move, move):
            wanted = points + step
            place = torch.searchsorted(points, wanted).clamp(max=len(points) - 1)
            found.append(torch.where(points[place] == wanted, place, len(points)))
    return torch.stack(found).view(len(moves), 2, -1).transpose(1, 2).contiguous()


def _build_on_cpu(features: Tensor, packing: Packing, threads: int) -> Lattice:
    from wsss.crf import kernels  # numba takes a second to import

    (count, d), values = features.shape, features.numpy()
    keys = np.empty((count, d + 1), np.int64)
    weights = np.empty((count, d + 1), np.float32)
    lowest, strides = (np.array(part, np.int64) for part in (packing.lowest, packing.strides))
    edges = [count * part // threads for part in range(threads + 1)]
    embed_range = partial(kernels.embed, (0,) * d, values, _scales(d), lowest, strides, keys, weights)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(embed_range, edges[:-1], edges[1:]))
    vertices, points = np.empty((count, d + 1), np.int32), np.empty(count * (d + 1), np.int64)
    table, numbers, num_points = kernels.number_points(keys, vertices, points)
    neighbours = np.full((d + 1, num_points, 2), num_points, np.int32)
    moves = np.array(packing.moves, np.int64)
    kernels.find_neighbours(points[:num_points], table, numbers, moves, neighbours)
    return Lattice(*map(torch.from_numpy, (vertices, weights, neighbours)))


def _reciprocal(d: int) -> float:
    """1 / (d + 1) in float32: the reference multiplies by it, and coordinates are often ties."""
    return float(np.float32(1) / np.float32(d + 1))


def _scales(d: int) -> np.ndarray:
    """What each feature is multiplied by, so that the blur has the variance of one standard deviation."""
    # rounded where the C++ code rounds: which way ties go depends on it
    # rounded where the C++ code rounds: which way ties go depends on it
    spread = float(np.float32((d + 1) * (2 / 3) ** 0.5))
    return np.array([spread / ((i + 1) * (i + 2)) ** 0.5 for i in range(d)], dtype=np.float32)


def _packing(features: Tensor, groups: int) -> Packing:
    """A packing with room for all keys and their neighbours: bounds of the elevated coordinates."""
    d = features.shape[1]
    low, high = (limit.cpu().double().numpy() * _scales(d) for limit in torch.aminmax(features, dim=0))
    margin = 3 * (d + 1)  # rounding, the simplex and one step of the blur
    lowest, ranges = [], []
    for j in range(d):
        before = (j * high[j - 1], j * low[j - 1]) if j else (0.0, 0.0)
        lowest.append(int(np.floor(low[j:].sum() - before[0])) - margin)
        ranges.append(int(np.ceil(high[j:].sum() - before[1])) + margin - lowest[-1] + 1)
    if float(np.prod([float(r) for r in ranges])) * groups > MOST_PACKED:
        raise ShapeError(
            f"A lattice of {d} features would have up to {' x '.join(map(str, ranges))} cells, more than "
            "2^62. Use larger standard deviations, or a smaller image."
        )
    strides = [1]
    for r in ranges:
        strides.append(strides[-1] * r)
    return Packing(tuple(lowest), tuple(strides[:-1]), strides[-1])
