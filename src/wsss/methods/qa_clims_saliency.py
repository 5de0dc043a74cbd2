r"""QA-CLIMS with saliency as feedback of pixels: language and saliency joined, a method of this project.

Saliency says where objects end and knows no class; texts know classes and not where they end. The maps of an
image's classes are joined into one map of all its objects, which is held against the saliency map:

$$ F(u) = 1 - \prod_{k \in C} (1 - p_k(u)), \qquad L_{sal} = \mathrm{mean}_u (S(u) - F(u))^2 $$

with C those of the image's classes whose maps lie on salient pixels (the overlap rule of EPS and SMVWE): the
share of the cells with p_k over 0.5 that are salient must be over `overlap`. Without such a rule, an object
that the detector misses would be unlearned. Everything else is QA-CLIMS.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from wsss.errors import ShapeError
from wsss.methods._qa_clims_config import QaClimsConfig
from wsss.methods.qa_clims import QaClims
from wsss.types import Batch, Paper


class QaClimsSaliencyConfig(QaClimsConfig):
    """Hyper-parameters of QA-CLIMS and of the feedback."""

    saliency_weight: float = Field(
        20.0,
        ge=0,
        description="Weight of the feedback (the best of 4, 20 and 60 on world 100); 0: plain QA-CLIMS.",
    )
    overlap: float = Field(0.4, ge=0, le=1, description="Least share of a class's cells that are salient.")


class QaClimsSaliency(QaClims):
    """QA-CLIMS, whose maps together are held against a saliency map.

    Args:
        config: hyper-parameters.
        class_names: K + 1 names, the first "background".
        frozen: as of `QaClims`.

    Source:
        QA-CLIMS, and Lee et al., EPS, CVPR 2021, equations 4-6, for the overlap rule.
        Differs: the union in place of a sum, as maps of QA-CLIMS are sigmoids that need not sum to one.
    """

    paper = Paper(
        title="QA-CLIMS with saliency as feedback of pixels",
        venue="",  # a method of this project, in no paper
        year=2026,
        url="https://arxiv.org/abs/2401.09883",  # of QA-CLIMS, which it builds on
    )
    Config = QaClimsSaliencyConfig
    config: QaClimsSaliencyConfig

    @classmethod
    def pixel_inputs(cls, config: Any) -> tuple[str, ...]:
        """Saliency, unless its weight is 0."""
        return ("saliency",) if config.saliency_weight else ()

    @classmethod
    def supervision_of(cls, config: Any) -> str:
        """Image labels, language and saliency."""
        return "I+L+S" if config.saliency_weight else "I+L"

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Those of QA-CLIMS, and the feedback."""
        maps = self.maps(batch.images)  # (B, K, h, w)
        losses = self.map_losses(batch, maps)
        if self.config.saliency_weight:
            losses["saliency"] = self.config.saliency_weight * self._feedback(batch, maps)
        return losses

    def _feedback(self, batch: Batch, maps: Tensor) -> Tensor:
        if "saliency" not in batch.aligned:
            raise ShapeError(
                f'`batch.aligned["saliency"]` must hold saliency maps; got {sorted(batch.aligned)}. '
                "Give the recipe a section `method.saliency`."
            )
        shown = batch.aligned["saliency"].float()[:, None]  # (B, 1, H, W)
        salient = F.interpolate(shown, size=maps.shape[-2:], mode="nearest")  # (B, 1, h, w)
        with torch.no_grad():
            on = maps > 0.5
            share = (on & (salient > 0.5)).sum(dim=(2, 3)) / on.sum(dim=(2, 3)).clamp(min=1)
            taken = batch.image_labels & (share > self.config.overlap)  # (B, K)
        joined = 1 - (1 - maps * taken[:, :, None, None]).prod(dim=1, keepdim=True)
        return (salient - joined).square().mean()
