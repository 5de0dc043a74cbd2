r"""Sums and means over the pairs of all processes that train together, each on its share of every batch.

A loss that divides by the number of (image, class) pairs must divide by that of the whole batch: a mean over
each process's own pairs would weigh a pair more where its process has few. So must one that divides by the
number of pairs of cells, or of pixels, of which some are ignored. Training averages gradients over
the N processes, so with losses $l_p$ and P pairs in all, a process that holds the pairs R returns

$$ \frac{N}{P} \sum_{p \in R} l_p \quad\text{for a mean,}\qquad N \sum_{p \in R} l_p \quad\text{for a sum,} $$

and the average over processes is the mean or sum over all pairs, whoever holds them. In one process these are
plain means and sums, the same to the last bit.

Means over images or cells need nothing of this, since all processes have equally many.
"""

from __future__ import annotations

import torch
from torch import Tensor


def group_size() -> int:
    """How many processes train together; 1 without a group."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return 1
    return distributed.get_world_size()


def total_pairs(own: int, device: torch.device) -> Tensor:
    """Count the pairs of all processes.

    Every process must come here in every step, one without any pair too.

    Args:
        own: number of this process's pairs.
        device: where losses are computed.

    Returns:
        Scalar, float32, without gradient.
    """
    total = torch.tensor(float(own), device=device)
    if group_size() > 1:
        torch.distributed.all_reduce(total)
    return total


def total_counts(own: Tensor) -> Tensor:
    """Sum counts over all processes, several in one reduction.

    Every process must come here in every step, one that has nothing to count too.

    Args:
        own: this process's counts; any shape, int64.

    Returns:
        The same shape, int64, without gradient.

    Example:
        >>> total_counts(torch.tensor([3, 0])).tolist()
        [3, 0]
    """
    if group_size() == 1:
        return own
    total = own.clone()
    torch.distributed.all_reduce(total)
    return total


def mean_over_pairs(losses: Tensor, total: Tensor | None = None) -> Tensor:
    """This process's part of the mean over all pairs.

    Args:
        losses: of this process's pairs; (P,). At least one where `total` is not used.
        total: what `total_pairs` counted; None: these are all pairs.

    Returns:
        Scalar whose average over processes is the mean.

    Example:
        >>> mean_over_pairs(torch.tensor([1.0, 2.0])).item()
        1.5
    """
    size = group_size()
    if total is None or size == 1:
        return losses.mean()
    return losses.sum() * (size / total.clamp(min=1))


def sum_over_pairs(losses: Tensor) -> Tensor:
    """This process's part of the sum over all pairs: a scalar whose average over processes is the sum."""
    size = group_size()
    return losses.sum() if size == 1 else losses.sum() * size
