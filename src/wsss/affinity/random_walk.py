"""Random walks that spread activation scores along pixel affinities: the last step of PSA and of IRN.

The reference code squares a dense N x N transition matrix eight times. Here the scores take the 256 steps,
each as multiply-adds of shifted planes: less than 10^9 operations per image and class instead of 10^13, and
no index tensors.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from wsss.affinity.pairs import offsets, overlap
from wsss.errors import ShapeError

_LEAST_WEIGHT: Final = 1e-20  # smaller ones become 0: they change nothing, and denormals are slow
_FLOOR: Final = 1e-6  # added to the scores during the walk


@torch.no_grad()
def walk(
    scores: Tensor, affinities: Tensor, *, radius: int, affinity_power: float, num_doublings: int
) -> Tensor:
    r"""Spread scores along pixel affinities by a random walk; every result is a weighted mean of scores.

    $$ T = A^{\circ p} D^{-1}, \qquad S' = S\,T^{2^n} $$

    A is the symmetric N x N matrix of affinities with ones on its diagonal, D the diagonal matrix of the
    column sums of its elementwise power, S the scores as M row vectors. Constant scores stay as they are.

    No number on the way is denormal, which would slow a CPU down thirty times: powers below 1e-20 are taken
    as 0, and because T keeps constants, 1e-6 is added to the scores and taken off at the end.

    Args:
        scores: (M, h, w), non-negative; M may be 0.
        affinities: `affinities[p, y, x]` belongs to cell (y, x) and the cell `offsets(radius)[p]` away;
            (P, h, w) in [0, 1]. Entries whose destination is outside the grid are not read; 0: no such pair.
        radius: in cells (PSA, IRN: 5).
        affinity_power: exponent p, no unit (PSA: 8, IRN: 10); larger keeps walks inside regions.
        num_doublings: n; the walk takes 2**n steps (PSA, IRN: 8).

    Returns:
        (M, h, w), non-negative, at least float32.

    Raises:
        ShapeError: the affinities are not (P, h, w) for the scores' grid and radius.

    Source:
        Ahn and Kwak, CVPR 2018, equations 4 and 5, https://arxiv.org/abs/1803.10464.
        Differs: none in the result, up to rounding; see above.

    Example:
        >>> scores, affinities = torch.tensor([[[1.0, 0.0]]]), torch.ones(4, 1, 2)
        >>> walk(scores, affinities, radius=2, affinity_power=8, num_doublings=0)
        tensor([[[0.5000, 0.5000]]])
    """
    _check(scores, affinities, radius)
    weights = _powers(affinities, affinity_power)  # (P, h, w)
    shares = 1 / _column_sums(weights, radius)  # (h, w)
    now = scores.to(weights.dtype) + _FLOOR
    then = torch.empty_like(now)
    there, back = _moves(weights, now, then, radius), _moves(weights, then, now, radius)
    for number in range(2**num_doublings):
        then.copy_(now)  # the diagonal
        for weight, read, written in back if number % 2 else there:
            written.addcmul_(weight, read)
        then *= shares
        now, then = then, now
    return (now - _FLOOR).clamp_(min=0)


def _powers(affinities: Tensor, affinity_power: float) -> Tensor:
    """Elementwise powers, at least float32; tiny ones are 0 and never computed."""
    affinities = affinities.to(torch.promote_types(affinities.dtype, torch.float32))
    is_tiny = affinities < _LEAST_WEIGHT ** (1 / affinity_power)
    return affinities.masked_fill(is_tiny, 0) ** affinity_power


def _moves(weights: Tensor, now: Tensor, then: Tensor, radius: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Both ways through all pairs: weights, the scores they multiply, where the products are added; views."""
    moves = []
    for plane, offset in zip(weights, offsets(radius), strict=True):
        weight, _ = overlap(plane, offset)
        (now_here, now_there), (then_here, then_there) = overlap(now, offset), overlap(then, offset)
        if weight.numel():
            moves += [(weight, now_there, then_here), (weight, now_here, then_there)]
    return moves


def _column_sums(weights: Tensor, radius: int) -> Tensor:
    """Sums over all neighbours and the cell itself; (h, w), at least 1."""
    ones = weights.new_ones(1, *weights.shape[1:])
    sums = ones.clone()
    for weight, read, written in _moves(weights, ones, sums, radius):
        written.addcmul_(weight, read)
    return sums[0]


def _check(scores: Tensor, affinities: Tensor, radius: int) -> None:
    number = len(offsets(radius))
    if scores.ndim != 3 or affinities.shape != (number, *scores.shape[1:]):
        raise ShapeError(
            f"`affinities` must be (P, h, w) with P = {number} pairs for radius {radius} and the grid of the "
            f"`scores` (M, h, w); got {tuple(affinities.shape)} for scores {tuple(scores.shape)}. "
            "Resize the scores to the grid of the affinities."
        )
