"""Networks that several rooms use: feature extractors, image-text teachers, and where their weights are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from wsss.checks import nearest
from wsss.errors import RecipeError
from wsss.models.backbone import Backbone
from wsss.models.resnet import resnet50, resnet101
from wsss.models.resnet_small import resnet_small
from wsss.models.timm_backbone import PREFIX as TIMM
from wsss.models.timm_backbone import timm_backbone
from wsss.models.vgg16 import vgg16
from wsss.models.vgg_small import vgg_small
from wsss.models.wide_resnet38 import wide_resnet38

BACKBONES: Final[dict[str, Callable[..., Backbone]]] = {
    "resnet50": resnet50,
    "resnet101": resnet101,
    "wide_resnet38": wide_resnet38,
    "vgg16": vgg16,
    "resnet_small": resnet_small,
    "vgg_small": vgg_small,
}


def build_backbone(name: str, **options: Any) -> Backbone:
    """The backbone called `name`; all take output_stride, weights, batch_norm, freeze_stem, freeze_until.

    Args:
        name: one of `BACKBONES`, or `timm/NAME` for a network of timm.
        options: see the function of that name; some take more.

    Raises:
        RecipeError: no such backbone.
        ShapeError: an output stride that it does not have.
        WeightsError: its weights are missing or do not fit.
    """
    if name.startswith(TIMM):
        return timm_backbone(name.removeprefix(TIMM), **options)
    if name not in BACKBONES:
        raise RecipeError(
            f"Unknown backbone `{name}`. {nearest(name, BACKBONES)} "
            f"A network of timm works too, such as `{TIMM}convnext_tiny`."
        )
    return BACKBONES[name](**options)
