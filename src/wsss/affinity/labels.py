"""What is known of each pair of cells when the classes of some cells are: the target of affinity learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from wsss.affinity.pairs import destinations, offsets, sources
from wsss.errors import ShapeError
from wsss.layers.pair_count import sum_over_pairs, total_counts
from wsss.types import BACKGROUND, IGNORE

COUNT_EPSILON: Final = 1e-5  # PSA and IRN: keeps the mean over no pairs at 0


class PairTotals(NamedTuple):
    """How many pairs of each kind all processes have that train together; scalars, int64."""

    background: Tensor
    foreground: Tensor
    different: Tensor


@dataclass(frozen=True, eq=False)
class PairLabels:
    """Three disjoint kinds of pairs; a pair with an ignored end is of none.

    Args:
        background: both ends are background; (B, P, h', w'), bool.
        foreground: both ends are of the same foreground class; (B, P, h', w'), bool.
        different: the ends differ; (B, P, h', w'), bool.
    """

    background: Tensor
    foreground: Tensor
    different: Tensor

    def totals(self) -> PairTotals:
        """Count the pairs of all processes; every process must come here in every step."""
        own = [kind.sum() for kind in (self.background, self.foreground, self.different)]
        return PairTotals(*total_counts(torch.stack(own)))


def pair_labels(labels: Tensor, radius: int) -> PairLabels:
    """Compare the classes of both ends of all pairs.

    Args:
        labels: class of each cell: 0 background, 255 ignore, any other number a class of the image;
            (B, h, w), integer.
        radius: in cells.

    Returns:
        Kinds of the P = `len(offsets(radius))` pairs of each source, on the labels' device.

    Raises:
        ShapeError: the labels are no integers (B, h, w), or the grid is too small for the radius.

    Source:
        Ahn and Kwak, CVPR 2018, section 3.2, https://arxiv.org/abs/1803.10464.
        Differs: none.
    """
    if labels.ndim != 3 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ShapeError(
            f"`labels` must be (B, h, w) integers; got {tuple(labels.shape)} {labels.dtype}. "
            "Pass the class of each cell, 255 where it is unknown."
        )
    here = sources(labels, radius)[:, None]  # (B, 1, h', w')
    there = torch.stack([destinations(labels, offset, radius) for offset in offsets(radius)], dim=1)
    # valid is < 255, as in the reference: labels above 255 do not occur in the label space
    are_valid = (here < IGNORE) & (there < IGNORE)
    are_equal = (here == there) & are_valid
    is_background = here == BACKGROUND
    return PairLabels(are_equal & is_background, are_equal & ~is_background, are_valid & ~are_equal)


def mean_over(values: Tensor, chosen: Tensor, total: Tensor | None = None) -> Tensor:
    """Mean of the chosen values, 0 where none is.

    The sum is divided by the count + 1e-5, as in the code of PSA and IRN.

    Args:
        values: any shape.
        chosen: bool, of the same shape.
        total: number of chosen values of all processes that train together; None: counted here.

    Returns:
        Scalar whose average over processes is the mean over their values.
    """
    total = total_counts(chosen.sum()) if total is None else total
    # where, not a product: an infinite value that is not chosen must not give NaN
    return sum_over_pairs(torch.where(chosen, values, torch.zeros_like(values))) / (total + COUNT_EPSILON)
