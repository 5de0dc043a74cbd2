"""A group of processes that train together, played by one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from wsss.layers import pair_count

Result = TypeVar("Result")


def of_each(monkeypatch: pytest.MonkeyPatch, works: Sequence[Callable[[], Result]]) -> list[Result]:
    """Results of the processes that do these works, whose reductions are sums over all of them.

    Fails where they do not all come to the same reductions, so that real ones would wait for ever.
    Each work is done twice: to hear what it brings to every reduction, and then with the sums. What it brings
    must not depend on earlier sums.
    """
    brought: list[list[Tensor]] = []

    def listen(value: Tensor) -> None:
        assert not value.requires_grad
        brought[-1].append(value.clone())

    with monkeypatch.context() as patch:
        patch.setattr(pair_count, "group_size", lambda: len(works))
        patch.setattr(torch.distributed, "all_reduce", listen)
        for work in works:
            brought.append([])
            work()
        shapes = [[(value.shape, value.dtype) for value in own] for own in brought]
        assert shapes == [shapes[0]] * len(works), "processes would wait for each other for ever"
        results = []
        for work in works:
            sums = iter([torch.stack(values).sum(dim=0) for values in zip(*brought, strict=True)])
            patch.setattr(torch.distributed, "all_reduce", lambda value, sums=sums: value.copy_(next(sums)))
            results.append(work())
            assert next(sums, None) is None
    return results


def reductions(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """How many reductions a process takes part in."""
    heard: list[Tensor] = []
    with monkeypatch.context() as patch:
        patch.setattr(pair_count, "group_size", lambda: 2)
        patch.setattr(torch.distributed, "all_reduce", heard.append)
        work()
    return len(heard)
