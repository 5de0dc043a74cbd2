r"""Contrast of image regions with texts: what QA-CLIMS makes of cosines, and the masks of its regions.

Pure mathematics on tensors, in float32. With cosines s of one (image, class) pair, foreground vector
$t_f$, background texts $t_j$ and temperature $\tau$:

$$ FRC = -\log\frac{e^{s_{ff}/\tau}}{e^{s_{ff}/\tau} + \sum_j e^{s_{fb}(j)/\tau}} \qquad
   BRC = -\log\frac{a}{a + e^{s_{bf}/\tau}}, \quad a = \frac1n\sum_j e^{s_{bb}(j)/\tau} $$

The first index says which region is looked at (f: inside the map, b: outside), the second which text.

Source:
    QA-CLIMS, Deng et al., ACM MM 2023, equations 10-13, https://arxiv.org/abs/2401.09883, and its code, which
    takes the mean of exponentials in BRC where the paper has the exponential of the mean.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.checks import check_shape

Mixing: TypeAlias = Literal["half", "mean"]
PositiveForm: TypeAlias = Literal["mean_of_exponentials", "exponential_of_mean"]


def adaptive_masks(maps: Tensor, share: float) -> Tensor:
    """Where each map reaches `share` of its own maximum, inclusive; no gradient comes back from here.

    Args:
        maps: (P, 1, S, S), in [0, 1].
        share: omega, in [0, 1].

    Returns:
        (P, 1, S, S), bool.

    Example:
        >>> adaptive_masks(torch.tensor([[[[0.9, 0.05], [0.1, 0.5]]]]), 0.1).int().tolist()
        [[[[1, 0], [1, 1]]]]
    """
    maps = maps.detach()
    return maps >= share * maps.amax(dim=(-2, -1), keepdim=True)


def foreground_vectors(
    labels: Tensor, answers: Tensor, answered: Tensor, mixing: Mixing, *, unit_length: bool = False
) -> Tensor:
    """Mix the class's name with the answers about it, into one vector for each pair.

    Args:
        labels: unit features of the class names; (P, E).
        answers: unit features of the answers; (P, L, E), L may be 0.
        answered: which of them count, the others are padding; (P, L), bool.
        mixing: half (published code): half the name, half the mean of the answers; mean (paper): the plain
            mean of all. A pair without any answer keeps the name alone.
        unit_length: scale the result to length 1; published: no, so cosines with it are smaller.

    Returns:
        (P, E).
    """
    count = answered.sum(dim=1, keepdim=True).to(labels.dtype)  # (P, 1)
    total = (answers * answered[..., None]).sum(dim=1)  # (P, E)
    if mixing == "half":
        mixed = torch.where(count > 0, 0.5 * labels + 0.5 * total / count.clamp(min=1), labels)
    else:
        mixed = (labels + total) / (1 + count)
    return F.normalize(mixed, dim=1) if unit_length else mixed


def foreground_contrast(own: Tensor, others: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """FRC of each pair: the inside of a map against its foreground vector and the background texts.

    Args:
        own: s_ff; (P,).
        others: s_fb; (P, G).
        valid: which texts count; (P, G), bool. A pair without any has loss 0.
        temperature: tau.

    Returns:
        (P,), non-negative.

    Example:
        >>> own, others = torch.tensor([0.28]), torch.tensor([[0.1, 0.2, 0.3]])
        >>> round(foreground_contrast(own, others, others > -1, 0.7).item(), 5)
        1.30678
    """
    _check(own, others, valid)
    logits = torch.cat([own[:, None], _masked(others, valid)], dim=1) / temperature
    return logits.logsumexp(dim=1) - logits[:, 0]


def background_contrast(
    own: Tensor, valid: Tensor, other: Tensor, temperature: float, form: PositiveForm = "mean_of_exponentials"
) -> Tensor:
    """BRC of each pair: the outside of a map against the background texts and its foreground vector.

    Args:
        own: s_bb; (P, G).
        valid: which texts count; (P, G), bool, at least one in each row.
        other: s_bf; (P,).
        temperature: tau.
        form: of the positive term: mean_of_exponentials (published code) or exponential_of_mean (paper).

    Returns:
        (P,), non-negative.

    Example:
        >>> own, other = torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([0.25])
        >>> round(background_contrast(own, own > -1, other, 0.7).item(), 6)
        0.725988
    """
    _check(other, own, valid)
    count = valid.sum(dim=1).to(own.dtype)
    if form == "mean_of_exponentials":
        positive = (_masked(own, valid) / temperature).logsumexp(dim=1) - count.log()
    else:
        positive = torch.where(valid, own, 0).sum(dim=1) / count / temperature
    return torch.logaddexp(positive, other / temperature) - positive


def _masked(similarity: Tensor, valid: Tensor) -> Tensor:
    return similarity.masked_fill(~valid, -math.inf)


def _check(single: Tensor, many: Tensor, valid: Tensor) -> None:
    check_shape("similarities with texts", many, (single.shape[0], None), "One row for each pair.")
    check_shape("valid", valid, tuple(many.shape), "One value for each similarity.")
