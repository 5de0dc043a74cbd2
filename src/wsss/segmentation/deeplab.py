"""DeepLab: a dilated backbone and a head that scores its features, trained at one or several input scales.

V1 and V2 differ in their heads, which stand in `deeplab_v1` and `deeplab_v2`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.models.backbone import Backbone
from wsss.segmentation.base import Loss, LossAt, SegmentationNet


class Head(nn.Module, ABC):
    """Layers from features (B, D, h, w) to the logits of all classes (B, C, h, w)."""

    @abstractmethod
    def new_layers(self) -> Sequence[nn.Module]:
        """The layers that no published weights are for; they learn faster than the others."""


class DeepLab(SegmentationNet):
    """Backbone, head, and the maximum over input scales.

    Args:
        backbone: feature extractor; its own batch-norm mode is kept.
        head: of as many inputs as the backbone has channels.
        num_classes: K + 1.
        scales: input scales besides 1 (deeplab-pytorch: 0.5, 0.75); empty for a single scale.
        head_rate: learning rate of the head's new layers as a multiple of the backbone's (published: 10).
        loss, loss_at: see `SegmentationNet`.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        num_classes: int,
        *,
        scales: Sequence[float] = (),
        head_rate: float = 10.0,
        loss: Loss = "cross_entropy",
        loss_at: LossAt = "grid",
    ) -> None:
        super().__init__(num_classes, loss=loss, loss_at=loss_at)
        self.backbone = backbone
        self.head = head
        self._scales, self._head_rate = tuple(scales), head_rate
        if backbone.batch_norm == "frozen":  # scale and shift stay untouched too
            for layer in backbone.modules():
                if isinstance(layer, _BatchNorm):
                    layer.requires_grad_(False)

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Logits at scale 1, at each other scale (on grids of their own), and the maximum of them all.

        The maximum is taken on the grid of scale 1. With a single scale there is only that one.
        """
        whole = self.head(self.backbone(images))  # (B, C, h, w)
        if not self._scales:
            return {"cross_entropy": whole}
        outputs = {"scale_1": whole}
        for scale in self._scales:
            # the factor, not the rounded size, fixes where pixels are read, as in the reference
            scaled = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
            outputs[f"scale_{scale:g}"] = self.head(self.backbone(scaled))
        size = whole.shape[-2:]
        enlarged = [
            F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            for logits in list(outputs.values())[1:]
        ]
        return outputs | {"scale_max": torch.stack([whole, *enlarged]).amax(dim=0)}

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """Kernels x1, those of new layers x`head_rate`; biases twice that, without decay, as in caffe.

        Live batch norms train at x1 without decay; frozen ones are in no group. All other layers of the head
        (fc6 and fc7 of VGG-16) belong to the backbone's groups.
        """
        new = nn.ModuleList(self.head.new_layers())
        known = {id(parameter) for parameter in new.parameters()}
        old = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        biases = [p for p in _biases(self) if p.requires_grad and id(p) not in known]
        ids = {id(bias) for bias in biases}
        rate = self._head_rate * base_lr
        groups: list[dict[str, Any]] = [
            {"params": [p for p in old if p.ndim > 1], "lr": base_lr},
            {
                "params": [p for p in old if p.ndim <= 1 and id(p) not in ids],
                "lr": base_lr,
                "weight_decay": 0.0,
            },
            {"params": [p for p in new.parameters() if p.ndim > 1], "lr": rate},
            {"params": [p for p in new.parameters() if p.ndim <= 1], "lr": 2 * rate, "weight_decay": 0.0},
        ]
        if biases:
            groups.append({"params": biases, "lr": 2 * base_lr, "weight_decay": 0.0})
        return groups


def _biases(net: nn.Module) -> Iterator[Tensor]:
    """Biases of convolutions."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            yield layer.bias


def initialise_classifier(layer: nn.Conv2d) -> None:
    """Small random weights and no bias, as DeepLab starts the layer that gives the logits (N(0, 0.01))."""
    nn.init.normal_(layer.weight, mean=0, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
