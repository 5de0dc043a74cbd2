"""DeepLab V2: a dilated backbone and atrous spatial pyramid pooling, trained at several input scales.

Source:
    Chen et al., TPAMI 2018, https://arxiv.org/abs/1606.00915; in the form of the PyTorch reimplementation
    deeplab-pytorch, which most weakly supervised methods train on their pseudo masks.
    Differs: other backbones, rates, grids of the loss and live batch norm are options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.models.backbone import Backbone
from wsss.segmentation.base import Loss, LossAt, SegmentationNet


class AtrousPyramid(nn.Module):
    """Sum of parallel 3x3 convolutions with different dilations (ASPP).

    Args:
        inputs: channels of the features.
        num_classes: channels of the logits.
        rates: dilation of each branch, in cells.
    """

    def __init__(self, inputs: int, num_classes: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(inputs, num_classes, 3, padding=rate, dilation=rate, bias=True) for rate in rates
        )
        for branch in self.branches:
            assert isinstance(branch, nn.Conv2d)
            assert branch.bias is not None
            nn.init.normal_(branch.weight, mean=0, std=0.01)
            nn.init.zeros_(branch.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w)."""
        return torch.stack([branch(features) for branch in self.branches]).sum(dim=0)


class DeepLabV2(SegmentationNet):
    """Backbone, atrous pyramid, and the maximum over input scales.

    Args:
        backbone: feature extractor; its own batch-norm mode is kept.
        num_classes: K + 1.
        rates: dilations of the pyramid (published: 6, 12, 18, 24 at output stride 8).
        scales: input scales besides 1 (published: 0.5, 0.75); empty for a single scale.
        head_rate: learning rate of pyramid weights as a multiple of the backbone's; biases get twice that
            and no weight decay (published: 10).
        loss, loss_at: see `SegmentationNet`.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        rates: Sequence[int] = (6, 12, 18, 24),
        scales: Sequence[float] = (0.5, 0.75),
        head_rate: float = 10.0,
        loss: Loss = "cross_entropy",
        loss_at: LossAt = "grid",
    ) -> None:
        super().__init__(num_classes, loss=loss, loss_at=loss_at)
        self.backbone = backbone
        self.head = AtrousPyramid(backbone.out_channels, num_classes, rates)
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
        """Backbone kernels x1, pyramid weights x`head_rate`, its biases twice that without decay.

        Live batch norms train at x1 without decay; frozen ones are in no group.
        """
        kernels = [p for p in self.backbone.parameters() if p.requires_grad and p.ndim > 1]
        vectors = [p for p in self.backbone.parameters() if p.requires_grad and p.ndim <= 1]
        weights = [p for name, p in self.head.named_parameters() if name.endswith("weight")]
        biases = [p for name, p in self.head.named_parameters() if name.endswith("bias")]
        return [
            {"params": kernels, "lr": base_lr},
            {"params": vectors, "lr": base_lr, "weight_decay": 0.0},
            {"params": weights, "lr": self._head_rate * base_lr},
            {"params": biases, "lr": 2 * self._head_rate * base_lr, "weight_decay": 0.0},
        ]
