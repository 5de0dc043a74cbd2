import math

import numpy as np
import pytest
import torch
from PIL import Image

from wsss.errors import ShapeError
from wsss.segmentation.losses import balanced_cross_entropy, cross_entropy, labels_at
from wsss.types import IGNORE


def pixel_loss(logits, b, y, x, label):
    """-log softmax of one pixel, with plain numbers."""
    scores = [float(value) for value in logits[b, :, y, x]]
    top = max(scores)
    return top + math.log(sum(math.exp(score - top) for score in scores)) - scores[label]


def reference(logits, target, keep):
    losses = [
        pixel_loss(logits, b, y, x, int(target[b, y, x]))
        for b, y, x in np.ndindex(*target.shape)
        if keep(int(target[b, y, x]))
    ]
    return sum(losses) / len(losses) if losses else 0.0


@pytest.fixture
def example():
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(2, 4, 5, 6, generator=generator)
    target = torch.randint(0, 4, (2, 5, 6), generator=generator).to(torch.uint8)
    target[0, :2] = IGNORE
    return logits, target


def test_cross_entropy_equals_a_loop_over_pixels_that_are_not_ignored(example):
    expected = reference(*example, lambda label: label != IGNORE)
    assert float(cross_entropy(*example)) == pytest.approx(expected, rel=1e-5)


def test_balanced_cross_entropy_is_half_background_and_half_foreground(example):
    expected = 0.5 * reference(*example, lambda label: label == 0)
    expected += 0.5 * reference(*example, lambda label: 0 < label < IGNORE)
    assert float(balanced_cross_entropy(*example)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [cross_entropy, balanced_cross_entropy])
@pytest.mark.parametrize("value", [0, 2, IGNORE])
def test_crops_of_one_label_or_of_ignored_pixels_alone_are_never_nan(loss, value):
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    result = loss(logits, torch.full((1, 3, 3), value, dtype=torch.uint8))
    result.backward()
    assert bool(torch.isfinite(result))
    assert bool(torch.isfinite(logits.grad).all())
    if value == IGNORE:
        assert float(result.detach()) == 0
        assert float(logits.grad.abs().sum()) == 0


def test_ignored_pixels_give_no_gradient(example):
    logits, target = example
    logits.requires_grad_()
    cross_entropy(logits, target).backward()
    ignored = (target == IGNORE)[:, None].expand_as(logits)
    assert float(logits.grad[ignored].abs().max()) == 0
    assert float(logits.grad[~ignored].abs().min()) > 0


@pytest.mark.parametrize("side", [41, 31, 21])
def test_masks_shrink_as_pillow_shrinks_them(side):
    mask = np.random.default_rng(0).integers(0, 256, (321, 321)).astype(np.uint8)
    shrunk = labels_at(torch.from_numpy(mask)[None], (side, side))[0]
    expected = np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST))
    assert np.array_equal(shrunk.numpy(), expected)


def test_a_mask_of_another_size_is_refused(example):
    with pytest.raises(ShapeError, match="labels_at"):
        cross_entropy(example[0], example[1][:, :3])
