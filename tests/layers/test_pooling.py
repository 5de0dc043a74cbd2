from __future__ import annotations

import pytest
import torch

from wsss.layers.pooling import hybrid_pyramid_pooling


def test_pooling_agrees_with_the_slow_reference() -> None:
    features = torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    pooled = hybrid_pyramid_pooling(features)
    for n in range(2):
        for d in range(3):
            plane = features[n, d].tolist()
            total = 2 * sum(map(sum, plane)) / (9 * 12)
            for level in (1, 2, 4):
                height, width = 9 // level, 12 // level
                maxima = [
                    max(plane[top + y][left + x] for y in range(height) for x in range(width))
                    for top in range(0, 9 - height + 1, height)
                    for left in range(0, 12 - width + 1, width)
                ]
                total += sum(maxima) / len(maxima)
            assert float(pooled[n, d]) == pytest.approx(total / 5, abs=1e-5)


def test_a_constant_pools_to_itself_and_a_peak_counts_more_than_in_the_mean() -> None:
    assert torch.allclose(hybrid_pyramid_pooling(torch.full((1, 2, 8, 8), 0.7)), torch.full((1, 2), 0.7))
    peak = torch.zeros(1, 1, 8, 8)
    peak[0, 0, 3, 3] = 1
    # mean 1/64, then maxima: 1 of 1, 1 of 4, 1 of 16
    assert float(hybrid_pyramid_pooling(peak)) == pytest.approx((2 / 64 + 1 + 1 / 4 + 1 / 16) / 5)


def test_a_grid_smaller_than_a_level_pools_single_cells() -> None:
    features = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert float(hybrid_pyramid_pooling(features)) == pytest.approx((2 * 3 + 6 + 3 + 3) / 5)
