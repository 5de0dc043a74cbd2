r"""A method of your own in one file: a CAM that also learns from its highest cells. Run this file to try it.

$$ L = \ell(\mathrm{mean}_u\, s(u), y) + \lambda\, \ell(\mathrm{top}_u\, s(u), y) $$

with scores s of K classes at cells u, tags y, the multi-label soft margin l, and top the mean of the highest
tenth of the cells. A method gives two things: losses of a batch, and maps of images. More is in
docs/add-a-method.md. In a recipe, `method: {name: examples/03_your_own_method.py}` names it.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from wsss import Batch, Frozen, Method, MethodConfig, Paper, RunResult, load_recipe, run
from wsss.models import build_backbone


class SharpCamConfig(MethodConfig):
    """Hyper-parameters of SharpCam."""

    top_weight: float = Field(0.5, ge=0, description="Weight of the loss of the highest cells; 0: plain CAM.")
    top_share: float = Field(0.1, gt=0, le=1, description="Share of the cells that count as highest.")


class SharpCam(Method):
    """A classifier of whole images and of their highest cells."""

    paper = Paper(title="An example", venue="none", year=2024, url="https://arxiv.org/abs/1512.04150")
    Config = SharpCamConfig
    config: SharpCamConfig

    def __init__(self, config: SharpCamConfig, class_names: tuple[str, ...], frozen: Frozen) -> None:
        super().__init__(config, class_names, frozen)
        self.backbone = build_backbone("resnet_small", output_stride=8)
        self.classifier = nn.Conv2d(self.backbone.out_channels, self.num_foreground, 1, bias=False)

    def class_scores(self, images: Tensor) -> Tensor:
        """Scores of all classes at all cells; (B, K, h, w)."""
        return self.classifier(self.backbone(images))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named and weighted; the training loop sums and logs them."""
        scores = self.class_scores(batch.images).flatten(2)  # (B, K, h·w)
        highest = scores.topk(max(1, int(self.config.top_share * scores.shape[2])), dim=2).values
        labels = batch.image_labels.float()  # (B, K)
        return {
            "classification": F.multilabel_soft_margin_loss(scores.mean(dim=2), labels),
            "top": self.config.top_weight * F.multilabel_soft_margin_loss(highest.mean(dim=2), labels),
        }

    def cams(self, images: Tensor) -> Tensor:
        """At least 0, not normalised; (B, K, h, w)."""
        return self.class_scores(images).relu()


def main(out: Path = Path("own-method"), *, changes: tuple[str, ...] = ()) -> RunResult:
    """Run this file's method where the demonstration runs CAM."""
    method = f"method={{name: '{Path(__file__).resolve().as_posix()}', top_weight: 0.5}}"
    data = ("data.world=100", "data.train=300", "data.val=60")
    recipe = load_recipe("scenes/demo-cam", (*data, method, *changes))
    result = run(recipe, runs=out / "runs", until="activate")
    print(result)
    return result


if __name__ == "__main__":
    main()
