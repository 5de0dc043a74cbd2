"""Contrastive losses against slow loops, region masks, captions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from wsss.models.captions import caption
from wsss.models.contrastive import multi_positive_loss, symmetric_loss
from wsss.models.region_masks import random_region_masks, smooth_noise


def slow_multi_positive(images, texts, scale, matches) -> float:
    logits = [[scale * float(F.cosine_similarity(x, y, dim=0)) for y in texts] for x in images]
    count, total = (len(images), len(texts)), []
    for one_way in (
        [[(logits[i][t], bool(matches[i, t])) for t in range(count[1])] for i in range(count[0])],
        [[(logits[i][t], bool(matches[i, t])) for i in range(count[0])] for t in range(count[1])],
    ):
        rows = []
        for row in one_way:
            negatives = sum(math.exp(z) for z, is_match in row if not is_match)
            own = [-math.log(math.exp(z) / (math.exp(z) + negatives)) for z, is_match in row if is_match]
            if own:
                rows.append(sum(own) / len(own))
        total.append(sum(rows) / len(rows))
    return sum(total) / 2


def test_the_multi_positive_loss_equals_its_definition() -> None:
    torch.manual_seed(0)
    images, texts, matches = torch.randn(5, 8), torch.randn(7, 8), torch.rand(5, 7) < 0.4
    matches[2] = False  # an image without any match
    matches[:, 3] = False
    matches[4] = True  # an image that every text matches: nothing is a negative for it
    loss = multi_positive_loss(images, texts, torch.tensor(3.0), matches)
    assert float(loss) == pytest.approx(slow_multi_positive(images, texts, 3.0, matches), rel=1e-5)


def test_with_one_match_each_it_is_clips_loss() -> None:
    torch.manual_seed(0)
    images, texts, scale = torch.randn(6, 4), torch.randn(6, 4), torch.tensor(5.0)
    own = torch.eye(6, dtype=torch.bool)
    both = symmetric_loss(images, texts, scale)
    torch.testing.assert_close(multi_positive_loss(images, texts, scale, own), both / 2)
    logits = 5 * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T
    expected = F.cross_entropy(logits, torch.arange(6)) + F.cross_entropy(logits.T, torch.arange(6))
    torch.testing.assert_close(both, expected)


@pytest.mark.parametrize("value", [True, False])
def test_gradients_stay_finite_when_everything_or_nothing_matches(value: bool) -> None:
    images = torch.randn(3, 4, requires_grad=True)
    loss = multi_positive_loss(images, torch.randn(2, 4), torch.tensor(10.0), torch.full((3, 2), value))
    loss.backward()
    assert float(loss.detach()) == 0
    assert images.grad is not None
    assert images.grad.isfinite().all()


def test_order_of_images_and_texts_does_not_matter() -> None:
    torch.manual_seed(1)
    images, texts, matches = torch.randn(5, 8), torch.randn(7, 8), torch.rand(5, 7) < 0.4
    loss = multi_positive_loss(images, texts, torch.tensor(3.0), matches)
    i, t = torch.randperm(5), torch.randperm(7)
    torch.testing.assert_close(
        multi_positive_loss(images[i], texts[t], torch.tensor(3.0), matches[i][:, t]), loss
    )


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, "a photo of a"),
        (2, "a photo of a and b"),
        (3, "a photo of a, b, and c"),
        (4, "a photo of a, b, c, and d"),
        (5, "a photo of a, b, c, d, and e"),
        (6, "a photo of a, b, c, d, e and f"),
    ],
)
def test_captions_have_the_wording_of_camera_ready_clims(count: int, expected: str) -> None:
    assert caption("abcdef"[:count], "a photo of {}") == expected


def test_region_masks_are_of_four_kinds_in_the_wanted_shares() -> None:
    generator = torch.Generator().manual_seed(0)
    full = random_region_masks(20, 32, shares=(1, 0, 0, 0), generator=generator)
    assert full.shape == (20, 1, 32, 32)
    assert (full == 1).all()
    soft = random_region_masks(50, 32, shares=(0, 1, 0, 0), generator=generator)
    assert 0 < soft.min() < 0.2
    assert 0.8 < soft.max() < 1
    blob = random_region_masks(200, 32, shares=(0, 0, 1, 0), generator=generator)
    assert set(blob.unique().tolist()) == {0.0, 1.0}
    area = blob.mean(dim=(1, 2, 3))
    assert 0.14 < area.min() < 0.2
    assert 0.8 < area.max() < 0.86
    assert float(area.mean()) == pytest.approx(0.5, abs=0.05)
    box = random_region_masks(200, 32, shares=(0, 0, 0, 1), generator=generator)
    assert float(box.mean()) == pytest.approx(0.48, abs=0.06)
    outer = box * box.flip(2) * box.flip(3)
    assert outer.mean() < box.mean()
    mixed = random_region_masks(2000, 8, shares=(0.3, 0.3, 0.3, 0.1), generator=generator)
    assert float((mixed == 1).all(dim=3).all(dim=2).float().mean()) == pytest.approx(0.3, abs=0.03)


def test_region_masks_follow_from_the_generator() -> None:
    first, second = (random_region_masks(8, 16, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.equal(second)
    fields = smooth_noise(4, 24, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(fields.mean(dim=(2, 3)), torch.zeros(4, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(fields.std(dim=(2, 3)), torch.ones(4, 1))
