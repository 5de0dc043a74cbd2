"""The contrasts against the published golden values and loops in float64."""

from __future__ import annotations

import math

import pytest
import torch

from wsss.errors import ShapeError
from wsss.layers.region_contrast import (
    adaptive_masks,
    background_contrast,
    foreground_contrast,
    foreground_vectors,
)

TEXTS = torch.tensor([[0.10, 0.20, 0.30]])
ALL = torch.ones(1, 3, dtype=torch.bool)


def test_golden_values() -> None:
    frc = foreground_contrast(torch.tensor([0.28]), TEXTS, ALL, 0.7)
    assert frc.item() == pytest.approx(1.306776, abs=1e-6)
    brc = background_contrast(TEXTS, ALL, torch.tensor([0.25]), 0.7)
    assert brc.item() == pytest.approx(0.725988, abs=1e-6)
    paper = background_contrast(TEXTS, ALL, torch.tensor([0.25]), 0.7, "exponential_of_mean")
    assert paper.item() == pytest.approx(0.729499, abs=1e-6)
    assert adaptive_masks(torch.tensor([[[[0.9, 0.05], [0.09, 0.5]]]]), 0.1).tolist() == [
        [[[True, False], [True, True]]]
    ]


def test_padding_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    for count in (1, 2, 5):
        similar, other = torch.rand(4, count, generator=generator), torch.rand(4, generator=generator)
        valid = torch.ones(4, count, dtype=torch.bool)
        padded = torch.cat([similar, torch.full((4, 3), 9.0)], dim=1)
        longer = torch.cat([valid, torch.zeros(4, 3, dtype=torch.bool)], dim=1)
        assert torch.allclose(
            foreground_contrast(other, similar, valid, 0.7), foreground_contrast(other, padded, longer, 0.7)
        )
        for form in ("mean_of_exponentials", "exponential_of_mean"):
            assert torch.allclose(
                background_contrast(similar, valid, other, 0.7, form),
                background_contrast(padded, longer, other, 0.7, form),
            )


def test_the_order_of_texts_does_not_matter_and_copies_do_not_change_brc() -> None:
    similar, other = torch.tensor([[0.4, -0.2, 0.1]]), torch.tensor([0.3])
    turned = similar.flip(1)
    assert torch.allclose(
        foreground_contrast(other, similar, ALL, 0.7), foreground_contrast(other, turned, ALL, 0.7)
    )
    doubled, both = similar.repeat(1, 2), ALL.repeat(1, 2)
    assert torch.allclose(
        background_contrast(similar, ALL, other, 0.7), background_contrast(doubled, both, other, 0.7)
    )
    assert (
        foreground_contrast(other, doubled, both, 0.7).item()
        > foreground_contrast(other, similar, ALL, 0.7).item()
    )


def test_equal_cosines_give_the_logarithm_of_the_number_of_texts() -> None:
    same = torch.full((1, 3), 0.2)
    assert foreground_contrast(torch.tensor([0.2]), same, ALL, 0.7).item() == pytest.approx(math.log(4))
    assert background_contrast(same, ALL, torch.tensor([0.2]), 0.7).item() == pytest.approx(math.log(2))


def test_tiny_temperatures_stay_finite() -> None:
    similar, other = torch.tensor([[0.9, -0.9, 0.5]]), torch.tensor([-1.0])
    for loss in (
        foreground_contrast(other, similar, ALL, 1e-3),
        background_contrast(similar, ALL, other, 1e-3),
        background_contrast(-similar, ALL, -other, 1e-3, "exponential_of_mean"),
    ):
        assert torch.isfinite(loss).all()


def test_masks_have_no_gradient_and_keep_the_maximum() -> None:
    maps = torch.rand(5, 1, 6, 7, requires_grad=True)
    masks = adaptive_masks(maps, 1.0)
    assert not masks.requires_grad
    assert masks.sum(dim=(1, 2, 3)).tolist() == [1] * 5
    assert adaptive_masks(maps, 0.0).all()
    assert torch.equal(adaptive_masks(maps, 0.3), adaptive_masks(0.01 * maps, 0.3))


@pytest.mark.parametrize("mixing", ["half", "mean"])
def test_mixing_against_a_loop(mixing) -> None:
    generator = torch.Generator().manual_seed(2)
    labels, answers = torch.randn(3, 4, generator=generator), torch.randn(3, 5, 4, generator=generator)
    answered = torch.tensor([[True] * 5, [True, False, True, False, False], [False] * 5])
    mixed = foreground_vectors(labels, answers, answered, mixing)
    for row in range(3):
        own = [answers[row, place] for place in range(5) if answered[row, place]]
        if not own:
            expected = labels[row]
        elif mixing == "half":
            expected = 0.5 * labels[row] + 0.5 * sum(own) / len(own)
        else:
            expected = (labels[row] + sum(own)) / (1 + len(own))
        assert torch.allclose(mixed[row], expected, atol=1e-6)
    lengths = foreground_vectors(labels, answers, answered, mixing, unit_length=True).norm(dim=1)
    assert torch.allclose(lengths, torch.ones(3))
    none = foreground_vectors(labels, answers[:, :0], answered[:, :0], mixing)
    assert torch.equal(none, labels)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ShapeError, match="One row for each pair"):
        foreground_contrast(torch.zeros(2), TEXTS, ALL, 0.7)
    with pytest.raises(ShapeError, match="One value for each similarity"):
        background_contrast(TEXTS, ALL[:, :2], torch.zeros(1), 0.7)
