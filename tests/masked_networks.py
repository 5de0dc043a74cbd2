"""Small networks that learn from masks, and batches of which two processes hold unequal parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from wsss.affinity.boundary import LABELS, IRNet
from wsss.affinity.feature_affinity import HIGH, LOW, AffinityNet
from wsss.models import build_backbone
from wsss.segmentation.deeplab import DeepLab
from wsss.segmentation.deeplab_v2 import AtrousPyramid
from wsss.training.config import TrainingConfig
from wsss.types import BACKGROUND, IGNORE, Batch

IMAGES, SIZE, CELLS, STEPS = (
    4,
    64,
    8,
    3,
)  # of all processes together; side of images and of their masks' cells
TRAINING = TrainingConfig(steps=STEPS, batch_size=IMAGES, learning_rate=2e-2, momentum=0.9, log_every=1)


def _deeplab() -> nn.Module:
    head = AtrousPyramid(128, 3, (1, 2))
    return DeepLab(build_backbone("resnet_small"), head, 3, scales=(0.5,), head_rate=0.2)


def _balanced() -> nn.Module:
    head = AtrousPyramid(128, 3, (1,))
    return DeepLab(build_backbone("resnet_small"), head, 3, loss="balanced", loss_at="image", head_rate=0.2)


def _psa() -> nn.Module:
    return AffinityNet(build_backbone("resnet_small", output_stride=4), grid_stride=4, radius=3)


def _irn() -> nn.Module:
    return IRNet(build_backbone("resnet_small"), radius=4, backbone_trains=True)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "deeplab": _deeplab, "deeplab-balanced": _balanced, "psa": _psa, "irn": _irn,
}  # fmt: skip


class MaskedBatches:
    """Images of noise with a random class in each cell; what is ignored differs between two processes' parts.

    Of the first images all is ignored in the first step, the background in the second, and nothing in the
    last; of the others most is ignored, and in the last step all.
    """

    steps_per_epoch = STEPS

    def __init__(self, rank: int, world: int) -> None:
        count = IMAGES // world
        self._own = slice(rank * count, (rank + 1) * count)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """This process's part of every batch."""
        for step in range(first_step, STEPS):
            generator = torch.Generator().manual_seed(STEPS * epoch + step)
            images = torch.randn(IMAGES, 3, SIZE, SIZE, generator=generator)[self._own]
            target = self._masks(step, generator)[self._own]
            # one plane for each class, no score at all where it is ignored
            scores = torch.stack([target == label for label in range(3)], dim=1).float()
            aligned = {"target": target, LABELS: target, LOW: scores, HIGH: scores}
            names = tuple(map(str, range(len(images))))
            tags = torch.ones(len(images), 2, dtype=torch.bool)
            yield Batch(images, tags, names, torch.ones_like(target, dtype=torch.bool), aligned)

    def _masks(self, step: int, generator: torch.Generator) -> Tensor:
        cells = torch.randint(0, 3, (IMAGES, CELLS, CELLS), generator=generator)
        first, others = cells.chunk(2)
        if step == 0:
            first.fill_(IGNORE)
        elif step == 1:
            first[first == BACKGROUND] = IGNORE
        others[:, : CELLS if step == STEPS - 1 else CELLS // 2] = IGNORE
        factor = SIZE // CELLS
        whole = cells.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
        return whole.to(torch.uint8)
