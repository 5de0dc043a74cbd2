r"""Affinities of pairs from a boundary map: high where no boundary lies on the way between the two cells.

$$ a_{ij} = 1 - \max_{c \in \Pi_{ij}} b(c) $$

with the boundary b and the cells of the straight path from i to j, both ends included. A path crosses each
row (or each column) in one run of cells, and all paths share the maxima of such runs: for radius 10, 532
reads of shifted planes instead of 2134, and no index tables. For the gradient only boundary and maxima are
kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from wsss.affinity.pairs import destinations, offsets, path, sources
from wsss.errors import ShapeError

_ALONG_ROW: Final = -1
_ALONG_COLUMN: Final = -2

Planes: TypeAlias = dict[tuple[int, int], Tensor]
"""By axis and length of a run: a value for each cell that a run starts from."""


def path_affinities(boundary: Tensor, radius: int) -> Tensor:
    """One minus the largest boundary on the path, for each source in training and all its destinations.

    Args:
        boundary: (B, h, w) in [0, 1].
        radius: in cells (IRN: 10).

    Returns:
        (B, P, h', w') in [0, 1], for the P `offsets(radius)` of the `sources`. Where several cells of a path
        are equal, the gradient goes to one of them.

    Raises:
        ShapeError: the boundary is not (B, h, w), or the grid is too small for the radius.

    Source:
        Ahn et al., CVPR 2019, equation 4, https://arxiv.org/abs/1904.05044.
        Differs: none; see above for how it is computed.

    Example:
        >>> path_affinities(torch.tensor([[[0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]]), radius=2).flatten().tolist()
        [0.5, 1.0, 1.0, 0.5]
    """
    if boundary.ndim != 3:
        raise ShapeError(
            f"`boundary` must be (B, h, w); got {tuple(boundary.shape)}. Drop the channel of the logits."
        )
    maxima: Tensor = _PathMaxima.apply(boundary, radius)
    return 1 - maxima


def walk_affinities(boundary: Tensor, radius: int) -> Tensor:
    """`path_affinities` of all cells, as `random_walk.walk` takes them; 0 for pairs that leave the grid.

    Args:
        boundary: (B, h, w) in [0, 1].
        radius: in cells (IRN: 5).

    Returns:
        (B, P, h, w) in [0, 1].

    Source:
        As `path_affinities`; the reference pads the boundary with 1 at the left, right and bottom.
        Differs: by one cell less, which suffices.
    """
    reach = radius - 1
    return path_affinities(F.pad(boundary, (reach, reach, 0, reach), value=1.0), radius)


class _PathMaxima(torch.autograd.Function):
    """Largest value on each path; (B, h, w) -> (B, P, h', w')."""

    @staticmethod
    def forward(ctx: Any, boundary: Tensor, radius: int) -> Tensor:
        ctx.radius = radius
        shape = sources(boundary, radius).shape
        planes = _run_maxima(boundary, radius)
        maxima = boundary.new_empty((shape[0], len(offsets(radius)), *shape[1:]))
        for number, offset in enumerate(offsets(radius)):
            first, *others = _runs(*offset)
            largest = maxima[:, number].copy_(first.read(planes, radius))
            for run in others:
                torch.maximum(largest, run.read(planes, radius), out=largest)
        ctx.save_for_backward(boundary, maxima)
        return maxima

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        boundary, maxima = ctx.saved_tensors
        planes = _run_maxima(boundary, ctx.radius)
        shares = {key: torch.zeros_like(boundary) for key in planes}
        for number, offset in enumerate(offsets(ctx.radius)):
            rest = gradient[:, number].clone()
            for run in _runs(*offset):
                # the first run that reaches the maximum takes the whole gradient: equal cells are common in
                # flat images
                is_largest = run.read(planes, ctx.radius) == maxima[:, number]
                taken = torch.where(is_largest, rest, 0.0)
                run.read(shares, ctx.radius).add_(taken)
                rest -= taken
        return _gathered(planes, shares), None


class _Run(NamedTuple):
    """Cells of a path that follow one another in a row or column; `cell` (y, x) is the first of them."""

    axis: int
    length: int
    cell: tuple[int, int]

    def read(self, planes: Planes, radius: int) -> Tensor:
        """The run's value for all sources, as a view; (B, h', w')."""
        return destinations(planes[self.axis, self.length], self.cell, radius)


@lru_cache(maxsize=1024)
def _runs(dy: int, dx: int) -> tuple[_Run, ...]:
    """The path to (`dy`, `dx`) as runs along rows or along columns, whichever are fewer."""
    rows: dict[int, list[int]] = {}
    columns: dict[int, list[int]] = {}
    for y, x in path(dy, dx):
        rows.setdefault(y, []).append(x)
        columns.setdefault(x, []).append(y)
    along_rows = tuple(_Run(_ALONG_ROW, len(xs), (y, min(xs))) for y, xs in rows.items())
    along_columns = tuple(_Run(_ALONG_COLUMN, len(ys), (min(ys), x)) for x, ys in columns.items())
    return min(along_rows, along_columns, key=len)


def _run_maxima(values: Tensor, radius: int) -> Planes:
    """Largest value of each run of 1…radius cells; runs that leave the grid are never read."""
    planes: Planes = {}
    for axis in (_ALONG_ROW, _ALONG_COLUMN):
        planes[axis, 1] = values
        for length in range(2, radius + 1):
            planes[axis, length] = planes[axis, length - 1].clone()
            here, there = _ends(planes[axis, length], values, axis, length)
            torch.maximum(here, there, out=here)
    return planes


def _gathered(planes: Planes, shares: Planes) -> Tensor:
    """The gradients of all runs, passed on to their largest cells; (B, h, w). Uses `shares` up."""
    lengths = max(length for _, length in planes)
    for axis in (_ALONG_ROW, _ALONG_COLUMN):
        for length in range(lengths, 1, -1):
            whole = shares[axis, length]
            is_without_last = planes[axis, length] == planes[axis, length - 1]
            taken = torch.where(is_without_last, whole, 0.0)
            shares[axis, length - 1] += taken
            whole -= taken
            here, there = _ends(whole, shares[axis, 1], axis, length)
            there += here
    return shares[_ALONG_ROW, 1] + shares[_ALONG_COLUMN, 1]


def _ends(first: Tensor, last: Tensor, axis: int, length: int) -> tuple[Tensor, Tensor]:
    """`first` at the first and `last` at the last cells of all whole runs, as views."""
    count = first.shape[axis] - (length - 1)
    return first.narrow(axis, 0, count), last.narrow(axis, length - 1, count)
