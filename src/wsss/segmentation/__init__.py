"""Segmentation networks trained on pseudo masks, or on true masks as the fully supervised twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from wsss.models import BACKBONES
from wsss.models.backbone import Backbone
from wsss.segmentation import resnet101_deeplab
from wsss.segmentation.base import SegmentationNet
from wsss.segmentation.config import PRESETS, SegmentationConfig
from wsss.segmentation.deeplab_v2 import DeepLabV2

__all__ = ["PRESETS", "SegmentationConfig", "SegmentationNet", "build"]

_BACKBONES: Final[dict[str, Callable[..., Backbone]]] = {
    **BACKBONES,
    "resnet101_deeplab": resnet101_deeplab.resnet101_deeplab,
}


def build(config: SegmentationConfig, class_names: Sequence[str]) -> SegmentationNet:
    """The network that `config` describes, with random or given first weights.

    Args:
        config: architecture and losses.
        class_names: K + 1 names, the first "background".

    Raises:
        ShapeError: the backbone has no such output stride.
        WeightsError: the given weights are missing or do not fit.
    """
    options: dict[str, Any] = {"weights": config.weights, "batch_norm": config.batch_norm}
    if config.output_stride is not None:
        options["output_stride"] = config.output_stride
    net = DeepLabV2(
        _BACKBONES[config.backbone](**options),
        len(class_names),
        rates=config.rates,
        scales=config.scales,
        head_rate=config.head_rate,
        loss=config.loss,
        loss_at=config.loss_at,
    )
    if config.backbone == "resnet101_deeplab":
        net.mean, net.std = resnet101_deeplab.MEAN, resnet101_deeplab.STD
    return net
