from functools import partial

import pytest
import torch
from tests.layers.faked_group import of_each, reductions

from wsss.affinity.labels import mean_over, pair_labels
from wsss.affinity.pairs import offsets
from wsss.errors import ShapeError
from wsss.types import IGNORE


@pytest.fixture
def labels():
    values = torch.tensor([0, 1, 2, IGNORE])
    return values[torch.randint(0, 4, (2, 7, 11), generator=torch.Generator().manual_seed(0))]


def slow_pair_labels(labels, radius):
    """Kinds by Python loops, as the papers define them."""
    kinds = {}
    batch, height, width = labels.shape
    for image in range(batch):
        for number, (dy, dx) in enumerate(offsets(radius)):
            for y in range(height - (radius - 1)):
                for x in range(radius - 1, width - (radius - 1)):
                    one, other = int(labels[image, y, x]), int(labels[image, y + dy, x + dx])
                    kind = "none"
                    if one < 255 and other < 255:
                        kind = "different" if one != other else "foreground" if one else "background"
                    kinds[image, number, y, x - (radius - 1)] = kind
    return kinds


@pytest.mark.parametrize("radius", [2, 3, 5])
def test_pair_labels_are_those_of_a_loop_over_all_pairs(labels, radius):
    found = pair_labels(labels, radius)
    expected = slow_pair_labels(labels, radius)
    assert found.different.numel() == len(expected)
    for place, kind in expected.items():
        for name in ("background", "foreground", "different"):
            assert bool(getattr(found, name)[place]) == (name == kind), (place, name)


def test_8_bit_labels_give_the_same_pairs(labels):
    found, expected = pair_labels(labels.to(torch.uint8), 3), pair_labels(labels, 3)
    assert torch.equal(found.different, expected.different)
    assert torch.equal(found.background, expected.background)


def test_ignored_cells_are_in_no_pair(labels):
    ignored = pair_labels(torch.full_like(labels, IGNORE), 3)
    assert not any(bool(kind.any()) for kind in (ignored.background, ignored.foreground, ignored.different))


def test_exchanging_foreground_classes_changes_no_pair(labels):
    exchanged = torch.where(labels == 1, 2, torch.where(labels == 2, 1, labels))
    for kind in ("background", "foreground", "different"):
        assert torch.equal(getattr(pair_labels(labels, 4), kind), getattr(pair_labels(exchanged, 4), kind))


def test_labels_must_be_integers_of_a_batch(labels):
    for wrong in (labels[0], labels.float(), labels > 0):
        with pytest.raises(ShapeError, match=r"must be \(B, h, w\) integers; got"):
            pair_labels(wrong, 3)


def test_mean_over_divides_by_the_count_and_a_small_number():
    values, chosen = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([True, False, True])
    assert float(mean_over(values, chosen)) == pytest.approx(5 / (2 + 1e-5))
    assert float(mean_over(values, chosen & False)) == 0


def test_values_that_are_not_chosen_give_no_gradient_whatever_they_are():
    values = torch.tensor([1.0, float("inf")], requires_grad=True)
    mean = mean_over(values, torch.tensor([True, False]))
    mean.backward()
    assert float(mean.detach()) == pytest.approx(1 / (1 + 1e-5))
    assert values.grad.tolist() == pytest.approx([1 / (1 + 1e-5), 0])


# ---- several processes


@pytest.fixture
def sparse(labels):
    """Four images: the second has background only, the last is ignored."""
    others = torch.stack([torch.zeros_like(labels[0]), torch.full_like(labels[0], IGNORE)])
    return torch.stack([labels[0], others[0], labels[1], others[1]])


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("kind", ["background", "foreground", "different"])
def test_the_average_over_processes_is_the_mean_over_all_their_pairs(sparse, cut, kind, monkeypatch):
    values = torch.rand(4, len(offsets(3)), 5, 7, generator=torch.Generator().manual_seed(1))
    wanted = [values[place] for place, found in slow_pair_labels(sparse, 3).items() if found == kind]
    expected = float(sum(wanted)) / (len(wanted) + 1e-5)

    def work(share, *, ahead):
        known = pair_labels(sparse[share], 3)
        total = getattr(known.totals(), kind) if ahead else None
        return mean_over(values[share], getattr(known, kind), total)

    for ahead in (True, False):
        shares = [partial(work, share, ahead=ahead) for share in (slice(0, cut), slice(cut, 4))]
        found = of_each(monkeypatch, shares)
        assert sum(float(own) for own in found) / 2 == pytest.approx(expected, rel=1e-5)


def test_totals_of_all_kinds_take_one_reduction_and_are_those_of_everyone(sparse, monkeypatch):
    kinds = list(slow_pair_labels(sparse, 3).values())
    expected = [kinds.count(kind) for kind in ("background", "foreground", "different")]
    shares = [pair_labels(sparse[share], 3) for share in (slice(0, 3), slice(3, 4))]
    for totals in of_each(monkeypatch, [share.totals for share in shares]):
        assert [int(total) for total in totals] == expected
    assert [int(total) for total in pair_labels(sparse, 3).totals()] == expected
    assert reductions(monkeypatch, shares[1].totals) == 1


def test_one_process_has_the_mean_over_its_pairs_to_the_last_bit(labels):
    values = torch.rand(2, len(offsets(3)), 5, 7, generator=torch.Generator().manual_seed(1))
    known = pair_labels(labels, 3)
    for chosen, total in zip((known.background, known.different), known.totals()[::2], strict=True):
        ours, plain = (values.clone().requires_grad_() for _ in range(2))
        expected = torch.where(chosen, plain, torch.zeros_like(plain)).sum() / (chosen.sum() + 1e-5)
        found = mean_over(ours, chosen, total)
        assert torch.equal(found, expected)
        assert torch.equal(mean_over(ours, chosen), expected)
        assert torch.equal(*(torch.autograd.grad(*pair)[0] for pair in ((found, ours), (expected, plain))))
