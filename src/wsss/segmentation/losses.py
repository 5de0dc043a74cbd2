"""Cross-entropy against masks with ignored pixels, safe where nothing is left to count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.checks import check_shape
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


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored; 0 where there are none.

    Args:
        logits: (B, C, H, W).
        target: label space, 255 ignored; (B, H, W), uint8.
    """
    losses, target = _pixel_losses(logits, target)
    return _mean(losses, target != IGNORE)


def balanced_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Half the mean over background pixels plus half the mean over foreground pixels.

    Source:
        CLIMS (Xie et al., CVPR 2022), reference code of its segmentation training.
        Differs: a batch without background or without foreground counts 0 for that half instead of 0 / 0.
    """
    losses, target = _pixel_losses(logits, target)
    background = target == BACKGROUND
    foreground = ~background & (target != IGNORE)
    return 0.5 * _mean(losses, background) + 0.5 * _mean(losses, foreground)


def _pixel_losses(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    check_shape("target", target, (logits.shape[0], *logits.shape[2:]), "Resize it with `labels_at`.")
    losses = F.cross_entropy(logits.float(), target.long(), ignore_index=IGNORE, reduction="none")
    return losses, target


def _mean(losses: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)
