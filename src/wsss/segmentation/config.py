"""Settings of segmentation networks; the published ones are presets of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from typing_extensions import Self

from wsss.checks import nearest
from wsss.crf import PRESETS as CRF_PRESETS
from wsss.crf import CrfParameters
from wsss.segmentation.base import Loss, LossAt
from wsss.segmentation.conventions import Conventions
from wsss.segmentation.presets import OF_ONE_BACKBONE, PRESETS, WEIGHTS_OF
from wsss.training.config import TrainingConfig, merged_settings

CRF_AFTER_DEEPLAB: Final[dict[str, CrfParameters]] = {"deeplab": CRF_PRESETS["deeplab_v2"], **CRF_PRESETS}
"""Parameter sets that `dense_crf` knows by name."""

_LEFT_OUT: Final = ("conventions", "dense_crf", "smp")
"""Settings that are part of the plain data only where they are given: networks without them are what they
were before these existed, and so are the fingerprints of their stages."""


class SmpConfig(BaseModel):
    """A network of the package segmentation_models_pytorch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = Field("Unet", description="Class name, such as Unet, FPN or DeepLabV3Plus.")
    encoder: str = Field("resnet34", description="Name of the encoder; its weights are `weights`.")
    options: dict[str, Any] = Field(
        {}, description="Further arguments of the architecture, such as {decoder_dropout: 0.1}."
    )


class SegmentationConfig(BaseModel):
    """Which network is trained on which masks, and how it is tested."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal[
        "voc12",
        "voc12_imagenet",
        "coco14",
        "vgg16_v1",
        "vgg16_v2",
        "resnet101_v1",
        "resnet38_v1",
        "resnet38_v1_qa_clims",
        "scenes",
        "scenes_v1_resnet",
        "scenes_v1_vgg",
        "scenes_v2_vgg",
    ] = Field(
        "voc12",
        description="Defaults of all other fields: voc12 = DeepLab V2 on VOC 2012 (deeplab-pytorch), "
        "voc12_imagenet = from ImageNet weights (CLIMS), coco14 = 100,000 steps of 2 x 10 images (CLIMS; "
        "LPCAM: at 2e-4, RIB: crops of 481, scales to 2); vgg16_v1, vgg16_v2, resnet101_v1 and resnet38_v1 "
        "(SEAM; resnet38_v1_qa_clims) = DeepLab V1 and V2 on VOC 2012, each for its backbone alone; scenes…: "
        "small networks from random weights for small images.",
    )
    network: Literal["deeplab_v1", "deeplab_v2", "smp"] = Field(
        "deeplab_v2", description="Architecture; smp: one of segmentation_models_pytorch, see `smp`."
    )
    backbone: Literal[
        "resnet101_deeplab",
        "resnet101",
        "resnet50",
        "resnet_small",
        "vgg16",
        "vgg_small",
        "wide_resnet38",
    ] = Field(
        "resnet101_deeplab",
        description="Feature extractor of DeepLab (V2: resnet101_deeplab; V1: vgg16, wide_resnet38).",
    )
    output_stride: int | None = Field(
        None, ge=1, description="Image size / feature size; null: the backbone's own (DeepLab: 8)."
    )
    weights: str | None = Field(
        None, description="First weights of the backbone: a file or a known name; null: random."
    )
    conventions: Conventions | None = Field(
        None,
        description="Strides and images of resnet101_deeplab and vgg16; null: as goes with the weights, "
        "caffe's for random ones.",
    )
    batch_norm: Literal["frozen", "live"] = Field(
        "frozen", description="frozen: running statistics, nothing trains (DeepLab V2); live: as usual."
    )
    rates: tuple[int, ...] = Field(
        (6, 12, 18, 24),
        min_length=1,
        description="Dilations in cells: those of the pyramid (DeepLab V2, section 4.1), or the one of V1's "
        "LargeFOV (12).",
    )
    scales: tuple[float, ...] = Field(
        (0.5, 0.75), description="Input scales besides 1, in training and testing (deeplab-pytorch)."
    )
    smp: SmpConfig | None = Field(
        None,
        description="Network of segmentation_models_pytorch, for `network: smp`, which leaves `backbone`, "
        "`output_stride`, `rates` and `scales` unused.",
    )
    loss: Loss = Field(
        "cross_entropy",
        description="balanced: half the mean over background, half over foreground (CLIMS, ImageNet).",
    )
    loss_at: LossAt = Field(
        "grid", description="grid: masks shrink to the output's grid (published); image: logits are enlarged."
    )
    head_rate: float = Field(
        10.0,
        gt=0,
        description="Learning rate of new layers as a multiple of the backbone's (DeepLab: 10).",
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
    dense_crf: CrfParameters | None = Field(
        None,
        description="Dense CRF after the network, scored beside the predictions without it: `deeplab` or "
        "another set of parameters by name, or values that differ from `deeplab`'s.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        """Put the preset's values under the given ones."""
        if not isinstance(values, Mapping) or values.get("preset", "voc12") not in tuple(PRESETS):
            return values
        preset = values.get("preset", "voc12")
        if preset in OF_ONE_BACKBONE and values.get("network") != "smp":
            own, given = PRESETS[preset]["backbone"], values.get("backbone", PRESETS[preset]["backbone"])
            if given != own:
                raise ValueError(
                    f"`preset: {preset}` is of the backbone {own}, `backbone: {given}` is another. Leave "
                    "`backbone` out, or choose a preset of that backbone"
                )
        merged = merged_settings(PRESETS[preset], values)
        if merged.get("network") == "smp" and merged.get("smp") is None:
            merged["smp"] = {}
        return merged

    @field_validator("dense_crf", mode="before")
    @classmethod
    def _named_crf(cls, value: Any) -> Any:
        """Parameters that a name stands for; values are laid over those of `deeplab`."""
        if isinstance(value, str):
            if value not in CRF_AFTER_DEEPLAB:
                raise ValueError(f"there are no such parameters. {nearest(value, CRF_AFTER_DEEPLAB)}")
            return CRF_AFTER_DEEPLAB[value]
        if isinstance(value, Mapping):
            return {**CRF_AFTER_DEEPLAB["deeplab"].model_dump(), **value}
        return value

    @model_validator(mode="after")
    def _fits_the_network(self) -> Self:
        if self.network == "deeplab_v1" and len(self.rates) != 1:
            raise ValueError(
                f"`rates` of deeplab_v1 must be one dilation; got {list(self.rates)}. "
                "Write `rates: [12]`, or a preset such as `vgg16_v1`"
            )
        backbones = WEIGHTS_OF.get(self.weights or "", (self.backbone,))
        if self.network != "smp" and self.backbone not in backbones:
            raise ValueError(
                f"`weights: {self.weights}` are of another network than `backbone: {self.backbone}` (preset "
                f"`{self.preset}`). Give a file of {self.backbone} as `weights`, or null for random weights"
            )
        if self.network != "smp" and self.smp is not None:
            raise ValueError(
                "`smp` is given, but `network` is another; write `network: smp`, or leave it out"
            )
        return self

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """All settings but those of `_LEFT_OUT` that are not given."""
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if key not in _LEFT_OUT or value is not None}
