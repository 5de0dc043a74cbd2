from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wsss.activation.seeds import check_collapse, pseudo_mask, write_pseudo_masks
from wsss.activation.store import MapStore
from wsss.data.masks_png import read_mask
from wsss.errors import CollapseError, ShapeError
from wsss.metrics.curves import score_of_power
from wsss.types import IGNORE, ActivationMaps

SIZE = (5, 6)


def maps_of(scores: list[list[float]], ids: list[int]) -> ActivationMaps:
    return ActivationMaps(torch.tensor(ids), torch.tensor(scores).reshape(len(ids), 1, -1))


def stored(folder: Path, values: list[float | None]) -> MapStore:
    """One image per value: a class whose score is that everywhere, or no class for None."""
    store = MapStore(folder)
    for number, value in enumerate(values):
        count = 0 if value is None else 1
        maps = ActivationMaps(torch.full((count,), 3), torch.full((count, *SIZE), value or 0.0))
        store.write(f"{number:03}", maps, image_size=SIZE)
    return store


def test_the_mask_is_the_best_class_over_the_background_score() -> None:
    maps = maps_of([[0.9, 0.2, 0.3], [0.1, 0.8, 0.3]], [2, 7])
    assert pseudo_mask(maps, 0.3).tolist() == [[2, 7, 0]]


def test_pixels_near_a_decision_become_unsure() -> None:
    maps = maps_of([[0.90, 0.34, 0.27, 0.80, 0.0], [0.10, 0.10, 0.1, 0.78, 0.0]], [2, 7])
    assert pseudo_mask(maps, 0.3, unsure_margin=0.05).tolist() == [[2, IGNORE, IGNORE, IGNORE, 0]]
    assert pseudo_mask(maps, 0.3).tolist() == [[2, 2, 0, 2, 0]]


def test_maps_with_a_background_of_their_own_need_no_score() -> None:
    maps = maps_of([[0.9, 0.2]], [4]).with_background(0.5)
    assert pseudo_mask(maps, None).tolist() == [[4, 0]]


def test_masks_are_written_once(tmp_path: Path) -> None:
    store, calls = stored(tmp_path / "maps", [0.9, None, 0.1]), []
    ids = ("000", "001", "002")

    def write() -> None:
        write_pseudo_masks(
            store, ids, tmp_path / "masks", background_score=0.5, progress=lambda *call: calls.append(call)
        )

    write()
    assert [int(read_mask(tmp_path / "masks" / f"{i}.png").max()) for i in ids] == [3, 0, 0]
    assert calls == [(1, 3, "images"), (2, 3, "images"), (3, 3, "images")]
    first = {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir()}
    (tmp_path / "masks" / "001.png").unlink()
    store.path("000").unlink()  # finished masks need no maps
    write()
    assert {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir()} == first


@pytest.mark.parametrize(
    ("values", "name"), [([0.0] * 20, "background"), ([1.0] * 20 + [None], "foreground")]
)
def test_maps_that_say_the_same_everywhere_raise_the_alarm(
    tmp_path: Path, values: list[float | None], name: str
) -> None:
    store = stored(tmp_path, values)
    with pytest.raises(CollapseError, match=f"20 of 20 images with classes are all {name}"):
        check_collapse(store, store.ids(), 0.3)


def test_maps_that_differ_raise_no_alarm(tmp_path: Path) -> None:
    store = stored(tmp_path, [0.0] * 18 + [1.0] * 2)
    check_collapse(store, store.ids(), 0.3)
    check_collapse(MapStore(tmp_path / "none"), (), 0.3)
    empty = stored(tmp_path / "empty", [None, None])
    check_collapse(empty, empty.ids(), 0.3)


def test_classes_that_vanish_from_the_maps_are_returned(tmp_path: Path) -> None:
    store = MapStore(tmp_path)
    scores = {5: 1.0, 7: 0.0, 9: 0.0}  # a class that is found, one that never is, one with two images only
    for number in range(4):
        ids = [5, 7] if number < 2 else [5, 7, 9]
        values = torch.tensor([scores[k] for k in ids])[:, None, None].expand(len(ids), *SIZE).clone()
        values[:, :, number] = 0.0
        store.write(f"{number}", ActivationMaps(torch.tensor(ids), values), image_size=SIZE)
    assert check_collapse(store, store.ids(), 0.3) == (7,)
    assert check_collapse(store, store.ids()[:2], 0.3) == ()


def test_pseudo_masks_never_differ_from_to_mask(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = ActivationMaps(torch.tensor([1, 4]), torch.from_numpy(rng.random((2, *SIZE)).astype(np.float32)))
    assert torch.equal(pseudo_mask(maps, 0.6), maps.to_mask(0.6))


def test_the_power_form_is_a_background_of_its_own(tmp_path: Path) -> None:
    values = torch.linspace(0, 1, 401)
    maps = ActivationMaps(torch.tensor([2]), values.reshape(1, 1, -1))
    for power in (0.5, 1.0, 4.0, 16.0):
        expected = [2 if v > (1 - v) ** power else 0 for v in values.double().tolist()]
        mask = pseudo_mask(maps, None, background_power=power)[0]
        assert mask.tolist() == expected
        constant = (values > score_of_power(power)).to(torch.uint8) * 2
        assert (mask != constant).sum() <= 1  # the pixel whose score is the power's own
    with pytest.raises(ShapeError, match="beside another background"):
        pseudo_mask(maps, 0.3, background_power=1.0)
    store = stored(tmp_path / "maps", [0.4, 0.6, None])
    write_pseudo_masks(store, store.ids(), tmp_path / "masks", background_score=None, background_power=1.0)
    found = [int(read_mask(tmp_path / "masks" / f"{name}.png").max()) for name in store.ids()]
    assert found == [0, 3, 0]
