"""WideResNet-38 (model A1 of ademxapp): the backbone of PSA, SEAM, EPS and SMVWE, at output stride 8.

A network of pre-activation blocks: batch norm and ReLU come before each convolution, so a block's input is a
plain sum and the first thing it does is to activate it. Taps are these activated inputs; a block's own
convolutions and a head share one and the same tensor.

Source:
    Wu et al., *Wider or Deeper: Revisiting the ResNet Model for Visual Recognition*, Pattern Recognition
    2019, https://arxiv.org/abs/1611.10080; taps, dropout and frozen parts as in the code of PSA (Ahn and
    Kwak, CVPR 2018, https://arxiv.org/abs/1803.10464, https://github.com/jiwoon-ahn/psa at 9493e59), whose
    module names state dicts have.
    Differs: the original network has one dropout in each bottleneck, PSA's and this one have two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias, cast

import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import ShapeError
from wsss.models.backbone import Backbone, BatchNormMode, initialise_convolutions
from wsss.models.weights import load_backbone_weights

STEM: Final = 64
GROUPS: Final = (  # name, blocks, channels between, channels, stride, dilation
    ("b2", 3, 128, 128, 2, 1),
    ("b3", 3, 256, 256, 2, 1),
    ("b4", 6, 512, 512, 2, 1),
    ("b5", 3, 512, 1024, 1, 2),
)
BOTTLENECKS: Final = (("b6", 2048, 0.3), ("b7", 4096, 0.5))  # name, channels, dropout
BOTTLENECK_DILATION: Final = 4


class WideBlock(nn.Module):
    """Two activated 3x3 convolutions around a shortcut, which is 1x1 where the size or D changes.

    Args:
        inputs: D of the input.
        width: channels between the convolutions.
        outputs: D of the output.
        stride: of the first convolution and the shortcut.
        first_dilation: of the first convolution.
        dilation: of the second.
    """

    def __init__(
        self, inputs: int, width: int, outputs: int, *, stride: int, first_dilation: int, dilation: int
    ) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = _conv3x3(inputs, width, stride=stride, dilation=first_dilation)
        self.bn_branch2b1 = nn.BatchNorm2d(width)
        self.conv_branch2b1 = _conv3x3(width, outputs, dilation=dilation)
        self.conv_branch1: nn.Conv2d | None = None
        if inputs != outputs or stride != 1:
            self.conv_branch1 = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def activate(self, features: Tensor) -> Tensor:
        """The activated input; (B, D, h, w) -> (B, D, h, w)."""
        return _activate(self.bn_branch2a, features)

    def forward(self, features: Tensor, activated: Tensor) -> Tensor:
        """(B, D, h, w) and its activation -> (B, D', h / stride, w / stride)."""
        hidden: Tensor = self.conv_branch2a(activated)
        hidden = self.conv_branch2b1(_activate(self.bn_branch2b1, hidden))
        return hidden + (features if self.conv_branch1 is None else self.conv_branch1(activated))


class WideBottleneck(nn.Module):
    """Activated 1x1, dilated 3x3 and 1x1 convolutions around a 1x1 shortcut, with dropout of whole channels.

    Args:
        inputs: D of the input.
        outputs: D of the output; a quarter and a half of it lie between.
        dropout: probability, before the second and the third convolution.
    """

    def __init__(self, inputs: int, outputs: int, *, dropout: float) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = nn.Conv2d(inputs, outputs // 4, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(outputs // 4)
        self.dropout_2b1 = nn.Dropout2d(dropout)
        self.conv_branch2b1 = _conv3x3(outputs // 4, outputs // 2, dilation=BOTTLENECK_DILATION)
        self.bn_branch2b2 = nn.BatchNorm2d(outputs // 2)
        self.dropout_2b2 = nn.Dropout2d(dropout)
        self.conv_branch2b2 = nn.Conv2d(outputs // 2, outputs, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(inputs, outputs, 1, bias=False)

    def activate(self, features: Tensor) -> Tensor:
        """The activated input; (B, D, h, w) -> (B, D, h, w)."""
        return _activate(self.bn_branch2a, features)

    def forward(self, features: Tensor, activated: Tensor) -> Tensor:
        """The activation (B, D, h, w) of `features` -> (B, D', h, w); `features` as such are not needed."""
        hidden: Tensor = self.conv_branch2a(activated)
        hidden = self.conv_branch2b1(self.dropout_2b1(_activate(self.bn_branch2b1, hidden)))
        hidden = self.conv_branch2b2(self.dropout_2b2(_activate(self.bn_branch2b2, hidden)))
        return hidden + cast("Tensor", self.conv_branch1(activated))


Block: TypeAlias = WideBlock | WideBottleneck


class WideResNet38(Backbone):
    """WideResNet-38 without classifier: 105,070,912 parameters, 4,096 channels, stride 8.

    | stage | modules | its tap | channels | stride |
    |---|---|---|---|---|
    | 0 | conv1a | activated input of b2 | 64 | 1 |
    | 1 | b2, b2_1, b2_2 | activated input of b3 | 128 | 2 |
    | 2 | b3, b3_1, b3_2 | activated input of b4 | 256 | 4 |
    | 3 | b4, b4_1 … b4_5 | activated input of b5 (PSA: `conv4`) | 512 | 8 |
    | 4 | b5, b5_1, b5_2 | activated input of b6 (PSA: `conv5`) | 1,024 | 8 |
    | 5 | b6, b7, bn7 | features (PSA: `conv6`) | 4,096 | 8 |

    PSA and EPS freeze up to stage 1. The batch norm that activates a stage's tap belongs to the next stage:
    with `freeze_until` 1 it trains in b3 unless its scale and shift are frozen, which PSA does everywhere
    (`wsss.layers.cam_backbone.freeze_batch_norm_affine`). Images have ImageNet's statistics.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1a = _conv3x3(3, STEM)
        inputs = STEM
        for name, count, width, outputs, stride, dilation in GROUPS:
            for number in range(count):
                block = WideBlock(
                    inputs,
                    width,
                    outputs,
                    stride=stride if number == 0 else 1,
                    first_dilation=1 if number == 0 else dilation,
                    dilation=dilation,
                )
                self.add_module(name if number == 0 else f"{name}_{number}", block)
                inputs = outputs
        for name, outputs, dropout in BOTTLENECKS:
            self.add_module(name, WideBottleneck(inputs, outputs, dropout=dropout))
            inputs = outputs
        self.bn7 = nn.BatchNorm2d(inputs)
        self.out_channels, self.output_stride = inputs, 8
        self.stage_channels = (STEM, *(group[3] for group in GROUPS), inputs)
        self.stage_strides = (1, 2, 4, 8, 8, 8)
        initialise_convolutions(self)

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        """Stem, the groups b2 … b5, and b6, b7 and bn7 together."""
        *groups, last = self._groups()
        return ((self.conv1a,), *groups, (*last, self.bn7))

    def stages(self, images: Tensor) -> list[Tensor]:
        """One tap for each stage, see the class; the last equals `forward(images)`."""
        return list(self._taps(images))

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 4096, H / 8, W / 8) of normalised images (B, 3, H, W)."""
        return deque(self._taps(images), maxlen=1)[0]

    def _groups(self) -> list[tuple[Block, ...]]:
        names = [[name, *(f"{name}_{number}" for number in range(1, count))] for name, count, *_ in GROUPS]
        names.append([name for name, *_ in BOTTLENECKS])
        return [tuple(cast("Block", self.get_submodule(name)) for name in group) for group in names]

    def _taps(self, images: Tensor) -> Iterator[Tensor]:
        """One tap after the other, so that `forward` holds none of the large first ones."""
        features = self.conv1a(images)
        groups = self._groups()
        for number, group in enumerate(groups):
            if number == self.freeze_until:
                features = features.detach()
            for block in group:
                activated = block.activate(features)
                if block is group[0]:
                    yield activated
                features = block(features, activated)
        features = _activate(self.bn7, features)
        yield features.detach() if self.freeze_until == len(groups) else features


def _conv3x3(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False)


def _activate(norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    return F.relu(norm(features), inplace=True)  # nobody else needs the norm's output


def wide_resnet38(
    *,
    output_stride: int = 8,
    weights: str | Path | None = None,
    batch_norm: BatchNormMode = "live",
    freeze_stem: bool = False,
    freeze_until: int | None = None,
) -> WideResNet38:
    """WideResNet-38: 448 x 448 pixels give 4,096 channels of 56 x 56.

    Args:
        output_stride: 8, the only one.
        weights: None (random), ademxapp's file of mxnet (`ilsvrc-cls_rna-a1_cls1000_ep-0001.params`), or a
            state dict with PSA's names; a classifier is left out.
        batch_norm: "live" or "frozen", see `Backbone`; PSA: frozen.
        freeze_stem: no gradient for conv1a.
        freeze_until: last stage without gradient; PSA and EPS: 1 (conv1a, b2, b2_1, b2_2).

    Raises:
        ShapeError: another output stride.
        WeightsError: the weights are missing or do not fit.
    """
    if output_stride != 8:
        raise ShapeError(f"`output_stride` of wide_resnet38 must be 8; got {output_stride}.")
    net = WideResNet38()
    if weights is not None:
        load_backbone_weights(net, weights)
    return net.freeze(stem=freeze_stem, until=freeze_until, batch_norm=batch_norm)
