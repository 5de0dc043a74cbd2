"""Labels of the pixels whose class activation maps make sure; everything between is 255, ignored by training.

Two seeds, one that asks much of the foreground and one that asks much of the background, are aligned with the
image by a dense CRF; where they agree the label is trusted.
"""

from __future__ import annotations

from typing import Final, Protocol

import torch
from torch import Tensor

from wsss.checks import check_range
from wsss.crf import unary_from_labels
from wsss.errors import RecipeError
from wsss.types import BACKGROUND, IGNORE, ActivationMaps

CERTAINTY: Final = 0.7
"""Probability that a seed's label is right (IRN)."""


class Crf(Protocol):
    """What is asked of `wsss.crf.DenseCrf`."""

    def marginals(self, unaries: Tensor) -> Tensor:
        """Marginals (S, C, H, W) of S problems on the same image."""


def confident_labels(
    crf: Crf | None, maps: ActivationMaps, *, foreground_score: float, background_score: float
) -> Tensor:
    """Label the pixels that are surely foreground or surely background.

    Args:
        crf: on the image of the maps; None will do where no class is present, which needs none.
        maps: of the image's size.
        foreground_score: what a class must exceed to be trusted (IRN: 0.30).
        background_score: what no class may exceed where background is trusted (IRN: 0.05), not above
            `foreground_score`.

    Returns:
        Label space, 255 where unsure; (H, W), uint8, on the maps' device. All background without any class.

    Raises:
        RecipeError: the scores are no scores, or the wrong way round.

    Source:
        Ahn et al., IRN, CVPR 2019, https://arxiv.org/abs/1904.05044 (step/cam_to_ir_label.py at a2ece00).
        Differs: both seeds pass the CRF in one call; ties go to the background, as everywhere here.
    """
    check_range("foreground_score", foreground_score, 0, 1)
    check_range("background_score", background_score, 0, 1)
    if background_score > foreground_score:
        raise RecipeError(
            f"`background_score` must not exceed `foreground_score`; got {background_score:g} and "
            f"{foreground_score:g}. Between the two pixels are ignored."
        )
    if len(maps.class_ids) == 0:
        return torch.full(maps.size, BACKGROUND, dtype=torch.uint8, device=maps.scores.device)
    assert crf is not None
    background = torch.stack(
        [maps.scores.new_full(maps.size, foreground_score), maps.scores.new_full(maps.size, background_score)]
    )  # (2, H, W)
    if maps.background is not None:
        # Maps that a refiner gave a background compete with it, not with a constant: a marginal of 0.4 is no
        # foreground where the background has 0.6. So a pixel is trusted only where both agree.
        background = torch.stack(
            [background[0].maximum(maps.background), background[1].minimum(maps.background)]
        )
    seeds = torch.stack([_winners(torch.cat([plane[None], maps.scores])) for plane in background])
    unaries = unary_from_labels(seeds, len(maps.class_ids) + 1, certainty=CERTAINTY)  # (2, C, H, W)
    strict, generous = (_winners(marginals) for marginals in crf.marginals(unaries))
    class_ids = torch.cat([maps.class_ids.new_tensor([BACKGROUND]), maps.class_ids])
    labels = class_ids[strict]
    unsure = torch.where(generous == 0, BACKGROUND, IGNORE)
    return torch.where(strict == 0, unsure, labels).to(torch.uint8)


def _winners(planes: Tensor) -> Tensor:
    """Positions (H, W) of the largest of planes (C, H, W), the first the background, which wins ties."""
    best = planes[1:].max(dim=0)
    return torch.where(planes[0] >= best.values, 0, best.indices + 1)
