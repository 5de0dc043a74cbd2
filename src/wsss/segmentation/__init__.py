"""Segmentation networks trained on pseudo masks, or on true masks as the fully supervised twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from wsss.models import BACKBONES
from wsss.models.backbone import Backbone
from wsss.segmentation.base import SegmentationNet
from wsss.segmentation.config import SegmentationConfig
from wsss.segmentation.conventions import Conventions
from wsss.segmentation.deeplab import DeepLab, Head
from wsss.segmentation.deeplab_v1 import LargeFov, WideResNetHead
from wsss.segmentation.deeplab_v2 import AtrousPyramid, LargeFovPyramid
from wsss.segmentation.presets import PRESETS
from wsss.segmentation.resnet101_deeplab import resnet101_deeplab
from wsss.segmentation.smp_network import smp_network
from wsss.segmentation.vgg16_deeplab import vgg16_deeplab

__all__ = ["PRESETS", "SegmentationConfig", "SegmentationNet", "build", "without_weights"]

_BACKBONES: Final[dict[str, Callable[..., Backbone]]] = {
    **BACKBONES,
    "resnet101_deeplab": resnet101_deeplab,
    "vgg16": vgg16_deeplab,
}
_WITH_CONVENTIONS: Final = ("resnet101_deeplab", "vgg16")
_VGG: Final = ("vgg16", "vgg_small")


def build(config: SegmentationConfig, class_names: Sequence[str]) -> SegmentationNet:
    """The network that `config` describes, with random or given first weights.

    Args:
        config: architecture and losses.
        class_names: K + 1 names, the first "background".

    Raises:
        ShapeError: the backbone has no such output stride.
        WeightsError: the given weights are missing or do not fit, or a package is missing.
    """
    if config.network == "smp":
        assert config.smp is not None
        return smp_network(
            config.smp,
            len(class_names),
            weights=config.weights,
            batch_norm=config.batch_norm,
            head_rate=config.head_rate,
            loss=config.loss,
            loss_at=config.loss_at,
        )
    options: dict[str, Any] = {"weights": config.weights, "batch_norm": config.batch_norm}
    if config.output_stride is not None:
        options["output_stride"] = config.output_stride
    if config.backbone in _WITH_CONVENTIONS:
        options["conventions"] = config.conventions
    backbone = _BACKBONES[config.backbone](**options)
    net = DeepLab(
        backbone,
        _head(config, backbone, len(class_names)),
        len(class_names),
        scales=config.scales,
        head_rate=config.head_rate,
        loss=config.loss,
        loss_at=config.loss_at,
    )
    conventions = _conventions(net)
    if conventions is not None:
        net.mean, net.std = conventions.statistics
    return net


def without_weights(config: SegmentationConfig, net: SegmentationNet) -> SegmentationConfig:
    """Settings that build a network for the state dict of `net` without the file that it started from.

    Args:
        config: what `net` was built from.
        net: the network, which knows what went with that file.
    """
    return config.model_copy(update={"weights": None, "conventions": _conventions(net)})


def _conventions(net: SegmentationNet) -> Conventions | None:
    backbone = getattr(net, "backbone", None)
    return getattr(backbone, "conventions", None)


def _head(config: SegmentationConfig, backbone: Backbone, num_classes: int) -> Head:
    """The head of V1 or V2 that belongs to a backbone."""
    inputs, start = backbone.out_channels, getattr(backbone, "fc", None)
    if config.network == "deeplab_v1" and config.backbone in _VGG:
        return LargeFov(inputs, num_classes, config.rates[0], start)
    if config.network == "deeplab_v1" and config.backbone == "wide_resnet38":
        return WideResNetHead(inputs, num_classes, config.rates[0])
    if config.backbone in _VGG:
        return LargeFovPyramid(inputs, num_classes, config.rates, start)
    return AtrousPyramid(inputs, num_classes, config.rates)
