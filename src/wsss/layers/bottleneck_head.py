"""The residual head that camera-ready CLIMS puts between backbone and classifier."""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

WIDTH: Final = 512
SLOPE: Final = 0.01  # of LeakyReLU below zero
INITIAL_STD: Final = 0.01


class BottleneckHead(nn.Module):
    """1x1, 3x3 and 1x1 convolutions (D -> 512 -> 512 -> D) around a shortcut, with batch norm and LeakyReLU.

    Args:
        channels: D; 2,048 in the publication.
        width: channels between (512).

    Source:
        CLIMS, camera-ready code (CVPR 2022). Convolutions start from N(0, 0.01), batch norms as identity.
    """

    def __init__(self, channels: int, width: int = WIDTH) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.normal_(conv.weight, std=INITIAL_STD)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D, h, w)."""
        hidden = F.leaky_relu(self.bn1(self.conv1(features)), SLOPE)
        hidden = F.leaky_relu(self.bn2(self.conv2(hidden)), SLOPE)
        return F.leaky_relu(self.bn3(self.conv3(hidden)) + features, SLOPE)
