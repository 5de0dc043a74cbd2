"""The ResNet-101 of DeepLab V2: caffe layout, dilated stages, output stride 8.

It differs from the ResNet-101 of class activation maps: the stride sits on the first 1x1 convolution, every
block of a dilated stage is dilated, the stem pools with sizes rounded up, and images are BGR minus the mean.
Names of weights are those of deeplab-pytorch, so its published files load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import ShapeError, WeightsError
from wsss.models.backbone import Backbone, BatchNormMode, initialise_convolutions
from wsss.models.weights import find_weights, read_weights

MEAN: Final = (122.675 / 255, 116.669 / 255, 104.008 / 255)  # RGB in [0, 1]
STD: Final = (1 / 255, 1 / 255, 1 / 255)  # caffe nets see 0-255 levels minus the mean
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
    """1x1 `reduce` (with the stride), dilated 3x3, 1x1 `increase`, around a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, dilation: int, is_first: bool) -> None:
        super().__init__()
        self.reduce = ConvNorm(inputs, outputs // 4, 1, stride=stride)
        self.conv3x3 = ConvNorm(outputs // 4, outputs // 4, 3, dilation=dilation)
        self.increase = ConvNorm(outputs // 4, outputs, 1, relu=False)
        self.shortcut: nn.Module = nn.Identity()
        if is_first:
            self.shortcut = ConvNorm(inputs, outputs, 1, stride=stride, relu=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D', h / stride, w / stride)."""
        return F.relu(self.increase(self.conv3x3(self.reduce(features))) + self.shortcut(features))


class ResNet101DeepLab(Backbone):
    """Stem and four stages; images (B, 3, H, W) are RGB levels minus `MEAN`, as `STD` makes them."""

    out_channels = 2048
    output_stride = 8
    stage_channels = (64, 256, 512, 1024, 2048)
    stage_strides = (4, 4, 8, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=True)
        self.layer1 = nn.Sequential(OrderedDict(conv1=ConvNorm(3, 64, 7, stride=2), pool=pool))
        inputs = 64
        for number, (count, outputs, stride, dilation) in enumerate(STAGES, start=2):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for index in range(count):
                first = index == 0
                blocks[f"block{index + 1}"] = Bottleneck(
                    inputs, outputs, stride=stride if first else 1, dilation=dilation, is_first=first
                )
                inputs = outputs
            self.add_module(f"layer{number}", nn.Sequential(blocks))
        initialise_convolutions(self)

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        """Stem and the four stages."""
        return tuple((self.get_submodule(f"layer{number}"),) for number in range(1, 6))

    def stages(self, images: Tensor) -> list[Tensor]:
        """Taps of stem and stages; the caffe weights want the colours in the order BGR."""
        return super().stages(images.flip(1))


def resnet101_deeplab(
    *,
    output_stride: int = 8,
    weights: str | Path | None = None,
    batch_norm: BatchNormMode = "frozen",
) -> ResNet101DeepLab:
    """The DeepLab V2 ResNet-101.

    Args:
        output_stride: 8, the only one it has.
        weights: None (random) or a file of deeplab-pytorch's layout (a `base.` prefix, the classifier `fc`
            and the pyramid `aspp` are left out).
        batch_norm: "frozen" as published, or "live".

    Raises:
        ShapeError: another output stride.
        WeightsError: the weights are missing or do not fit.
    """
    if output_stride != 8:
        raise ShapeError(
            f"`output_stride` of resnet101_deeplab must be 8; got {output_stride}. Leave it out."
        )
    net = ResNet101DeepLab()
    if weights is not None:
        path = find_weights(weights)
        _load(net, read_weights(path), path)
    net.freeze(batch_norm=batch_norm)
    return net


def _load(net: ResNet101DeepLab, state: Mapping[str, Tensor], path: Path) -> None:
    """Load backbone weights; everything but heads must fit."""
    plain = {name.removeprefix("module.").removeprefix("base."): value for name, value in state.items()}
    kept = {name: value for name, value in plain.items() if not name.startswith(("fc.", "aspp."))}
    wanted = net.state_dict()
    # files of old torch versions lack the batch counters, which frozen batch norms never read
    missing = [name for name in wanted if name not in kept and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in kept if name not in wanted]
    if missing or unexpected:
        raise WeightsError(
            f"{path} does not fit resnet101_deeplab: missing {missing[:3]}, unexpected {unexpected[:3]}. "
            "Use a file of deeplab-pytorch's ResNet-101, with keys layer1… to layer5…."
        )
    try:
        net.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit resnet101_deeplab: {error}") from error
