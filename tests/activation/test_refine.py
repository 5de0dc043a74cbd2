"""Refining many images: failures lose nothing, missing images only, several at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from tests.refiners.test_contract import Discs

from wsss.activation.refine import refine_images
from wsss.activation.store import MapStore
from wsss.data.image_work import work_on_images
from wsss.errors import DataError, StageError
from wsss.refiners.base import Refiner, RefinerConfig
from wsss.types import ActivationMaps, Sample


class Double(Refiner):
    """Doubles the scores; remembers which images it saw."""

    Config = RefinerConfig

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        super().__init__(RefinerConfig(), Discs.class_names)
        self.broken, self.seen = broken, []

    def refine(self, sample: Sample, maps: ActivationMaps) -> ActivationMaps:
        assert sample.mask is None
        self.seen.append(sample.image_id)
        if sample.image_id in self.broken:
            raise DataError(f"{sample.image_id} is damaged.")
        return ActivationMaps(maps.class_ids, (2 * maps.scores).clamp(0, 1)).with_background(0.5)


@pytest.fixture
def given(tmp_path: Path) -> MapStore:
    discs, store = Discs(6), MapStore(tmp_path / "maps")
    for image_id in discs.names:
        store.write(image_id, discs.maps(image_id), image_size=discs.size)
    return store


def test_one_failure_loses_nothing_and_a_second_call_retries_only_it(given: MapStore, tmp_path: Path) -> None:
    discs, store = Discs(6), MapStore(tmp_path / "refined")
    broken = Double(("disc2", "disc4"))
    with pytest.raises(StageError, match=r"2 of 6 images have no refined maps; the first is disc2: disc2 is"):
        refine_images(broken, discs, discs.names, given, store)
    assert store.ids() == ("disc0", "disc1", "disc3", "disc5")
    mended = Double()
    told = []
    refine_images(mended, discs, discs.names, given, store, progress=lambda *news: told.append(news))
    assert sorted(mended.seen) == ["disc2", "disc4"]
    assert store.ids() == discs.names
    assert told[0] == (4, 6, "images")
    assert told[-1] == (6, 6, "images")
    expected = (2 * given.read("disc3").scores).clamp(0, 1)
    torch.testing.assert_close(store.read("disc3").scores, expected, atol=5e-4, rtol=0)


def test_a_missing_map_is_that_images_failure(given: MapStore, tmp_path: Path) -> None:
    discs, store = Discs(6), MapStore(tmp_path / "refined")
    given.path("disc1").write_bytes(b"no maps")
    with pytest.raises(
        StageError, match=r"1 of 6 images has no refined maps; the first is disc1: .*no whole"
    ):
        refine_images(Double(), discs, discs.names, given, store)
    assert len(store.ids()) == 5


def test_a_map_of_another_image_is_found_by_its_size(given: MapStore, tmp_path: Path) -> None:
    discs, store = Discs(6), MapStore(tmp_path / "refined")
    given.write("disc3", discs.maps("disc3"), image_size=(20, 100))
    with pytest.raises(StageError, match=r"1 of 6 images .* disc3: .* 20 x 100 \(height x width\), but it"):
        refine_images(Double(), discs, discs.names, given, store)
    assert "disc3" not in store


class Grouped(Double):
    """Works on two images at once, and on a grid of eight pixels."""

    together = 2
    reads_full_size = False

    def __init__(self) -> None:
        super().__init__()
        self.batches, self.sizes = [], set()

    @property
    def stride(self) -> int:
        return 8

    def refine_batch(self, samples, maps):
        self.batches.append([sample.image_id for sample in samples])
        self.sizes |= {own.size for own in maps}
        whole = [own if own.size == (40, 56) else own.resized(40, 56) for own in maps]
        return [own.with_background(0.1).reduced(8) for own in whole]


def test_batches_are_the_same_whatever_is_done_already(given: MapStore, tmp_path: Path) -> None:
    discs, whole, parts = Discs(6), MapStore(tmp_path / "whole"), MapStore(tmp_path / "parts")
    first = Grouped()
    refine_images(first, discs, discs.names, given, whole)
    assert sorted(first.batches) == [["disc0", "disc1"], ["disc2", "disc3"], ["disc4", "disc5"]]
    parts.write("disc2", ActivationMaps(torch.tensor([3]), torch.zeros(1, 5, 7)), image_size=(40, 56))
    again = Grouped()
    refine_images(again, discs, discs.names, given, parts)
    assert sorted(again.batches) == sorted(first.batches)
    assert float(parts.read("disc2", full_size=False).scores.max()) == 0  # what was there is left alone
    assert parts.path("disc3").read_bytes() == whole.path("disc3").read_bytes()


def test_processes_share_images_out_whatever_the_others_have_written(
    given: MapStore, tmp_path: Path, monkeypatch
) -> None:
    discs, store, whole = Discs(6), MapStore(tmp_path / "refined"), MapStore(tmp_path / "whole")
    refine_images(Grouped(), discs, discs.names, given, whole)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("wsss.data.image_work.gathered", lambda value: [value])
    seen = []
    for rank in (0, 1):  # the second looks when the first has already written
        monkeypatch.setenv("RANK", str(rank))
        refiner = Grouped()
        refine_images(refiner, discs, discs.names, given, store)
        seen += refiner.batches
    assert store.ids() == discs.names
    assert sorted(seen) == [["disc0", "disc1"], ["disc2", "disc3"], ["disc4", "disc5"]]  # each once
    for name in discs.names:
        assert store.path(name).read_bytes() == whole.path(name).read_bytes()


def test_maps_on_another_grid_are_read_enlarged(given: MapStore, tmp_path: Path) -> None:
    """A grid covers more than the image where the sides are no multiples, so it must not be squeezed."""
    discs, coarse, store = Discs(2), MapStore(tmp_path / "coarse"), MapStore(tmp_path / "refined")
    for image_id in discs.names:
        maps = ActivationMaps(torch.tensor([1]), torch.rand(1, 3, 4))
        coarse.write(image_id, maps, image_size=discs.size, stride=16)
    refiner = Grouped()
    refine_images(refiner, discs, discs.names, coarse, store)
    assert refiner.sizes == {(40, 56)}
    refiner = Grouped()
    refine_images(refiner, discs, discs.names, given, MapStore(tmp_path / "other"))
    assert refiner.sizes == {(10, 14)}  # maps as they were extracted are read as they are


def test_maps_on_a_grid_are_enlarged_and_cropped_when_read(tmp_path: Path) -> None:
    store = MapStore(tmp_path)
    grid = ActivationMaps(torch.tensor([2]), torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(0)))
    store.write("x", grid, image_size=(13, 18), stride=4)
    enlarged = torch.nn.functional.interpolate(
        grid.scores[None], scale_factor=4, mode="bilinear", align_corners=False
    )
    found = store.read("x")
    torch.testing.assert_close(found.scores, enlarged[0, :, :13, :18], atol=5e-4, rtol=0)
    assert store.read("x", full_size=False).size == (4, 5)
    assert float((found.scores - grid.resized(13, 18).scores).abs().max()) > 0.01  # not the same as a resize


def test_an_interruption_stops_the_work() -> None:
    done = []

    def work(image_id: str) -> None:
        done.append(image_id)
        time.sleep(0.02)

    def interrupted(*news: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_on_images([[str(number)] for number in range(50)], work, threads=1, progress=interrupted)
    assert len(done) < 10


def test_a_failing_batch_is_tried_image_by_image() -> None:
    alone = []

    def together(group):
        raise MemoryError("too many")

    def work(image_id: str) -> None:
        alone.append(image_id)
        if image_id == "b":
            raise ValueError("no")

    failures = work_on_images([["a", "b", "c"]], work, together=together, threads=2)
    assert alone == ["a", "b", "c"]
    assert list(failures) == ["b"]


def test_the_number_of_torchs_threads_is_left_as_it_was() -> None:
    before = torch.get_num_threads()
    inside = []
    work_on_images([["a"], ["b"]], lambda image_id: inside.append(torch.get_num_threads()), threads=2)
    assert torch.get_num_threads() == before
    assert set(inside) == {max(1, before // 2)}
