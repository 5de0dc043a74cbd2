"""The ResNet-101 of DeepLab V2: dilated stages, output stride 8, in caffe's conventions or torchvision's.

It differs from the ResNet-101 of class activation maps: every block of a dilated stage is dilated, and the
stem pools with sizes rounded up. Where strides lie and what images look like goes with the weights. Names of
weights are those of deeplab-pytorch, so its published files load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import ShapeError
from wsss.models.backbone import Backbone, BatchNormMode, initialise_convolutions
from wsss.models.weights import load_backbone_weights
from wsss.segmentation.conventions import Conventions

STAGES: Final = (  # blocks, channels, stride, dilation
    (3, 256, 1, 1),
    (4, 512, 2, 1),
    (23, 1024, 1, 2),
    (3, 2048, 1, 4),
)


class ConvNorm(nn.Sequential):
    """Convolution without bias and batch norm, with ReLU on request."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, relu: bool = True
    ) -> None:
        padding = kernel // 2 * dilation
        layers: list[tuple[str, nn.Module]] = [
            ("conv", nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)),
            ("bn", nn.BatchNorm2d(outputs)),
        ]
        super().__init__(OrderedDict([*layers, ("relu", nn.ReLU(inplace=True))] if relu else layers))


class Bottleneck(nn.Module):
    """1x1 `reduce`, dilated 3x3, 1x1 `increase`, around a shortcut.

    Args:
        inputs: D of the input.
        outputs: D of the output.
        strides: of `reduce` and of the 3x3 convolution; the shortcut has both.
        dilation: of the 3x3 convolution.
        is_first: whether the shortcut is a convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, *, strides: tuple[int, int], dilation: int, is_first: bool
    ) -> None:
        super().__init__()
        self.reduce = ConvNorm(inputs, outputs // 4, 1, stride=strides[0])
        self.conv3x3 = ConvNorm(outputs // 4, outputs // 4, 3, stride=strides[1], dilation=dilation)
        self.increase = ConvNorm(outputs // 4, outputs, 1, relu=False)
        self.shortcut: nn.Module = nn.Identity()
        if is_first:
            self.shortcut = ConvNorm(inputs, outputs, 1, stride=strides[0] * strides[1], relu=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D', h / stride, w / stride)."""
        return F.relu(self.increase(self.conv3x3(self.reduce(features))) + self.shortcut(features))


class ResNet101DeepLab(Backbone):
    """Stem and four stages; images (B, 3, H, W) are normalised with the statistics of `conventions`.

    Args:
        conventions: whose weights fit; None: caffe's.
    """

    out_channels = 2048
    output_stride = 8
    stage_channels = (64, 256, 512, 1024, 2048)
    stage_strides = (4, 4, 8, 8, 8)

    def __init__(self, conventions: Conventions | None = None) -> None:
        super().__init__()
        self.conventions = conventions or Conventions()
        pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=True)
        self.layer1 = nn.Sequential(OrderedDict(conv1=ConvNorm(3, 64, 7, stride=2), pool=pool))
        inputs = 64
        for number, (count, outputs, stride, dilation) in enumerate(STAGES, start=2):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            first_strides = (stride, 1) if self.conventions.stride_in_1x1 else (1, stride)
            for index in range(count):
                first = index == 0
                blocks[f"block{index + 1}"] = Bottleneck(
                    inputs,
                    outputs,
                    strides=first_strides if first else (1, 1),
                    dilation=dilation,
                    is_first=first,
                )
                inputs = outputs
            self.add_module(f"layer{number}", nn.Sequential(blocks))
        initialise_convolutions(self)

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        """Stem and the four stages."""
        return tuple((self.get_submodule(f"layer{number}"),) for number in range(1, 6))

    def stages(self, images: Tensor) -> list[Tensor]:
        """Taps of stem and stages."""
        return super().stages(self.conventions.ordered(images))


def resnet101_deeplab(
    *,
    output_stride: int = 8,
    weights: str | Path | None = None,
    batch_norm: BatchNormMode = "frozen",
    conventions: Conventions | None = None,
) -> ResNet101DeepLab:
    """The DeepLab V2 ResNet-101.

    Args:
        output_stride: 8, the only one it has.
        weights: None (random), a file of deeplab-pytorch (a `base.` prefix, the classifier `fc` and the
            pyramid `aspp` are left out) or of caffe, or ImageNet weights of torchvision: "resnet101" or a
            file.
        batch_norm: "frozen" as published, or "live".
        conventions: where strides lie, and which images are wanted; None: as goes with the weights, caffe's
            for random ones.

    Raises:
        ShapeError: another output stride.
        WeightsError: the weights are missing or do not fit.
    """
    if output_stride != 8:
        raise ShapeError(
            f"`output_stride` of resnet101_deeplab must be 8; got {output_stride}. Leave it out."
        )
    net = ResNet101DeepLab(conventions)
    if weights is not None:
        named = load_backbone_weights(net, weights)  # what does not fit is refused first
        if conventions is None:
            net = ResNet101DeepLab(Conventions.of(named))
            load_backbone_weights(net, weights)
    return net.freeze(batch_norm=batch_norm)
