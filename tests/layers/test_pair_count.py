"""Counts of all processes; means and sums of two real ones are in test_synced_batch_norm.py."""

from __future__ import annotations

import pytest
import torch
from tests.layers.faked_group import of_each, reductions

from wsss.layers.pair_count import sum_over_pairs, total_counts

OWN = (torch.tensor([[3, 0], [2**40, 7]]), torch.tensor([[0, 0], [1, 2]]), torch.tensor([[5, 1], [0, 0]]))


def test_counts_are_those_of_all_processes_to_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [own.clone() for own in OWN]
    for total in of_each(monkeypatch, [lambda own=own: total_counts(own) for own in OWN]):
        assert total.dtype == torch.int64
        assert total.tolist() == [[8, 1], [2**40 + 1, 9]]  # float32 would lose the 1
    assert all(torch.equal(own, value) for own, value in zip(OWN, before, strict=True))


def test_one_process_counts_alone() -> None:
    assert torch.equal(total_counts(OWN[0]), OWN[0])


def test_several_counts_take_one_reduction(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reductions(monkeypatch, lambda: total_counts(OWN[0])) == 1


def test_sums_that_are_scalars_already_keep_their_value(monkeypatch: pytest.MonkeyPatch) -> None:
    value = torch.tensor(0.1)
    assert torch.equal(sum_over_pairs(value), value)
    found = of_each(monkeypatch, [lambda: sum_over_pairs(value), lambda: sum_over_pairs(value)])
    assert [float(own) for own in found] == pytest.approx([0.2, 0.2])
