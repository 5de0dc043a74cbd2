"""Heads of DeepLab V1: one dilated convolution with a large field of view (LargeFOV).

| backbone | head | source |
|---|---|---|
| vgg16, vgg_small | fc6 (3x3, dilated), fc7, fc8: `LargeFov` | DeepLab-LargeFOV |
| wide_resnet38 | two dilated 3x3 convolutions: `WideResNetHead` | ademxapp |
| other ResNets | one dilated 3x3 convolution: `deeplab_v2.AtrousPyramid` of one rate | our reading |

Source:
    Chen et al., ICLR 2015, https://arxiv.org/abs/1412.7062 (VGG-16); Wu et al., Pattern Recognition 2019,
    https://arxiv.org/abs/1611.10080 (WideResNet-38). Weakly supervised methods report "DeepLab V1" with
    ResNet-101 without saying what it is.
    Differs: without weights, fc6 and fc7 start from He's initialisation; small backbones have narrower ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from wsss.models.backbone import initialise_convolutions
from wsss.segmentation.deeplab import Head, initialise_classifier

WIDE_RESNET_CHANNELS = 512


class LargeFov(Head):
    """fc6, fc7 and fc8, with ReLU and dropout of half the values behind the first two.

    Args:
        inputs: D.
        num_classes: C.
        rate: dilation of fc6 in cells (published: 12).
        start: weights that fc6 and fc7 start from, by name (fc6.weight …); empty: random.
    """

    def __init__(
        self, inputs: int, num_classes: int, rate: int, start: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        width = 2 * inputs  # of VGG-16: 1,024
        self.fc6 = nn.Conv2d(inputs, width, 3, padding=rate, dilation=rate)
        self.fc7 = nn.Conv2d(width, width, 1)
        self.fc8 = nn.Conv2d(width, num_classes, 1)
        self.dropout = nn.Dropout(0.5)
        initialise_convolutions(self)
        initialise_classifier(self.fc8)
        if start:
            self.load_state_dict(dict(start), strict=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w)."""
        hidden = self.dropout(F.relu(self.fc6(features), inplace=True))  # (B, 2 D, h, w)
        hidden = self.dropout(F.relu(self.fc7(hidden), inplace=True))
        return self.fc8(hidden)  # type: ignore[no-any-return]

    def new_layers(self) -> Sequence[nn.Module]:
        """fc8: fc6 and fc7 have ImageNet weights."""
        return [self.fc8]


class WideResNetHead(Head):
    """Two dilated 3x3 convolutions with bias, ReLU between them, as WideResNet-38 has them.

    Args:
        inputs: D.
        num_classes: C.
        rate: dilation of both in cells (published: 12).
    """

    def __init__(self, inputs: int, num_classes: int, rate: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(inputs, WIDE_RESNET_CHANNELS, 3, padding=rate, dilation=rate)
        self.classifier = nn.Conv2d(WIDE_RESNET_CHANNELS, num_classes, 3, padding=rate, dilation=rate)
        initialise_convolutions(self)
        initialise_classifier(self.classifier)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w)."""
        return self.classifier(F.relu(self.hidden(features), inplace=True))  # type: ignore[no-any-return]

    def new_layers(self) -> Sequence[nn.Module]:
        """Both."""
        return [self.hidden, self.classifier]
