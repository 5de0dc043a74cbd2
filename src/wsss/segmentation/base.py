"""What a segmentation net is: logits of all classes for images, and losses against a target mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import ShapeError
from wsss.segmentation.losses import balanced_cross_entropy, cross_entropy, labels_at, total_pixels
from wsss.types import Batch

Loss: TypeAlias = Literal["cross_entropy", "balanced"]
LossAt: TypeAlias = Literal["grid", "image"]


class SegmentationNet(nn.Module, ABC):
    """A network trained on masks; satisfies `wsss.training.loop.Trainable`.

    Args:
        num_classes: K + 1.
        loss: "cross_entropy" (mean over pixels) or "balanced" (half background, half foreground).
        loss_at: "grid" compares with the mask shrunk to the output's grid, "image" enlarges the logits.

    Attributes:
        mean, std: statistics that images are normalised with, RGB in [0, 1].
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __init__(self, num_classes: int, *, loss: Loss = "cross_entropy", loss_at: LossAt = "grid") -> None:
        super().__init__()
        self.num_classes = num_classes
        self._loss = balanced_cross_entropy if loss == "balanced" else cross_entropy
        self._loss_at = loss_at

    @abstractmethod
    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """All logits that are trained, each (B, C, h, w) on a grid of its own; the last is the prediction."""

    @abstractmethod
    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """Optimiser groups with their learning rates."""

    def logits(self, images: Tensor) -> Tensor:
        """Scores of all classes (B, C, h, w) for normalised images (B, 3, H, W)."""
        return list(self.outputs(images).values())[-1]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """One loss for each output, against `batch.aligned["target"]` ((B, H, W), uint8, label space).

        Raises:
            ShapeError: the batch has no target.
        """
        target = batch.aligned.get("target")
        if target is None:
            names = sorted(batch.aligned) or "nothing"
            raise ShapeError(
                f'`batch.aligned["target"]` must hold the masks to train on; got {names}. '
                "Give the loader `aligned=` a function that reads them."
            )
        outputs, size = self.outputs(batch.images), target.shape[-2:]
        grids = [size if self._loss_at == "image" else logits.shape[-2:] for logits in outputs.values()]
        targets = [labels_at(target, (grid[0], grid[1])) for grid in grids]
        totals = total_pixels(targets)  # every process counts, one whose pixels are all ignored too
        losses = {}
        for (name, logits), own, total in zip(outputs.items(), targets, totals, strict=True):
            if self._loss_at == "image":
                logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            losses[name] = self._loss(logits, own, total)
        return losses
