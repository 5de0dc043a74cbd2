import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tests.layers.faked_group import of_each

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


# ---- several processes

SHARES = (slice(0, 1), slice(1, 3), slice(3, 4))  # images of three processes


@pytest.fixture
def shared_example():
    """Ignored pixels are not shared out evenly: the last image has no other, the first no background."""
    generator = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(4, 4, 5, 6, generator=generator)
    target = torch.randint(0, 4, (4, 5, 6), generator=generator).to(torch.uint8)
    target[0] = torch.where(target[0] == 0, IGNORE, target[0])
    target[1, :, 1:] = IGNORE
    target[3] = IGNORE
    return logits, target


@pytest.mark.parametrize("loss", [cross_entropy, balanced_cross_entropy])
@pytest.mark.parametrize("shares", [SHARES, (slice(0, 2), slice(2, 4)), (slice(3, 4), slice(0, 3))])
def test_the_average_over_processes_is_the_loss_of_the_whole_batch(loss, shares, shared_example, monkeypatch):
    logits, target = shared_example
    if loss is cross_entropy:
        expected = reference(logits, target, lambda label: label != IGNORE)
    else:
        expected = 0.5 * reference(logits, target, lambda label: label == 0)
        expected += 0.5 * reference(logits, target, lambda label: 0 < label < IGNORE)
    whole = logits.clone().requires_grad_()
    loss(whole, target).backward()
    parts = [logits[share].clone().requires_grad_() for share in shares]

    def work(part, share):
        return lambda: loss(part, target[share])

    found = of_each(monkeypatch, [work(*each) for each in zip(parts, shares, strict=True)])
    assert all(own.requires_grad for own in found)  # the others wait for every process's backward pass
    assert sum(float(own.detach()) for own in found) / len(shares) == pytest.approx(expected, rel=1e-5)
    for part, own, share in zip(parts, found, shares, strict=True):
        (own / len(shares)).backward()  # as training averages
        torch.testing.assert_close(part.grad, whole.grad[share], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss", [cross_entropy, balanced_cross_entropy])
def test_kinds_that_no_process_has_count_0(loss, monkeypatch):
    logits = torch.randn(1, 4, 3, 3)
    target = torch.full((1, 3, 3), IGNORE, dtype=torch.uint8)
    assert [float(own) for own in of_each(monkeypatch, [lambda: loss(logits, target)] * 2)] == [0, 0]


def mean_of_own(losses, counted):
    """The mean as it was before processes counted together."""
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp(min=1)


@pytest.mark.parametrize("loss", [cross_entropy, balanced_cross_entropy])
@pytest.mark.parametrize("images", [slice(0, 4), slice(0, 1), slice(3, 4)])
def test_one_process_has_the_mean_over_its_pixels_to_the_last_bit(loss, images, shared_example):
    logits, target = (own[images] for own in shared_example)
    ours, plain = (logits.clone().requires_grad_() for _ in range(2))
    found = loss(ours, target)
    losses = F.cross_entropy(plain.float(), target.long(), ignore_index=IGNORE, reduction="none")
    if loss is cross_entropy:
        expected = mean_of_own(losses, target != IGNORE)
    else:
        foreground = ~(target == 0) & (target != IGNORE)
        expected = 0.5 * mean_of_own(losses, target == 0) + 0.5 * mean_of_own(losses, foreground)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(*pair)[0] for pair in ((found, ours), (expected, plain))))
