from __future__ import annotations

import torch

from wsss.layers.bottleneck_head import BottleneckHead


def test_the_head_keeps_the_shape_and_starts_near_the_identity() -> None:
    head = BottleneckHead(32, width=8).eval()
    features = torch.randn(2, 32, 5, 6)
    assert head(features).shape == features.shape
    torch.nn.init.zeros_(head.conv3.weight)
    expected = torch.where(features > 0, features, 0.01 * features)
    assert torch.allclose(head(features), expected, atol=1e-6)


def test_initial_weights_are_as_published() -> None:
    head = BottleneckHead(64)
    for conv in (head.conv1, head.conv2, head.conv3):
        assert abs(float(conv.weight.detach().std()) - 0.01) < 1e-3
        assert conv.bias is None
