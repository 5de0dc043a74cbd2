"""A small ResNet for 96-pixel images: what the generated scenes and small data sets train from scratch.

One core trains a CAM with it on 1,000 images for 32 epochs in five minutes. `output_stride` 8 is a plain
ResNet; 4 adds one top-down step that carries the last stage's features back to the finer grid, which costs
about half more time where a plain network of that stride would cost several times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import ShapeError
from wsss.models.backbone import Backbone, BatchNormMode, conv_bn_relu, initialise_convolutions
from wsss.models.weights import load_backbone_weights

STEM: Final = 32
WIDTHS: Final = (32, 64, 128)
BLOCKS: Final = (1, 2, 2)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al., CVPR 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv_bn_relu(inputs, outputs, stride=stride)
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D', h / stride, w / stride)."""
        return F.relu(self.second(self.first(features)) + self.shortcut(features))


class ResNetSmall(Backbone):
    """Stem and three stages of basic blocks, about 0.7 million parameters.

    Args:
        output_stride: 8, or 4 with a top-down step behind the last stage.
    """

    def __init__(self, output_stride: int = 8) -> None:
        super().__init__()
        if output_stride not in (4, 8):
            raise ShapeError(f"`output_stride` of resnet_small must be 4 or 8; got {output_stride}.")
        strides = (2, 2, 1) if output_stride == 8 else (2, 1, 2)
        self.stem = conv_bn_relu(3, STEM, stride=2)
        inputs, stride, stage_strides = STEM, 2, [2]
        for number, (width, count) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
            blocks = [BasicBlock(inputs, width, strides[number])]
            blocks += [BasicBlock(width, width) for _ in range(count - 1)]
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
            inputs, stride = width, stride * strides[number]
            stage_strides.append(stride)
        self.lateral: nn.Module | None = None
        if output_stride == 4:
            self.lateral = nn.Sequential(nn.Conv2d(WIDTHS[1], inputs, 1, bias=False), nn.BatchNorm2d(inputs))
        self.out_channels, self.output_stride = inputs, output_stride
        self.stage_channels = (STEM, *WIDTHS) + ((inputs,) if self.lateral is not None else ())
        self.stage_strides = tuple(stage_strides) + ((4,) if self.lateral is not None else ())
        initialise_convolutions(self)

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        """Stem and the three stages; the top-down step is no stage and always trains."""
        return ((self.stem,), *((self.get_submodule(f"layer{number}"),) for number in range(1, 4)))

    def stages(self, images: Tensor) -> list[Tensor]:
        """Taps of the stem and the stages, and of the top-down step where there is one."""
        taps = super().stages(images)
        if self.lateral is not None:
            fine = self.lateral(taps[2])  # (B, D, h, w)
            coarse = F.interpolate(taps[3], size=fine.shape[-2:], mode="bilinear", align_corners=False)
            taps.append(F.relu(fine + coarse))
        return taps


def resnet_small(
    *,
    output_stride: int = 8,
    weights: str | Path | None = None,
    batch_norm: BatchNormMode = "live",
    freeze_stem: bool = False,
    freeze_until: int | None = None,
) -> ResNetSmall:
    """The small ResNet: 96 x 96 pixels give 128 channels of 12 x 12, or of 24 x 24 at output stride 4.

    Args:
        output_stride: 8 or 4.
        weights: None (random) or a state-dict file of this network.
        batch_norm: "live" or "frozen", see `Backbone`; random weights need "live".
        freeze_stem: no gradient for the stem.
        freeze_until: last stage without gradient.

    Example:
        >>> import torch
        >>> resnet_small(output_stride=4)(torch.zeros(2, 3, 96, 96)).shape
        torch.Size([2, 128, 24, 24])
    """
    net = ResNetSmall(output_stride)
    if weights is not None:
        load_backbone_weights(net, weights)
    net.freeze(stem=freeze_stem, until=freeze_until, batch_norm=batch_norm)
    return net
