"""Brings the taps of a backbone, which have several resolutions, onto one grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class TapProjection(nn.Module):
    """1x1 convolution without bias, group norm, resizing to another stride, ReLU.

    Args:
        inputs: channels of the tap.
        outputs: channels given.
        groups: of the group norm.
        factor: stride of the tap / stride wanted.
    """

    def __init__(self, inputs: int, outputs: int, *, groups: int, factor: float) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.GroupNorm(groups, outputs)
        self._factor = factor

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, D, h, w) -> (B, D', *size)."""
        return F.relu(at_stride(self.norm(self.convolution(features)), self._factor, size))


def at_stride(values: Tensor, factor: float, size: tuple[int, int]) -> Tensor:
    """Values of a tap on the grid of a tap with another stride.

    Coarse ones are enlarged bilinearly by the ratio of the strides and cropped at the right and bottom, as in
    IRN; fine ones, and those of backbones that drop the last row of odd sizes, are resized bilinearly.

    Args:
        values: (B, D, h, w).
        factor: stride of the values / stride of the grid.
        size: (height, width) of the grid.

    Returns:
        (B, D, *size).
    """
    if factor > 1:
        values = F.interpolate(values, scale_factor=factor, mode="bilinear", align_corners=False)
        values = values[..., : size[0], : size[1]]
    if tuple(values.shape[-2:]) != tuple(size):
        values = F.interpolate(values, size=size, mode="bilinear", align_corners=False)
    return values


def tap_size(taps: Sequence[Tensor], strides: Sequence[int], stride: int) -> tuple[int, int]:
    """(height, width) of the taps of that stride."""
    height, width = taps[strides.index(stride)].shape[-2:]
    return int(height), int(width)
