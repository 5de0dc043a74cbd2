"""What goes with published weights and stands in no tensor: the images they want, and where strides lie.

Caffe's networks see BGR levels minus the mean colour, torchvision's RGB with ImageNet's statistics.
Bottlenecks that halve the size have their stride in the first 1x1 convolution (caffe) or in the 3x3 one
(torchvision).
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from typing_extensions import Self

from wsss.errors import WeightsError
from wsss.layers.statistics import STATISTICS, Triple
from wsss.models.weight_names import NamedWeights

MEAN: Final = (122.675 / 255, 116.669 / 255, 104.008 / 255)  # caffe's, RGB in [0, 1]
STD: Final = (1 / 255, 1 / 255, 1 / 255)  # caffe nets see 0-255 levels minus the mean


class Conventions(BaseModel):
    """How a backbone of DeepLab reads images and shrinks them; the defaults are caffe's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preprocess: Literal["bgr_levels", "imagenet"] = Field(
        "bgr_levels",
        description="bgr_levels: BGR, 0…255, minus the mean (caffe); imagenet: RGB (torchvision).",
    )
    stride_in_1x1: bool = Field(
        True,
        description="Whether bottlenecks have their stride in the first 1x1 convolution (caffe) or in the "
        "3x3 one (torchvision).",
    )

    @classmethod
    def of(cls, weights: NamedWeights) -> Self:
        """Those of published weights; strides are caffe's where a network has none to tell.

        Raises:
            WeightsError: the weights' names leave open which images they want.
        """
        if weights.preprocess == "unknown":
            raise WeightsError(
                "These weights do not tell which images they want. Write `segmentation.conventions: "
                "{preprocess: imagenet, stride_in_1x1: false}` (torchvision's) or "
                "`{preprocess: bgr_levels, stride_in_1x1: true}` (caffe's)."
            )
        preprocess = "imagenet" if weights.preprocess == "imagenet" else "bgr_levels"
        return cls(preprocess=preprocess, stride_in_1x1=weights.stride_in_1x1 is not False)

    @property
    def statistics(self) -> tuple[Triple, Triple]:
        """Mean and standard deviation that images are normalised with, RGB in [0, 1]."""
        return (MEAN, STD) if self.preprocess == "bgr_levels" else STATISTICS["imagenet"]

    def ordered(self, images: Tensor) -> Tensor:
        """Normalised RGB images (B, 3, H, W) with their colours in the order that the weights want."""
        return images.flip(1) if self.preprocess == "bgr_levels" else images
