"""The alarm for flat maps: what the network is shown, and what is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_parts import FakeMethod, MemoryDataset

from wsss.engine import collapse
from wsss.engine.collapse import flat_maps


class Constant(FakeMethod):
    """The same activation everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def cams(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full_like(super().cams(images), self.value)


@pytest.fixture
def dataset() -> MemoryDataset:
    return MemoryDataset([(37, 50), (64, 48)], [[1, 3], [2]])


@pytest.mark.parametrize("cap", [2**18, 600])
@pytest.mark.parametrize(("value", "said"), [(1.0, "2 checked images are foreground"), (0.0, "background")])
def test_flat_maps_are_told_at_any_size(
    dataset: MemoryDataset, monkeypatch: pytest.MonkeyPatch, cap: int, value: float, said: str
) -> None:
    monkeypatch.setattr(collapse, "CHECKED_PIXELS", cap)
    assert said in (flat_maps(Constant(value), dataset, dataset.names) or "")


@pytest.mark.parametrize("cap", [2**18, 600])
def test_an_object_on_background_is_no_collapse(
    dataset: MemoryDataset, monkeypatch: pytest.MonkeyPatch, cap: int
) -> None:
    monkeypatch.setattr(collapse, "CHECKED_PIXELS", cap)
    for name in dataset.names:
        dataset.images[name] = np.zeros_like(dataset.images[name])
        dataset.images[name][:20, :20] = 255
    assert flat_maps(FakeMethod(), dataset, dataset.names) is None


def test_small_images_are_shown_as_they_are_and_larger_ones_shrunk(
    dataset: MemoryDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = FakeMethod()
    flat_maps(method, dataset, dataset.names)
    assert method.calls == [(1, 3, 37, 50), (1, 3, 64, 48)]
    method.calls.clear()
    monkeypatch.setattr(collapse, "CHECKED_PIXELS", 37 * 50)
    flat_maps(method, dataset, dataset.names)
    assert method.calls == [(1, 3, 37, 50), (1, 3, 49, 37)]
