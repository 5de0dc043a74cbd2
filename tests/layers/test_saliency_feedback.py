"""The overlap rule on maps small enough to work out by hand, and against loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from wsss.errors import ShapeError
from wsss.layers.saliency_feedback import (
    FeedbackRule,
    estimated_saliency,
    overlaps,
    saliency_loss,
    saliency_of_cells,
)

CLASS = torch.tensor([[[[0.9, 0.8], [0.6, 0.1]]]])  # three of four cells are over 0.5
BACKGROUND = 1 - CLASS
PRESENT = torch.tensor([[True]])


def slow_loss(maps: Tensor, labels: Tensor, saliency: Tensor, rule: FeedbackRule) -> float:
    images, channels, height, width = maps.shape
    cells = list(itertools.product(range(height), range(width)))
    total = 0.0
    for n in range(images):
        own, other = [], []
        for k in range(channels - 1):
            if not labels[n, k]:
                continue
            on = [(y, x) for y, x in cells if maps[n, k, y, x] > 0.5]
            shared = sum(bool(saliency[n, y, x] > 0.5) for y, x in on)
            area = len(on) + (1e-4 * len(cells) if rule.denominator == "eps" else 0)
            (own if area and shared / area > rule.delta else other).append(k)
        if rule.with_background:
            other.append(channels - 1)
        for y, x in cells:
            foreground = sum(float(maps[n, k, y, x]) for k in own)
            background = sum(float(maps[n, k, y, x]) for k in other)
            estimate = (1 - rule.mu) * foreground + rule.mu * (1 - background)
            total += (float(saliency[n, y, x]) - estimate) ** 2
    return total / (images * len(cells))


def test_overlaps_of_a_hand_made_map() -> None:
    salient = torch.tensor([[[1.0, 0.0], [0.7, 1.0]]])
    assert float(overlaps(CLASS, salient, "paper")) == pytest.approx(2 / 3)
    assert float(overlaps(CLASS, salient)) == pytest.approx(2 / (3 + 4e-4))
    assert overlaps(torch.full((1, 1, 56, 56), 0.2), torch.ones(1, 56, 56)).tolist() == [[0]]
    assert overlaps(torch.full((1, 1, 2, 2), 0.2), torch.ones(1, 2, 2), "paper").tolist() == [[0]]
    whole = overlaps(torch.full((1, 1, 56, 56), 0.9), torch.ones(1, 56, 56))
    assert float(whole) == pytest.approx(3136 / 3136.3136)


def test_one_half_is_not_on() -> None:
    halves = torch.full((1, 1, 2, 2), 0.5)
    assert overlaps(halves, torch.ones(1, 2, 2), "paper").tolist() == [[0]]
    assert overlaps(CLASS, torch.full((1, 2, 2), 0.5), "paper").tolist() == [[0]]


def test_a_class_above_delta_is_foreground_at_delta_and_below_it_background() -> None:
    maps = torch.cat([CLASS, BACKGROUND], dim=1)
    salient = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])  # overlap 2/3
    third = 2 / 3
    for delta, is_foreground in ((0.5, True), (float(torch.tensor(third)), False), (0.7, False)):
        rule = FeedbackRule(delta=delta, mu=0.25, denominator="paper")
        got = estimated_saliency(maps, PRESENT, salient, rule)
        own, other = (
            (CLASS[:, 0], BACKGROUND[:, 0]) if is_foreground else (0 * CLASS[:, 0], torch.ones(1, 2, 2))
        )
        assert torch.allclose(got, 0.75 * own + 0.25 * (1 - other)), delta


def test_the_guard_of_eps_pushes_an_overlap_just_below_its_limit() -> None:
    maps, salient = torch.cat([CLASS, BACKGROUND], dim=1), torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    edge = 2 / 3 - 1e-5
    foreground = FeedbackRule(delta=edge, mu=0.0, denominator="paper")
    assert torch.equal(estimated_saliency(maps, PRESENT, salient, foreground), CLASS[:, 0])
    guarded = FeedbackRule(delta=edge, mu=0.0)
    assert not estimated_saliency(maps, PRESENT, salient, guarded).any()


def test_golden_loss() -> None:
    """One class that is on at three cells, two of them salient; mu 1/2, so F_s = (F_1 + 1 - F_2) / 2."""
    maps = torch.cat([CLASS, torch.tensor([[[[0.1, 0.0], [0.2, 0.9]]]])], dim=1)
    salient = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    # estimates 0.9, 0.9, 0.7, 0.1; differences 0.1, 0.9, 0.3, 0.1
    assert float(saliency_loss(maps, PRESENT, salient, FeedbackRule())) == pytest.approx(0.92 / 4)
    # without the background's map: (F_1 + 1) / 2 = 0.95, 0.9, 0.8, 0.55
    as_printed = FeedbackRule(with_background=False, denominator="paper")
    expected = (0.05**2 + 0.9**2 + 0.2**2 + 0.55**2) / 4
    assert float(saliency_loss(maps, PRESENT, salient, as_printed)) == pytest.approx(expected)
    # an absent class counts nowhere: (1 - F_2) / 2 = 0.45, 0.5, 0.4, 0.05
    expected = (0.55**2 + 0.5**2 + 0.6**2 + 0.05**2) / 4
    assert float(saliency_loss(maps, ~PRESENT, salient, FeedbackRule())) == pytest.approx(expected)


@pytest.mark.parametrize("denominator", ["eps", "paper"])
@pytest.mark.parametrize("with_background", [True, False])
@pytest.mark.parametrize("mu", [0.1, 0.5])
def test_the_loss_agrees_with_the_slow_reference(denominator, with_background, mu) -> None:
    generator = torch.Generator().manual_seed(3)
    maps = (3 * torch.randn(4, 5, 6, 7, generator=generator)).softmax(dim=1)
    labels = torch.rand(4, 4, generator=generator) > 0.4
    saliency = torch.rand(4, 6, 7, generator=generator)
    rule = FeedbackRule(delta=0.5, mu=mu, denominator=denominator, with_background=with_background)
    counted = overlaps(maps[:, :-1], saliency, denominator)[labels] > 0.5
    assert counted.any()
    assert not counted.all()
    got = float(saliency_loss(maps, labels, saliency, rule))
    assert got == pytest.approx(slow_loss(maps, labels, saliency, rule), rel=1e-5)


def test_gradients_flow_through_the_sums_alone() -> None:
    maps = torch.cat([CLASS, BACKGROUND], dim=1).requires_grad_()
    salient = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    rule = FeedbackRule(mu=0.25, denominator="paper")
    (gradient,) = torch.autograd.grad(saliency_loss(maps, PRESENT, salient, rule), maps)
    error = 2 * (estimated_saliency(maps, PRESENT, salient, rule) - salient).detach() / 4
    assert torch.allclose(gradient[:, 0], 0.75 * error)
    assert torch.allclose(gradient[:, 1], -0.25 * error)


def test_saliency_is_read_at_every_eighth_pixel_from_the_first() -> None:
    saliency = torch.arange(448.0)[:, None] * 1000 + torch.arange(448.0)
    cells = saliency_of_cells(saliency[None], (56, 56))
    assert torch.equal(cells[0], saliency[::8, ::8])
    uneven = saliency_of_cells(torch.arange(10.0)[None, None].expand(1, 10, 10), (4, 4))
    assert uneven[0, 0].tolist() == [0, 2, 5, 7]  # floor(i · 10 / 4)


def test_padding_of_zero_counts_as_not_salient() -> None:
    maps = torch.full((1, 2, 2, 2), 0.5)
    maps[:, 0] = 0.9
    padded = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    rule = FeedbackRule(mu=0.0)
    assert float(saliency_loss(maps, PRESENT, padded, rule)) == pytest.approx((2 * 0.1**2 + 2 * 0.9**2) / 4)


def test_inputs_that_do_not_belong_together_are_an_error() -> None:
    maps = torch.zeros(1, 3, 2, 2)
    with pytest.raises(ShapeError, match=r"`image_labels` must have shape \(1, 2\)"):
        saliency_loss(maps, PRESENT, torch.zeros(1, 2, 2), FeedbackRule())
    with pytest.raises(ShapeError, match="`saliency_of_cells`"):
        saliency_loss(maps, torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 4, 4), FeedbackRule())
