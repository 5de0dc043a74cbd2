"""Unary energies of the dense CRF, in nats: from probabilities or scores, logits, or hard labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wsss.errors import ShapeError

LEAST = 1e-5  # probabilities are clipped to this, as the reference does


def unary_from_probabilities(probabilities: Tensor) -> Tensor:
    """-ln of probabilities clipped to [1e-5, 1]; they need not sum to one (PSA and CLIP-ES pass scores).

    Args:
        probabilities: (…, C, H, W) in [0, 1].

    Raises:
        ShapeError: a value is outside [0, 1], or not a number.
    """
    if probabilities.numel():
        low, high = (float(limit) for limit in torch.aminmax(probabilities))
        if not (low >= 0.0 and high <= 1.0 + 1e-5):  # also false for NaN; a softmax may exceed 1 by rounding
            raise ShapeError(
                f"`probabilities` must lie in [0, 1]; got {low:.4g} to {high:.4g}. "
                "Pass probabilities or normalised scores, not logits."
            )
    return -probabilities.float().clamp(LEAST, 1.0).log()


def unary_from_logits(logits: Tensor) -> Tensor:
    """-ln of their softmax over the labels; (…, C, H, W), finite."""
    if not bool(torch.isfinite(logits).all()):
        raise ShapeError("`logits` must be finite; got NaN or infinity. Look at the network's output.")
    return unary_from_probabilities(logits.float().softmax(dim=-3))


def unary_from_labels(labels: Tensor, num_labels: int, certainty: float = 0.7) -> Tensor:
    """-ln certainty at each pixel's label, -ln((1 - certainty) / (C - 1)) at the others.

    Args:
        labels: positions in the list of labels, 0…C-1; (…, H, W), integers.
        num_labels: C, at least 2.
        certainty: probability that a label is right, in (0, 1) (IRN: 0.7).

    Returns:
        (…, C, H, W), float32.

    Raises:
        ShapeError: a label is outside 0…C-1, or there are fewer than two.

    Example:
        >>> unary_from_labels(torch.tensor([[0, 1]]), 2)[0]
        tensor([[0.3567, 1.2040]])
    """
    if num_labels < 2 or not 0 < certainty < 1:
        raise ShapeError(
            f"Hard labels need at least two labels and a certainty in (0, 1); got {num_labels} and "
            f"{certainty}. Leave images of a single label as they are."
        )
    if labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) < num_labels):
        raise ShapeError(
            f"`labels` must be positions in 0…{num_labels - 1}; got {int(labels.min())} to "
            f"{int(labels.max())}. Number the labels of the image from 0, and leave none unset."
        )
    positions = torch.arange(num_labels, device=labels.device)[:, None, None]
    is_label = labels.unsqueeze(-3) == positions  # (…, C, H, W)
    given, others = -math.log(certainty), -math.log((1 - certainty) / (num_labels - 1))
    return torch.where(is_label, given, others).float()
