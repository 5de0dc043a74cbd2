r"""CAM: a classifier of whole images, whose weights applied to every cell are its activation maps.

$$ \hat y_k = w_k^\top \, \mathrm{mean}_u \, z(u), \qquad A_k(u) = \mathrm{relu}(w_k^\top z(u)) $$

with features z (D, h, w) at cells u and one weight vector w_k per foreground class. The loss is the
multi-label soft margin, mean over classes and images. It needs nothing but tags. Its maps have the two
diseases that later methods cure: they find only the most telling part of an object, and backgrounds that
occur with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from wsss.layers.cam_backbone import cam_backbone, freeze_batch_norm_affine
from wsss.layers.statistics import STATISTICS, Statistics
from wsss.layers.text_matching import full_precision
from wsss.methods.base import Frozen, Method, MethodConfig
from wsss.types import Batch, Paper


class CamConfig(MethodConfig):
    """Hyper-parameters of CAM; defaults as in the code of IRN (CVPR 2019)."""

    backbone: str = Field("resnet50", description="Feature extractor (IRN: ResNet-50).")
    backbone_weights: str | None = Field(
        "resnet50", description="Weights to start from (IRN: ImageNet, version 1); null: random."
    )
    output_stride: int | None = Field(
        None, description="Image size / map size; null: the backbone's own (16)."
    )
    batch_norm: Literal["live", "frozen"] = Field(
        "frozen", description="Frozen: running statistics, never moved (IRN). From random weights: live."
    )
    freeze_until: int | None = Field(
        2, ge=0, description="Last backbone stage without gradient, 0 is the stem (IRN: 2); null: none."
    )
    train_batch_norm: bool = Field(
        True, description="Train scale and shift of batch norms (IRN: yes; camera-ready CLIMS: no)."
    )
    normalisation: Statistics = Field("imagenet", description="Statistics of the images (IRN: ImageNet's).")


class Cam(Method):
    """Conventional class activation maps.

    Args:
        config: hyper-parameters.
        class_names: K + 1 names, the first "background".
        frozen: nothing is needed.

    Source:
        Zhou et al., CVPR 2016, equation 2, https://arxiv.org/abs/1512.04150, with the settings of IRN
        (Ahn et al., CVPR 2019, https://arxiv.org/abs/1904.05044, its step `cam`).
        Differs: the mirrored image is added by the extraction, not here.
    """

    paper = Paper(
        title="Learning Deep Features for Discriminative Localization",
        venue="CVPR",
        year=2016,
        url="https://arxiv.org/abs/1512.04150",
        code="https://github.com/jiwoon-ahn/irn",
    )
    Config = CamConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "irn": {},
        "clims_camera_ready": {
            "batch_norm": "live",
            "freeze_until": None,
            "train_batch_norm": False,
            "normalisation": "clip",
        },
    }
    config: CamConfig

    def __init__(self, config: CamConfig, class_names: Sequence[str], frozen: Frozen) -> None:
        super().__init__(config, class_names, frozen)
        self.mean, self.std = STATISTICS[config.normalisation]
        self.backbone = cam_backbone(config)
        self.classifier = nn.Conv2d(self.backbone.out_channels, self.num_foreground, 1, bias=False)
        if not config.train_batch_norm:
            freeze_batch_norm_affine(self)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Multi-label soft margin of globally averaged features; images without label are all negative."""
        features = self.backbone(batch.images)  # (B, D, h, w)
        logits = self.classifier(features.mean(dim=(2, 3), keepdim=True))[:, :, 0, 0]  # (B, K)
        with full_precision(logits.device):
            labels = batch.image_labels.float()
            return {"classification": F.multilabel_soft_margin_loss(logits.float(), labels)}

    def cams(self, images: Tensor) -> Tensor:
        """relu(w z), (B, K, h, w)."""
        return F.relu(self.classifier(self.backbone(images)))
