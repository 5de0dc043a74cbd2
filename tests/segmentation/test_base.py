"""What all segmentation networks do with a batch: a loss for each output, over all processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.layers.faked_group import of_each, reductions
from torch import Tensor

from wsss.segmentation.base import SegmentationNet
from wsss.segmentation.losses import balanced_cross_entropy, cross_entropy, labels_at
from wsss.types import IGNORE, Batch

LOSSES = {"cross_entropy": cross_entropy, "balanced": balanced_cross_entropy}


class Grids(SegmentationNet):
    """Gives the images' channels as logits, on grids of two sizes."""

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        return {"fine": images[..., ::2, ::2], "coarse": images[..., ::3, ::3]}

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        return []


def batch_of(images: Tensor, target: Tensor) -> Batch:
    labels = torch.zeros(len(images), 2, dtype=torch.bool)
    names = tuple(map(str, range(len(images))))
    return Batch(images, labels, names, torch.ones_like(target, dtype=torch.bool), {"target": target})


@pytest.fixture
def example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (4, 12, 12), generator=generator).to(torch.uint8)
    target[0], target[2, :, 2:] = IGNORE, IGNORE
    return torch.randn(4, 3, 12, 12, generator=generator), target


@pytest.mark.parametrize("loss", ["cross_entropy", "balanced"])
@pytest.mark.parametrize("loss_at", ["grid", "image"])
def test_every_output_has_the_loss_of_its_own_grid_to_the_last_bit(loss: Any, loss_at: Any, example) -> None:
    images, target = example
    net = Grids(3, loss=loss, loss_at=loss_at)
    found = net.losses(batch_of(images, target))
    assert list(found) == ["fine", "coarse"]
    for name, logits in net.outputs(images).items():
        if loss_at == "image":
            logits = F.interpolate(logits, size=(12, 12), mode="bilinear", align_corners=False)
        assert torch.equal(found[name], LOSSES[loss](logits, labels_at(target, tuple(logits.shape[2:]))))


@pytest.mark.parametrize("loss", ["cross_entropy", "balanced"])
@pytest.mark.parametrize("loss_at", ["grid", "image"])
@pytest.mark.parametrize("cut", [1, 2])
def test_processes_that_share_a_batch_have_its_losses_on_average(
    loss: Any, loss_at: Any, cut: int, example, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, target = example
    net = Grids(3, loss=loss, loss_at=loss_at)
    whole = net.losses(batch_of(images, target))
    shares = [batch_of(images[share], target[share]) for share in (slice(0, cut), slice(cut, 4))]
    found = of_each(monkeypatch, [lambda share=share: net.losses(share) for share in shares])
    for name, expected in whole.items():
        assert sum(float(own[name]) for own in found) / 2 == pytest.approx(float(expected), rel=1e-5)


def test_all_grids_are_counted_in_one_reduction(example, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reductions(monkeypatch, lambda: Grids(3).losses(batch_of(*example))) == 1
