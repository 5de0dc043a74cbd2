"""VGG-16 as DeepLab made it fully convolutional: dilated conv5, fc6 and fc7 of 1,024 channels, stride 8.

The backbone of PSA's first classifier and affinity net, and of DeepLab's LargeFOV.

Source:
    Simonyan and Zisserman, ICLR 2015, https://arxiv.org/abs/1409.1556; pooling, dilation, fc6 and fc7 of Chen
    et al. (DeepLab), ICLR 2015, https://arxiv.org/abs/1412.7062, in two forms: DeepLab's own, and that of the
    code of PSA (Ahn and Kwak, CVPR 2018, https://arxiv.org/abs/1803.10464, https://github.com/jiwoon-ahn/psa
    at 9493e59). Module names are caffe's.
    Differs: caffe rounds sizes up when it pools, which this and PSA's code do not. Sizes of 8 n + 1 pixels,
    such as DeepLab's 321, are the same either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from wsss.errors import ShapeError
from wsss.layers.statistics import STATISTICS
from wsss.models.backbone import Backbone, BatchNormMode, initialise_convolutions
from wsss.models.weights import load_backbone_weights

GROUPS: Final = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions, channels
FC: Final = 1024
MEAN: Final = (122.675, 116.669, 104.008)  # RGB levels, 0…255; caffe nets see BGR levels minus these


class Vgg16(Backbone):
    """VGG-16 up to fc7 and its ReLU: 20,483,904 parameters, 1,024 channels, stride 8.

    | stage | modules | its tap | channels | stride |
    |---|---|---|---|---|
    | 0 | conv1_1, conv1_2 | conv1_2 | 64 | 1 |
    | 1 | pool1, conv2_1, conv2_2 | conv2_2 | 128 | 2 |
    | 2 | pool2, conv3_1 … conv3_3 | conv3_3 | 256 | 4 |
    | 3 | pool3, conv4_1 … conv4_3 | conv4_3, before pool4 (PSA: `conv4`) | 512 | 8 |
    | 4 | pool4, conv5_1 … conv5_3 | conv5_3 (PSA: `conv5`) | 512 | 8 |
    | 5 | (pool5, pool5a), fc6, fc7 | features (PSA: `conv5fc`) | 1,024 | 8 |

    All taps are behind the ReLU. PSA freezes up to stage 1. The dropout behind fc7 belongs to the heads.

    Args:
        fc6_dilation: dilation of fc6; PSA: 1 for maps, 4 for affinities; LargeFOV: 12.
        pool5: the form of DeepLab's LargeFOV: 3x3 max and average pooling before fc6, and dropout of single
            values behind it. PSA: neither pooling, and dropout of whole channels.
        caffe_input: images have ImageNet's statistics (RGB), and are turned into what caffe weights want
            before conv1_1: BGR levels (0…255) minus the mean. Padding of 0, the mean colour of the one, then
            is about (-0.5, -0.4, 1) levels, the mean colour of the other but for rounding. False: images are
            taken as they are; caffe weights want them as just said.
    """

    _scale: Tensor
    _shift: Tensor

    def __init__(self, *, fc6_dilation: int = 1, pool5: bool = False, caffe_input: bool = False) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        inputs = 3
        for group, (count, width) in enumerate(GROUPS, start=1):
            dilation = 2 if group == len(GROUPS) else 1
            for number in range(1, count + 1):
                conv = nn.Conv2d(inputs, width, 3, padding=dilation, dilation=dilation)
                self.add_module(f"conv{group}_{number}", conv)
                inputs = width
            # pool4 and pool5 keep the size: conv5 is dilated instead
            self.add_module(f"pool{group}", nn.MaxPool2d(3, stride=2 if group < 4 else 1, padding=1))
        self.pool5a = nn.AvgPool2d(3, stride=1, padding=1)  # counts the padding, as caffe does
        self.fc6 = nn.Conv2d(inputs, FC, 3, padding=fc6_dilation, dilation=fc6_dilation)
        self.drop6 = nn.Dropout(0.5) if pool5 else nn.Dropout2d(0.5)
        self.fc7 = nn.Conv2d(FC, FC, 1)
        self.pool5_is_used, self.caffe_input = pool5, caffe_input
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in STATISTICS["imagenet"])
        self.register_buffer("_scale", 255 * std, persistent=False)
        self.register_buffer("_shift", 255 * mean - torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.out_channels, self.output_stride = FC, 8
        self.stage_channels = (*(width for _, width in GROUPS), FC)
        self.stage_strides = (1, 2, 4, 8, 8, 8)
        initialise_convolutions(self)

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        """The five groups of convolutions, each but the first behind its pooling, and the rest up to fc7."""
        stages: list[list[nn.Module]] = []
        for group, (count, _) in enumerate(GROUPS, start=1):
            modules = [self.get_submodule(f"pool{group - 1}")] if group > 1 else []
            for number in range(1, count + 1):
                modules += [self.get_submodule(f"conv{group}_{number}"), self.relu]
            stages.append(modules)
        pooling = [self.get_submodule("pool5"), self.pool5a] if self.pool5_is_used else []
        return (*stages, [*pooling, self.fc6, self.relu, self.drop6, self.fc7, self.relu])

    def stages(self, images: Tensor) -> list[Tensor]:
        """One tap for each stage, see the class; the last equals `forward(images)`."""
        if self.caffe_input:
            images = (images * self._scale + self._shift).flip(1)  # RGB -> BGR
        return super().stages(images)


def vgg16(
    *,
    output_stride: int = 8,
    weights: str | Path | None = None,
    batch_norm: BatchNormMode = "live",
    freeze_stem: bool = False,
    freeze_until: int | None = None,
    fc6_dilation: int = 1,
    pool5: bool = False,
    caffe_input: bool | None = None,
) -> Vgg16:
    """VGG-16: 448 x 448 pixels give 1,024 channels of 56 x 56, and 321 x 321 pixels 41 x 41.

    Args:
        output_stride: 8, the only one.
        weights: None (random), a `.caffemodel` file or a state dict with caffe's names (conv1_1 … fc7); a
            classifier `fc8` is left out. fc6 and fc7 must be DeepLab's of 1,024 channels (`vgg16_20M`): those
            of the plain VGG-16 don't fit, and the file is refused.
        batch_norm: there is none; either value is fine.
        freeze_stem: no gradient for conv1_1 and conv1_2.
        freeze_until: last stage without gradient; PSA: 1 (conv1_1 … conv2_2).
        fc6_dilation: dilation of fc6, see `Vgg16`.
        pool5: the form of DeepLab's LargeFOV, see `Vgg16`.
        caffe_input: turn images with ImageNet's statistics into caffe's, see `Vgg16`; None: as the weights
            want it, which caffe's and PSA's files tell; not for random weights and methods' checkpoints.

    Raises:
        ShapeError: another output stride, or a dilation below 1.
        WeightsError: the weights are missing or do not fit.
    """
    if output_stride != 8:
        raise ShapeError(f"`output_stride` of vgg16 must be 8; got {output_stride}.")
    if fc6_dilation < 1:
        raise ShapeError(
            f"`fc6_dilation` must be at least 1; got {fc6_dilation}. LargeFOV has 12, PSA 1 and 4."
        )
    net = Vgg16(fc6_dilation=fc6_dilation, pool5=pool5, caffe_input=bool(caffe_input))
    if weights is not None:
        loaded = load_backbone_weights(net, weights)
        if caffe_input is None:
            net.caffe_input = loaded.preprocess == "bgr_levels"
    net.freeze(stem=freeze_stem, until=freeze_until, batch_norm=batch_norm)
    return net
