"""Pooling of a feature grid into one vector, beyond the plain mean."""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor

LEVELS: Final = (1, 2, 4)  # parts of each side that a maximum is taken over
MEAN_SHARE: Final = 2  # weight of the global mean beside one level


def hybrid_pyramid_pooling(features: Tensor) -> Tensor:
    r"""Pool by the global mean and by means of local maxima on a pyramid of grids.

    $$ \tfrac15 \Bigl( 2\,\mathrm{mean}(z) + \sum_{k \in \{1, 2, 4\}}
       \mathrm{mean}(\mathrm{maxpool}_{h/k \times w/k}(z)) \Bigr) $$

    The mean spreads the gradient over all cells, the maxima keep small objects from drowning.

    Args:
        features: (B, D, h, w).

    Returns:
        (B, D). Sides that a level does not divide lose their last cells there, as in the reference code.

    Source:
        VWE and VWL (Ru et al., IJCAI 2021 and IJCV 2022), their code.
        Differs: a side of fewer cells than a level has windows of one cell, which the code cannot pool.
    """
    height, width = features.shape[2:]
    total = MEAN_SHARE * features.mean(dim=(2, 3))
    for level in LEVELS:
        window = (max(1, height // level), max(1, width // level))
        total = total + F.max_pool2d(features, window).mean(dim=(2, 3))  # stride = window
    return total / (MEAN_SHARE + len(LEVELS))
