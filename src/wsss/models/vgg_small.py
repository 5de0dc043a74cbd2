"""A small VGG-style network, and the tag classifier on it that stands in for the teacher in CLIMS's ablation.

Source: Simonyan and Zisserman, ICLR 2015, https://arxiv.org/abs/1409.1556 (3x3 convolutions, max pooling).
Differs: narrow, with batch norm, for 96-pixel images and training from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import ShapeError
from wsss.models.backbone import Backbone, BatchNormMode, conv_bn_relu, initialise_convolutions
from wsss.models.weights import load_backbone_weights
from wsss.types import Batch

WIDTHS: Final = (16, 32, 64, 128)


class VggSmall(Backbone):
    """Four stages of two 3x3 convolutions, pooling between them; about 0.3 million parameters, stride 8."""

    def __init__(self) -> None:
        super().__init__()
        inputs = 3
        for number, width in enumerate(WIDTHS):
            layers = [conv_bn_relu(inputs, width), conv_bn_relu(width, width)]
            if number > 0:
                layers.insert(0, nn.Sequential(nn.MaxPool2d(2)))
            setattr(self, f"stage{number}", nn.Sequential(*layers))
            inputs = width
        self.out_channels, self.output_stride = inputs, 8
        self.stage_channels, self.stage_strides = WIDTHS, (1, 2, 4, 8)
        initialise_convolutions(self)

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        """The four stages."""
        return tuple((self.get_submodule(f"stage{number}"),) for number in range(len(WIDTHS)))


def vgg_small(
    *,
    output_stride: int = 8,
    weights: str | Path | None = None,
    batch_norm: BatchNormMode = "live",
    freeze_stem: bool = False,
    freeze_until: int | None = None,
) -> VggSmall:
    """The small VGG: 96 x 96 pixels give 128 channels of 12 x 12; arguments as `resnet_small`."""
    if output_stride != 8:
        raise ShapeError(f"`output_stride` of vgg_small must be 8; got {output_stride}.")
    net = VggSmall()
    if weights is not None:
        load_backbone_weights(net, weights)
    net.freeze(stem=freeze_stem, until=freeze_until, batch_norm=batch_norm)
    return net


class TagClassifier(nn.Module):
    """Multi-label classifier of whole images: backbone, global average pooling, linear layer.

    Trained by itself and then frozen, it judges masked images in place of a language teacher (CLIMS, CVPR
    2022, table 3, first row: a VGG-16 classifier as evaluator).

    Args:
        backbone: feature extractor.
        num_foreground: K.
    """

    def __init__(self, backbone: Backbone, num_foreground: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.out_channels, num_foreground)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, 3, H, W)."""
        return self.classifier(self.backbone(images).mean(dim=(2, 3))).float()  # type: ignore[no-any-return]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Multi-label soft-margin loss, mean over classes and images."""
        labels = batch.image_labels.float()
        return {"classification": F.multilabel_soft_margin_loss(self(batch.images), labels)}

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """Everything that trains, at the base rate."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": base_lr}]
