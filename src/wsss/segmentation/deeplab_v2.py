"""Heads of DeepLab V2: atrous spatial pyramid pooling (ASPP), the sum of branches of different dilation.

A branch is a single convolution on a ResNet, and fc6, fc7 and fc8 on VGG-16.

Source:
    Chen et al., TPAMI 2018, https://arxiv.org/abs/1606.00915; with ResNet-101 in the form of the PyTorch
    reimplementation deeplab-pytorch, which most weakly supervised methods train on their pseudo masks.
    Differs: other backbones, rates, grids of the loss and live batch norm are options. All branches of VGG-16
    start from the same weights of fc6 and fc7, where a file has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wsss.segmentation.deeplab import Head, initialise_classifier
from wsss.segmentation.deeplab_v1 import LargeFov


class AtrousPyramid(Head):
    """Sum of parallel 3x3 convolutions with different dilations.

    Args:
        inputs: channels of the features.
        num_classes: channels of the logits.
        rates: dilation of each branch, in cells (published: 6, 12, 18, 24 at output stride 8).
    """

    def __init__(self, inputs: int, num_classes: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(inputs, num_classes, 3, padding=rate, dilation=rate, bias=True) for rate in rates
        )
        for branch in self.branches:
            assert isinstance(branch, nn.Conv2d)
            initialise_classifier(branch)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w)."""
        return torch.stack([branch(features) for branch in self.branches]).sum(dim=0)

    def new_layers(self) -> Sequence[nn.Module]:
        """All of them."""
        return list(self.branches)


class LargeFovPyramid(Head):
    """Sum of parallel branches of fc6, fc7 and fc8 with different dilations of fc6.

    Args:
        inputs: channels of the features.
        num_classes: channels of the logits.
        rates: dilation of each branch's fc6, in cells (published: 6, 12, 18, 24).
        start: weights that fc6 and fc7 of every branch start from, see `LargeFov`.
    """

    def __init__(
        self,
        inputs: int,
        num_classes: int,
        rates: Sequence[int],
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(LargeFov(inputs, num_classes, rate, start) for rate in rates)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w)."""
        return torch.stack([branch(features) for branch in self.branches]).sum(dim=0)

    def new_layers(self) -> Sequence[nn.Module]:
        """Every branch's fc8."""
        return [branch.fc8 for branch in self.branches if isinstance(branch, LargeFov)]
