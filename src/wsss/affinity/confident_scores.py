"""Scores with a strong and with a weak background, aligned with the image: what PSA learns affinities from.

What is foreground in spite of a strong background, and what is background in spite of a weak one, is sure
(`feature_affinity.cell_labels`); pairs of such cells are learned from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wsss.crf import DenseCrf, unary_from_probabilities
from wsss.errors import ShapeError
from wsss.types import ActivationMaps


def confident_scores(
    crf: DenseCrf | None, maps: ActivationMaps, powers: Sequence[float]
) -> list[ActivationMaps]:
    """Marginals of a dense CRF whose probabilities are the scores beside backgrounds of several powers.

    Args:
        crf: of the image; None where `maps` hold no class: then all is background.
        maps: of the image's size; a background of their own is not used.
        powers: exponents of the background (PSA: 4 and 32).

    Returns:
        One for each power, with background, on the CPU.

    Raises:
        ShapeError: there are classes but no CRF, or the maps have another size than the image.

    Source:
        Ahn and Kwak, CVPR 2018, section 3.2, https://arxiv.org/abs/1803.10464 (infer_cls.py at 9493e59).
        Differs: all powers share one lattice.
    """
    if not len(maps.class_ids):
        return [maps.with_background(1.0) for _ in powers]
    if crf is None:
        raise ShapeError(
            f"Maps of classes {maps.class_ids.tolist()} need the dense CRF of their image; got None."
        )
    planes = torch.stack([with_background(maps, power) for power in powers])  # (S, 1 + M, H, W)
    marginals = crf.marginals(unary_from_probabilities(planes)).cpu().clamp(0, 1)  # rounding may exceed 1
    return [ActivationMaps(maps.class_ids, own[1:], own[0]) for own in marginals]


def with_background(maps: ActivationMaps, power: float) -> Tensor:
    """Scores of background, (1 - max score)^power, and of the classes; (1 + M, H, W)."""
    whole = maps.with_background_power(power)
    assert whole.background is not None
    return torch.cat([whole.background[None], whole.scores])
