"""Settings of published segmentation networks, and of small ones for the generated scenes, by name.

A preset says what differs from the defaults of `SegmentationConfig`, which are DeepLab V2 on VOC 2012.
"""

from __future__ import annotations

from typing import Any, Final

_SGD: Final[dict[str, Any]] = {"momentum": 0.9, "weight_decay": 5e-4}
_VOC12: Final[dict[str, Any]] = {
    "steps": 20_000,
    "batch_size": 5,
    "accumulate": 2,
    "learning_rate": 2.5e-4,
    **_SGD,
    "schedule_hold": 10,
    "augmentation": {
        "crop_size": 321,
        "scale_choices": (0.5, 0.75, 1.0, 1.25, 1.5),
        "interpolation": "bilinear",
        "pad_position": "end",
    },
}
_VGG16: Final[dict[str, Any]] = {
    "backbone": "vgg16",
    "scales": (),
    "training": {
        "steps": 20_000,
        "batch_size": 10,
        "learning_rate": 1e-3,
        **_SGD,
        "augmentation": {
            "crop_size": 321,
            "scale_choices": (1.0,),
            "interpolation": "bilinear",
            "pad_position": "end",
        },
    },
}
_RESNET38: Final[dict[str, Any]] = {
    "network": "deeplab_v1",
    "backbone": "wide_resnet38",
    "rates": (12,),
    "scales": (),
    "test_scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
}
_RESNET38_TRAINING: Final[dict[str, Any]] = {
    "steps": 20_000,
    "batch_size": 10,
    "learning_rate": 1e-3,
    **_SGD,
    "augmentation": {"crop_size": 321, "scale": (0.5, 2.0), "jitter": {}},
}
_SCENES: Final[dict[str, Any]] = {
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
}
# dilations that are as large a part of the grid of a 96-pixel image as the published ones of 41 cells
_SMALL_VGG: Final[dict[str, Any]] = {"backbone": "vgg_small", "output_stride": 8}  # 12 cells

PRESETS: Final[dict[str, dict[str, Any]]] = {
    # deeplab-pytorch on VOC 2012
    "voc12": {"training": _VOC12},
    # CLIMS with ImageNet weights; the factors between 1.5 and 2 are a reading of "scales up to 2"
    "voc12_imagenet": {
        "loss": "balanced",
        "training": {
            **_VOC12,
            "steps": 30_000,
            "batch_size": 10,
            "augmentation": {
                **_VOC12["augmentation"],
                "scale_choices": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
            },
        },
    },
    # CLIMS and QA-CLIMS on COCO 2014. Others: batches of 10 twice and a rate of 2e-4 (LPCAM), crops of 481
    # and scales up to 2 (RIB)
    "coco14": {"training": {**_VOC12, "steps": 100_000, "batch_size": 10}},
    # DeepLab's LargeFOV with the poly schedule of the V2 paper; V1's own: batches of 30, 6,000 steps, a tenth
    # of the rate after each 2,000
    "vgg16_v1": {"network": "deeplab_v1", "rates": (12,), **_VGG16},
    "vgg16_v2": _VGG16,
    # no paper says what "DeepLab V1 with ResNet-101" is: here V1's head, V2's backbone and schedule
    "resnet101_v1": {
        "network": "deeplab_v1",
        "backbone": "resnet101_deeplab",
        "rates": (12,),
        "scales": (),
        "training": _VOC12,
    },
    # as the author of SEAM trained it on pseudo masks; its momentum and its batch norm are our reading
    "resnet38_v1": {**_RESNET38, "training": _RESNET38_TRAINING},
    "resnet38_v1_qa_clims": {
        **_RESNET38,
        "training": {
            **_RESNET38_TRAINING,
            "steps": 30_000,
            "batch_size": 6,
            "learning_rate": 8e-4,
            "augmentation": {**_RESNET38_TRAINING["augmentation"], "crop_size": 512},
        },
    },
    # about a thousand small images such as the scenes, from random weights: a few minutes on one core
    "scenes": _SCENES,
    "scenes_v1_resnet": {**_SCENES, "network": "deeplab_v1", "rates": (7,)},  # of 24 cells
    "scenes_v1_vgg": {**_SCENES, **_SMALL_VGG, "network": "deeplab_v1", "rates": (4,)},
    "scenes_v2_vgg": {**_SCENES, **_SMALL_VGG, "rates": (2, 4, 5, 7)},
}

OF_ONE_BACKBONE: Final = ("vgg16_v1", "vgg16_v2", "resnet101_v1", "resnet38_v1", "resnet38_v1_qa_clims")
"""Presets that are named after their backbone, and whose rates and crops are for it."""

WEIGHTS_OF: Final[dict[str, tuple[str, ...]]] = {
    "resnet50": ("resnet50",),
    "resnet101": ("resnet101", "resnet101_deeplab"),
}
"""First weights that have a name, and the backbones that can start from them."""
