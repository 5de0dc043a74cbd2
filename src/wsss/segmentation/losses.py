"""Cross-entropy against masks with ignored pixels, safe where nothing is left to count.

Means are over the pixels of all processes that train together; see `wsss.layers.pair_count`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.checks import check_shape
from wsss.layers.pair_count import sum_over_pairs, total_counts
from wsss.types import BACKGROUND, IGNORE


def labels_at(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks resized to a grid as PIL's nearest does (`nearest-exact`).

    torch's `nearest` is off by up to 4 pixels between 321 and a grid of 41.

    Args:
        target: (B, H, W), uint8.
        size: (h, w).

    Returns:
        (B, h, w), uint8.
    """
    if tuple(target.shape[-2:]) == tuple(size):
        return target
    resized = F.interpolate(target[:, None].float(), size=size, mode="nearest-exact")
    return resized[:, 0].to(target.dtype)


def total_pixels(targets: Sequence[Tensor]) -> Tensor:
    """Count the pixels of all processes that are not ignored, those of several masks in one reduction.

    Every process must come here in every step, one whose pixels are all ignored too.

    Args:
        targets: T masks in label space, each (B, h, w), uint8, on a grid of its own.

    Returns:
        Background and foreground pixels of each mask; (T, 2), int64.

    Example:
        >>> total_pixels([torch.tensor([[[0, 3, 255], [0, 0, 1]]])]).tolist()
        [[3, 2]]
    """
    own = [torch.stack([kind.sum() for kind in _kinds(target)]) for target in targets]
    return total_counts(torch.stack(own))


def cross_entropy(logits: Tensor, target: Tensor, total: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored; 0 where there are none.

    Args:
        logits: (B, C, H, W).
        target: label space, 255 ignored; (B, H, W), uint8.
        total: its row of `total_pixels`, (2,); None: counted here.

    Returns:
        Scalar whose average over processes is the mean over their pixels.
    """
    losses = _pixel_losses(logits, target)
    total = total_pixels([target])[0] if total is None else total
    return _mean(losses, target != IGNORE, total.sum())


def balanced_cross_entropy(logits: Tensor, target: Tensor, total: Tensor | None = None) -> Tensor:
    """Half the mean over background pixels plus half the mean over foreground pixels.

    Arguments and result are those of `cross_entropy`.

    Source:
        CLIMS (Xie et al., CVPR 2022), reference code of its segmentation training.
        Differs: a batch without background or without foreground counts 0 for that half instead of 0 / 0.
    """
    losses = _pixel_losses(logits, target)
    total = total_pixels([target])[0] if total is None else total
    background, foreground = _kinds(target)
    return 0.5 * _mean(losses, background, total[0]) + 0.5 * _mean(losses, foreground, total[1])


def _pixel_losses(logits: Tensor, target: Tensor) -> Tensor:
    check_shape("target", target, (logits.shape[0], *logits.shape[2:]), "Resize it with `labels_at`.")
    return F.cross_entropy(logits.float(), target.long(), ignore_index=IGNORE, reduction="none")


def _kinds(target: Tensor) -> tuple[Tensor, Tensor]:
    """Where a mask is background, and where foreground."""
    background = target == BACKGROUND
    return background, ~background & (target != IGNORE)


def _mean(losses: Tensor, counted: Tensor, total: Tensor) -> Tensor:
    return sum_over_pairs(torch.where(counted, losses, 0.0)) / total.clamp(min=1)
