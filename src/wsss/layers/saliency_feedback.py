r"""Saliency as feedback of pixels: class maps must add up to where something stands out, as in EPS and SMVWE.

With maps F_i (i = 1…K) of the foreground classes, F_{K+1} of the background, tags z and a saliency map S:

$$ \phi_i = \frac{|C_i \cap C_s|}{|C_i|}, \quad
   F_{fg} = \sum_i z_i F_i [\phi_i > \delta], \quad F_{bg} = F_{K+1} + \sum_i z_i F_i [\phi_i \le \delta] $$
$$ F_s = (1 - \mu) F_{fg} + \mu (1 - F_{bg}), \qquad L = \mathrm{mean} (S - F_s)^2 $$

C are the cells over 0.5. A class that the saliency detector misses is counted to the background, so that it
is not unlearned. No gradient comes back through C, and S is a target.

Source:
    SMVWE, equations 5-7 and 9; EPS: Lee et al., *Railroad is not a Train: Saliency as Pseudo-pixel
    Supervision for Weakly Supervised Semantic Segmentation*, CVPR 2021, and its code,
    https://github.com/halbielee/EPS. SMVWE's mu is 1 - EPS' lambda.
    Differs: SMVWE prints F_bg without the background's own map, and a division by |C_i|, which may be 0; the
    code of EPS adds the one, and 1e-4 per cell to the other. Both can be chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.checks import check_shape

Denominator: TypeAlias = Literal["eps", "paper"]

ON: Final = 0.5  # cells over this belong to C (SMVWE, section 3.3; EPS)
EPSILON: Final = 1e-4  # added to |C_i| for every cell (code of EPS)


@dataclass(frozen=True)
class FeedbackRule:
    """How class maps become an estimate of the saliency.

    Args:
        delta: a class whose overlap is not over this counts to the background (EPS: 0.4).
        mu: share of the inverted background in the estimate (EPS: 0.5 for VOC, 0.1 for COCO).
        denominator: eps: |C_i| + 1e-4 for every cell; paper: |C_i|. Either way an empty C_i has overlap 0.
        with_background: whether the background's own map is part of F_bg (EPS: yes; SMVWE, equation 7: no).
    """

    delta: float = 0.4
    mu: float = 0.5
    denominator: Denominator = "eps"
    with_background: bool = True


def saliency_of_cells(saliency: Tensor, size: tuple[int, int]) -> Tensor:
    """Read saliency maps at the centres of a feature grid's cells.

    Cell i takes pixel floor(i · H / h): nearest neighbour as torch's `nearest` has it, which is where three
    convolutions of stride 2 and padding 1 look (EPS). Pixels that a crop padded must hold 0 already.

    Args:
        saliency: (B, H, W), in [0, 1].
        size: (h, w).

    Returns:
        (B, h, w), float32.
    """
    return F.interpolate(saliency.float()[:, None], size=size, mode="nearest")[:, 0]


@torch.no_grad()
def overlaps(maps: Tensor, saliency: Tensor, denominator: Denominator = "eps") -> Tensor:
    """How much of each class's map lies on salient cells: phi; no gradient.

    Args:
        maps: F_1…F_K; (B, K, h, w), in [0, 1].
        saliency: S; (B, h, w), in [0, 1].
        denominator: see `FeedbackRule`.

    Returns:
        (B, K), float32 in [0, 1]; 0 where a map is nowhere over 0.5.

    Example:
        >>> maps = torch.tensor([[[[0.9, 0.8], [0.6, 0.1]]]])
        >>> overlaps(maps, torch.tensor([[[1.0, 0.0], [0.7, 1.0]]]), "paper").tolist()
        [[0.6666666865348816]]
    """
    on = maps > ON
    shared = (on & (saliency > ON)[:, None]).sum(dim=(2, 3)).float()
    area = on.sum(dim=(2, 3)).float()
    if denominator == "paper":
        return shared / area.clamp(min=1)
    return shared / (area + EPSILON * maps[0, 0].numel())


def estimated_saliency(maps: Tensor, image_labels: Tensor, saliency: Tensor, rule: FeedbackRule) -> Tensor:
    """Add class maps up to an estimate of the saliency: F_s.

    Args:
        maps: F_1…F_{K+1}, the last the background's; (B, K + 1, h, w), in [0, 1].
        image_labels: z; (B, K), bool.
        saliency: S, which decides only what counts to the background; (B, h, w), in [0, 1].
        rule: limits and shares.

    Returns:
        (B, h, w); in [0, 1] where the maps of a cell sum to at most 1.

    Raises:
        ShapeError: the three do not belong together.
    """
    batch, channels, height, width = maps.shape
    check_shape("image_labels", image_labels, (batch, channels - 1), "One flag per class but the background.")
    check_shape("saliency", saliency, (batch, height, width), "Read it with `saliency_of_cells`.")
    classes = maps[:, :-1]
    is_on = overlaps(classes, saliency, rule.denominator) > rule.delta  # (B, K)
    foreground, background = (
        torch.einsum("bk,bkhw->bhw", chosen.to(maps.dtype), classes)
        for chosen in (image_labels & is_on, image_labels & ~is_on)
    )
    if rule.with_background:
        background = background + maps[:, -1]
    return (1 - rule.mu) * foreground + rule.mu * (1 - background)


def saliency_loss(maps: Tensor, image_labels: Tensor, saliency: Tensor, rule: FeedbackRule) -> Tensor:
    """Mean squared difference of saliency and its estimate, over images and cells; arguments as there."""
    return (saliency - estimated_saliency(maps, image_labels, saliency, rule)).square().mean()
