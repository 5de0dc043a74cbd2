"""Parameters of the dense CRF, with every set that the field's reference code uses, by name."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field


class CrfParameters(BaseModel):
    """Two Gaussian kernels with Potts compatibility; standard deviations in pixels and grey levels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    smoothness_weight: float = Field(3.0, ge=0, description="Weight of the spatial kernel (IRN: 3).")
    smoothness_xy_std: float = Field(3.0, gt=0, description="Its standard deviation in pixels (IRN: 3).")
    appearance_weight: float = Field(10.0, ge=0, description="Weight of the bilateral kernel (IRN: 10).")
    appearance_xy_std: float = Field(
        50.0, gt=0, description="Its spatial standard deviation in pixels (IRN: 50)."
    )
    appearance_rgb_std: float = Field(
        5.0, gt=0, description="Its standard deviation in colour, levels of 0-255 (IRN: 5)."
    )
    iterations: int = Field(
        10, ge=0, description="Mean-field updates (all published: 10, or 1 after a walk)."
    )
    channel_order: Literal["rgb", "bgr"] = Field(
        "rgb",
        description="Order in which colours enter the lattice, which treats its axes differently: 0.2-1.3% "
        "of labels change (deeplab-pytorch, CLIP-ES: bgr).",
    )
    wrapped_means: bool = Field(
        False,
        description="Subtract the mean colour and let negative values wrap around 256, as deeplab-pytorch, "
        "CLIMS and CLIP-ES do by a slip: 0.3-0.6% of labels change.",
    )


_DEEPLAB: Final = {
    "smoothness_weight": 3.0,
    "smoothness_xy_std": 1.0,
    "appearance_weight": 4.0,
    "appearance_xy_std": 67.0,
    "appearance_rgb_std": 3.0,
}
_BGR: Final = {"channel_order": "bgr"}  # of deeplab-pytorch, CLIMS after DeepLab, and CLIP-ES
_LEGACY: Final = {**_BGR, "wrapped_means": True}

PRESETS: Final[dict[str, CrfParameters]] = {
    name: CrfParameters.model_validate(values)
    for name, values in {
        # labels of CAMs in IRN, CLIMS, QA-CLIMS and VWE, from hard labels
        "irn": {},
        "clims": {},
        # CAM marginals in PSA and EPS, from scores
        "psa": {"appearance_xy_std": 80.0, "appearance_rgb_std": 13.0},
        # after DeepLab V2 with ResNet-101 (deeplab-pytorch, CLIMS), from softmax; legacy: the image as it is
        # fed there, with means subtracted and wrapped
        "deeplab_v2": {**_DEEPLAB, **_BGR},
        "deeplab_v2_legacy": {**_DEEPLAB, **_LEGACY},
        # masks of CLIP-ES, from scores
        "clip_es": {**_DEEPLAB, **_BGR},
        "clip_es_legacy": {**_DEEPLAB, **_LEGACY},
        # CAMs of VWL, from softmax, in RGB
        "vwl": {**_DEEPLAB, "appearance_xy_std": 64.0},
        # after DeepLab V1 and V2 with VGG-16, from softmax: from third-party notes, unverified
        "deeplab_v1_vgg16": {"appearance_weight": 4.0, "appearance_xy_std": 121.0},
        "deeplab_v2_vgg16": {
            "smoothness_weight": 2.0,
            "smoothness_xy_std": 2.0,
            "appearance_weight": 4.0,
            "appearance_xy_std": 65.0,
            "appearance_rgb_std": 3.0,
        },
    }.items()
}
"""Published parameter sets by name."""
