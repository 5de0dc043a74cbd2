"""ResNet-50 and ResNet-101 as the field uses them for class activation maps, in torchvision's layout.

Sources: He et al., CVPR 2016, https://arxiv.org/abs/1512.03385; strides and frozen parts as in the reference
code of IRN (Ahn et al., CVPR 2019, https://arxiv.org/abs/1904.05044), where the stride of the last stage is
dropped and not made up for by dilation. State dicts have torchvision's names without `fc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from torch import nn
from torchvision.models.resnet import Bottleneck

from wsss.errors import ShapeError
from wsss.models.backbone import Backbone, BatchNormMode, initialise_convolutions
from wsss.models.weights import load_backbone_weights

BLOCKS: Final = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
WIDTHS: Final = (64, 128, 256, 512)
LAYOUTS: Final = {  # output stride: stage strides, stage dilations
    8: ((1, 2, 1, 1), (1, 1, 2, 2)),
    16: ((1, 2, 2, 1), (1, 1, 1, 1)),
    32: ((1, 2, 2, 2), (1, 1, 1, 1)),
}


class ResNet(Backbone):
    """Bottleneck ResNet without head; taps: stem, layer1…layer4.

    Args:
        blocks: bottlenecks in each of the four stages.
        strides: stride of each stage, on the 3x3 convolution of its first block.
        dilations: dilation of each stage's 3x3 convolutions but that of its first block.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        strides: Sequence[int] = LAYOUTS[16][0],
        dilations: Sequence[int] = LAYOUTS[16][1],
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        inputs, stride = 64, 4
        channels, stage_strides = [64], [4]
        for number, (count, width) in enumerate(zip(blocks, WIDTHS, strict=True)):
            layer = _stage(inputs, width, count, strides[number], dilations[number])
            setattr(self, f"layer{number + 1}", layer)
            inputs = width * Bottleneck.expansion
            stride *= strides[number]
            channels.append(inputs)
            stage_strides.append(stride)
        self.out_channels, self.output_stride = inputs, stride
        self.stage_channels, self.stage_strides = tuple(channels), tuple(stage_strides)
        initialise_convolutions(self)

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        """Stem (conv1, bn1, pooling) and the four stages."""
        stem = (self.conv1, self.bn1, self.relu, self.maxpool)
        return (stem, *((self.get_submodule(f"layer{number}"),) for number in range(1, 5)))


def _stage(inputs: int, width: int, count: int, stride: int, dilation: int) -> nn.Sequential:
    """`count` bottlenecks; the first changes size and channels."""
    outputs = width * Bottleneck.expansion
    shortcut = nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
    )
    first = Bottleneck(inputs, width, stride, shortcut)
    others = [Bottleneck(outputs, width, dilation=dilation) for _ in range(count - 1)]
    return nn.Sequential(first, *others)


def resnet50(
    *,
    output_stride: int = 16,
    weights: str | Path | None = None,
    batch_norm: BatchNormMode = "live",
    freeze_stem: bool = False,
    freeze_until: int | None = None,
) -> ResNet:
    """ResNet-50: 512 x 512 pixels give 2,048 channels of 32 x 32 at the default stride.

    Args:
        output_stride: 16 (IRN, CLIMS), 8 (dilated) or 32 (classification).
        weights: None (random), "resnet50" (fetched ImageNet weights) or a file in torchvision's layout.
        batch_norm: "live" or "frozen", see `Backbone`.
        freeze_stem: no gradient for conv1 and bn1.
        freeze_until: last stage without gradient; IRN's classifier: 2.

    Raises:
        ShapeError: no such output stride.
        WeightsError: the weights are missing or do not fit.
    """
    return _build("resnet50", output_stride, weights).freeze(
        stem=freeze_stem, until=freeze_until, batch_norm=batch_norm
    )


def resnet101(
    *,
    output_stride: int = 16,
    weights: str | Path | None = None,
    batch_norm: BatchNormMode = "live",
    freeze_stem: bool = False,
    freeze_until: int | None = None,
) -> ResNet:
    """ResNet-101; everything else as `resnet50`."""
    return _build("resnet101", output_stride, weights).freeze(
        stem=freeze_stem, until=freeze_until, batch_norm=batch_norm
    )


def _build(name: str, output_stride: int, weights: str | Path | None) -> ResNet:
    if output_stride not in LAYOUTS:
        raise ShapeError(f"`output_stride` of {name} must be one of {sorted(LAYOUTS)}; got {output_stride}.")
    strides, dilations = LAYOUTS[output_stride]
    net = ResNet(BLOCKS[name], strides=strides, dilations=dilations)
    if weights is not None:
        load_backbone_weights(net, weights)
    return net
