"""What every feature extractor offers: features, taps of its stages, frozen parts and batch-norm modes.

Backbones have no head. Methods, affinity nets and segmentation nets put their own on `out_channels`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeAlias

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import Self

from wsss.errors import ShapeError

BatchNormMode: TypeAlias = Literal["live", "frozen"]


class Backbone(nn.Module, ABC):
    """A feature extractor of several stages: stage 0 is the stem, the last one gives the features.

    Attributes:
        out_channels: D.
        output_stride: image size / feature size.
        stage_channels: channels of each tap that `stages` returns.
        stage_strides: image size / size of each tap.
        batch_norm: "live" (batch statistics in training, running statistics move) or "frozen" (running
            statistics always, which never move; scale and shift still train).
        freeze_until: number of the last stage without gradient; None where everything trains.
    """

    out_channels: int
    output_stride: int
    stage_channels: tuple[int, ...]
    stage_strides: tuple[int, ...]

    def __init__(self) -> None:
        super().__init__()
        self.batch_norm: BatchNormMode = "live"
        self.freeze_until: int | None = None

    @abstractmethod
    def parts(self) -> Sequence[Sequence[nn.Module]]:
        """The stages in order, the stem first; each is the modules that it runs one after the other."""

    def stages(self, images: Tensor) -> list[Tensor]:
        """Features after every stage, for heads that need several resolutions.

        Args:
            images: normalised; (B, 3, H, W).

        Returns:
            One tap for each of `stage_channels`; the last equals `forward(images)`.
        """
        features, taps = images, []
        for number, part in enumerate(self.parts()):
            for module in part:
                features = module(features)
            if number == self.freeze_until:
                features = features.detach()
            taps.append(features)
        return taps

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D, h, w) of normalised images (B, 3, H, W)."""
        return self.stages(images)[-1]

    def freeze(
        self, *, stem: bool = False, until: int | None = None, batch_norm: BatchNormMode | None = None
    ) -> Self:
        """Choose what trains; call it before the model is wrapped for several devices.

        Args:
            stem: no gradient for stage 0 (CLIMS, improved: its batch-norm statistics move all the same).
            until: no gradient for the stages up to this number, and none through it (IRN: 2).
            batch_norm: "frozen" (IRN's classifier) or "live" (CLIMS, QA-CLIMS); None leaves it.
        """
        parts = self.parts()
        if until is not None and not 0 <= until < len(parts):
            raise ShapeError(
                f"`until` must be a stage number in 0…{len(parts) - 1}; got {until}. Stage 0 is the stem."
            )
        last = until if until is not None else 0 if stem else None
        if last is not None:
            for module in (module for part in parts[: last + 1] for module in part):
                module.requires_grad_(False)
        self.freeze_until = last
        if batch_norm is not None:
            self.batch_norm = batch_norm
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch mode; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self.batch_norm == "frozen":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def initialise_convolutions(module: nn.Module) -> None:
    """He initialisation (fan out) of convolutions; batch norms start as identity."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, _BatchNorm):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def conv_bn_relu(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; the size is input size / stride, rounded up."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
