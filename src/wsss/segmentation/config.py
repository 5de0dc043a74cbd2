"""Settings of segmentation networks, with the published DeepLab V2 and the scenes benchmark as presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wsss.segmentation.base import Loss, LossAt
from wsss.training.config import TrainingConfig, merged_settings

PRESETS: Final[dict[str, dict[str, Any]]] = {
    # deeplab-pytorch on VOC 2012
    "voc12": {
        "training": {
            "steps": 20_000,
            "batch_size": 5,
            "accumulate": 2,
            "learning_rate": 2.5e-4,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "schedule_hold": 10,
            "augmentation": {
                "crop_size": 321,
                "scale_choices": (0.5, 0.75, 1.0, 1.25, 1.5),
                "interpolation": "bilinear",
                "pad_position": "end",
            },
        },
    },
    # about a thousand small images such as the scenes, from random weights: a few minutes on one core
    "scenes": {
        "backbone": "resnet_small",
        "output_stride": 4,
        "batch_norm": "live",
        "rates": (1, 3, 6, 9),
        "scales": (),
        "loss_at": "image",
        "head_rate": 1.0,
        "test_flip": True,
        "training": {
            "epochs": 8,
            "batch_size": 16,
            "optimizer": "adamw",
            "learning_rate": 2e-3,
            "channels_last": True,
            "weight_decay": 1e-2,
            "augmentation": {"crop_size": 96, "scale": (0.75, 1.25)},
        },
    },
}


class SegmentationConfig(BaseModel):
    """Which network is trained on which masks, and how it is tested."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["voc12", "scenes"] = Field(
        "voc12",
        description="Defaults of all other fields: voc12 = DeepLab V2 on VOC 2012 (deeplab-pytorch); scenes: "
        "a small network from random weights for small images.",
    )
    network: Literal["deeplab_v2"] = Field("deeplab_v2", description="Architecture.")
    backbone: Literal["resnet101_deeplab", "resnet101", "resnet50", "resnet_small"] = Field(
        "resnet101_deeplab", description="Feature extractor (DeepLab V2: resnet101_deeplab)."
    )
    output_stride: int | None = Field(
        None, ge=1, description="Image size / feature size; null: the backbone's own (DeepLab: 8)."
    )
    weights: str | None = Field(
        None, description="First weights of the backbone: a file or a known name; null: random."
    )
    batch_norm: Literal["frozen", "live"] = Field(
        "frozen", description="frozen: running statistics, nothing trains (DeepLab V2); live: as usual."
    )
    rates: tuple[int, ...] = Field(
        (6, 12, 18, 24),
        min_length=1,
        description="Dilations of the pyramid in cells (DeepLab V2, section 4.1).",
    )
    scales: tuple[float, ...] = Field(
        (0.5, 0.75), description="Input scales besides 1, in training and testing (deeplab-pytorch)."
    )
    loss: Loss = Field(
        "cross_entropy",
        description="balanced: half the mean over background, half over foreground (CLIMS, ImageNet).",
    )
    loss_at: LossAt = Field(
        "grid", description="grid: masks shrink to the output's grid (published); image: logits are enlarged."
    )
    head_rate: float = Field(
        10.0, gt=0, description="Learning rate of the pyramid as a multiple of the backbone's (DeepLab: 10)."
    )
    target: Literal["pseudo_masks", "masks"] = Field(
        "pseudo_masks",
        description="masks: true masks, the fully supervised twin; pseudo_masks: weak supervision.",
    )
    training: TrainingConfig = Field(
        default_factory=lambda: TrainingConfig(**PRESETS["voc12"]["training"]),
        description="Length, rates, batches.",
    )
    test_scales: tuple[float, ...] = Field(
        (1.0,),
        min_length=1,
        description="Image scales whose probabilities are averaged in testing (DeepLab: 1).",
    )
    test_flip: bool = Field(False, description="Average with the mirrored image in testing (DeepLab: no).")
    test_batch_size: int = Field(16, ge=1, description="Most images of equal size predicted at once.")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        """Put the preset's values under the given ones."""
        if not isinstance(values, Mapping) or values.get("preset", "voc12") not in PRESETS:
            return values
        return merged_settings(PRESETS[values.get("preset", "voc12")], values)
