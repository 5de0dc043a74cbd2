"""The feature extractor of a method, built from the fields that all such methods' configurations share."""

from __future__ import annotations

from typing import Protocol

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.models import build_backbone
from wsss.models.backbone import Backbone, BatchNormMode


class BackboneFields(Protocol):
    """Fields of `CamConfig`, `ClimsConfig` and the like; their descriptions are there."""

    @property
    def backbone(self) -> str: ...
    @property
    def backbone_weights(self) -> str | None: ...
    @property
    def output_stride(self) -> int | None: ...
    @property
    def batch_norm(self) -> BatchNormMode: ...
    @property
    def freeze_until(self) -> int | None: ...


def cam_backbone(config: BackboneFields) -> Backbone:
    """Build the backbone that `config` describes; None as `output_stride` is the backbone's own.

    Raises:
        RecipeError: no such backbone.
        ShapeError: an output stride or a last frozen stage that it does not have.
        WeightsError: its weights are missing or do not fit.
    """
    stride = {} if config.output_stride is None else {"output_stride": config.output_stride}
    return build_backbone(
        config.backbone,
        weights=config.backbone_weights,
        batch_norm=config.batch_norm,
        freeze_until=config.freeze_until,
        **stride,
    )


def freeze_batch_norm_affine(module: nn.Module) -> None:
    """Take scale and shift of all batch norms out of training; their statistics are left alone."""
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.requires_grad_(False)
