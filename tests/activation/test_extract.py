from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_parts import FakeMethod, MemoryDataset
from oracle_extract import reference_maps

from wsss.activation.extract import ExtractConfig, capped_size, extract, scaled_size
from wsss.activation.store import MapStore, sum_full_size, sum_strided
from wsss.errors import StageError

SIZES = [(37, 50), (64, 48), (37, 50), (33, 41), (37, 50)]
LABELS = [[1, 3], [2], [], [1, 2, 3], [3]]


@pytest.fixture
def dataset() -> MemoryDataset:
    return MemoryDataset(SIZES, LABELS)


def extracted(dataset: MemoryDataset, folder: Path, **settings: object) -> MapStore:
    store = MapStore(folder)
    extract(FakeMethod(), dataset, dataset.names, store, ExtractConfig(**settings))
    return store


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_images": 1},
        {"batch_pixels": 1},
        {"stride": 8, "flip": False},
        {"scales": (0.5,)},
        {"scales": (1.25, 0.3)},
    ],
)
def test_maps_equal_the_slow_reference(
    dataset: MemoryDataset, tmp_path: Path, settings: dict[str, object]
) -> None:
    store = extracted(dataset, tmp_path, **settings)
    options = {name: value for name, value in settings.items() if not name.startswith("batch")}
    for name in dataset.names:
        low, high = reference_maps(FakeMethod().eval(), dataset.images[name], dataset.labels[name], **options)
        full, strided = store.read(name), store.read(name, full_size=False)
        assert full.class_ids.tolist() == (dataset.labels[name].nonzero()[0] + 1).tolist()
        assert full.size == dataset.image_size(name)
        assert strided.scores.shape == low.shape
        # float16 rounds by up to 2^-12 = 2.4e-4 below 1; full-size maps are divided by a rounded peak too
        assert torch.allclose(strided.scores, low, atol=2.5e-4)
        assert torch.allclose(full.scores, high, atol=5e-4)


def test_sums_before_storing_are_within_1e_4_of_the_reference(
    dataset: MemoryDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {}
    monkeypatch.setattr(MapStore, "write", lambda self, name, maps, **more: kept.update({name: (maps, more)}))
    extracted(dataset, tmp_path)
    for name, (maps, more) in kept.items():
        low, high = reference_maps(FakeMethod().eval(), dataset.images[name], dataset.labels[name])
        full = sum_full_size(more["per_scale"], dataset.image_size(name))
        full = full / (full.amax((1, 2), keepdim=True) + 1e-5)
        assert (maps.scores - low).abs().max() < 1e-4 if len(low) else maps.scores.shape == low.shape
        assert (full - high).abs().max() < 1e-4 if len(high) else full.shape == high.shape


def test_sizes_of_a_375_x_500_image() -> None:
    cams = [torch.rand(2, 24, 32), torch.rand(2, 12, 16)]
    assert sum_strided(cams, (375, 500), 4).shape == (2, 94, 125)
    full = sum_full_size(cams, (375, 500))
    assert full.shape == (2, 375, 500)
    canvas = sum(
        torch.nn.functional.interpolate(c[None], (384, 512), mode="bilinear", align_corners=False)[0]
        for c in cams
    )
    assert torch.equal(full, canvas[:, :375, :500])


def test_scaled_sides_round_halves_to_even() -> None:
    assert scaled_size((375, 500), 0.5) == (188, 250)  # 187.5
    assert scaled_size((373, 1), 0.5) == (186, 1)  # 186.5; never 0


@pytest.mark.parametrize("size", [(60, 80), (80, 60), (61, 61), (1, 5000), (3, 4000), (5000, 1)])
@pytest.mark.parametrize("cap", [1, 7, 100, 1001, 4799])
def test_large_sizes_shrink_in_proportion_to_the_cap_and_no_further(size: tuple[int, int], cap: int) -> None:
    height, width = capped_size(size, cap)
    assert 1 <= height * width <= cap or size == (height, width)
    assert capped_size((height, width), cap) == (height, width)
    short, long = sorted((height, width))
    assert (short + 1) * (long + 1) > cap / 2  # a side is rounded down, at most to a half
    if short > 1:
        factor = min(1, (cap / (size[0] * size[1])) ** 0.5)
        assert abs(height - size[0] * factor) <= 1
        assert abs(width - size[1] * factor) <= 1


def test_sizes_up_to_the_cap_stay() -> None:
    assert capped_size((60, 80), 4800) == (60, 80)
    assert scaled_size((60, 80), 2.0, 4800) == (60, 80)
    assert scaled_size((1024, 1024), 2.0) == (2048, 2048)  # exactly the default cap
    height, width = scaled_size((4000, 5000), 2.0)
    assert 0.99 * 2**22 < height * width <= 2**22


def test_maps_of_images_below_the_cap_are_the_same_bytes(dataset: MemoryDataset, tmp_path: Path) -> None:
    free = extracted(dataset, tmp_path / "free", max_pixels=10**9)
    capped = extracted(dataset, tmp_path / "capped", max_pixels=4 * 37 * 50)  # scale 2 of three images
    for name in ("image_0", "image_2", "image_3", "image_4"):
        assert free.path(name).read_bytes() == capped.path(name).read_bytes()
    assert free.path("image_1").read_bytes() != capped.path("image_1").read_bytes()


def test_the_network_never_sees_more_pixels_than_the_cap(dataset: MemoryDataset, tmp_path: Path) -> None:
    method, store = FakeMethod(), MapStore(tmp_path)
    extract(method, dataset, dataset.names, store, ExtractConfig(max_pixels=900))
    areas = [height * width for _, _, height, width in method.calls]
    assert max(areas) <= 900
    assert (
        sum(area > 800 for area in areas) == 9
    )  # scales 1, 1.5 and 2 of three sizes are cut to about the cap
    assert min(areas) == 16 * 20  # (33, 41) at scale 0.5 is below it
    for name in dataset.names:
        maps = store.read(name)
        assert maps.size == dataset.image_size(name)
        assert (
            store.read(name, full_size=False).scores.shape[1:]
            == sum_strided([torch.zeros(1, 2, 2)], maps.size, 4).shape[1:]
        )


class Colours(FakeMethod):
    """The colours themselves: what is shrunk and enlarged again comes back where the image is smooth."""

    def cams(self, images: torch.Tensor) -> torch.Tensor:
        super().cams(images)
        return torch.relu(images + 4)


def test_shrunk_images_give_the_maps_of_whole_ones_where_nothing_is_lost(tmp_path: Path) -> None:
    dataset = MemoryDataset([(64, 96)] * 2, [[1, 2]] * 2)
    dataset.images["image_0"] = np.full((64, 96, 3), 90, np.uint8)
    ramp = np.linspace(0, 255, 96).astype(np.uint8)[None, :, None]
    dataset.images["image_1"] = np.broadcast_to(ramp, (64, 96, 3)).copy()
    stores = []
    for cap in (10**9, 1500):
        stores.append(MapStore(tmp_path / str(cap)))
        extract(Colours(), dataset, dataset.names, stores[-1], ExtractConfig(max_pixels=cap, flip=False))
    whole, shrunk = ([store.read(name).scores for name in dataset.names] for store in stores)
    assert torch.allclose(whole[0], torch.ones(2, 64, 96), atol=1e-3)
    assert torch.allclose(shrunk[0], whole[0], atol=1e-6)
    assert (shrunk[1] - whole[1]).abs().max() < 0.03  # of 0.3 to 1; only the ends of the ramp differ


def test_very_large_images_come_in_smaller_batches(
    dataset: MemoryDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extracted(dataset, tmp_path / "whole")
    monkeypatch.setattr("wsss.activation.extract.PIXELS_LOADED", 2 * 14_000)  # 37 x 50 at all scales: 13,900
    method, store = FakeMethod(), MapStore(tmp_path / "parted")
    extract(method, dataset, dataset.names, store, ExtractConfig())
    # image_2 shows no class, so its batch holds image_0 alone, and image_4 comes by itself
    assert [shape for shape in method.calls if shape[2:] == (37, 50)] == [(2, 3, 37, 50)] * 2
    for name in dataset.names:
        assert torch.allclose(store.read(name).scores, whole.read(name).scores, atol=1e-6)


def test_batches_share_a_size_and_respect_the_pixel_budget(dataset: MemoryDataset, tmp_path: Path) -> None:
    method = FakeMethod()
    config = ExtractConfig(scales=(1.0,), batch_pixels=3 * 2 * 37 * 50)
    extract(method, dataset, dataset.names, MapStore(tmp_path), config)
    assert sorted(method.calls) == [(2, 3, 33, 41), (2, 3, 64, 48), (4, 3, 37, 50)]


def test_an_image_without_classes_gets_maps_of_none(dataset: MemoryDataset, tmp_path: Path) -> None:
    maps = extracted(dataset, tmp_path).read("image_2")
    assert maps.scores.shape == (0, 37, 50)
    assert not maps.to_mask(0.2).any()


def test_a_mirrored_image_gives_mirrored_maps(tmp_path: Path) -> None:
    class Even(FakeMethod):
        def cams(self, images: torch.Tensor) -> torch.Tensor:
            ramp = torch.linspace(1, 2, images.shape[-1])
            return torch.relu(images * (ramp + ramp.flip(0)))

    dataset = MemoryDataset([(32, 48)] * 2, [[1, 2]] * 2)
    dataset.images["image_1"] = np.ascontiguousarray(dataset.images["image_0"][:, ::-1])
    store = MapStore(tmp_path)
    extract(Even(), dataset, dataset.names, store, ExtractConfig(scales=(1.0, 0.5)))
    first, second = store.read("image_0"), store.read("image_1")
    assert torch.allclose(first.scores.flip(2), second.scores, atol=1e-3)


def test_finished_images_are_kept_and_the_rest_gets_the_same_bytes(
    dataset: MemoryDataset, tmp_path: Path
) -> None:
    whole = extracted(dataset, tmp_path / "whole")
    resumed = extracted(dataset, tmp_path / "resumed")
    resumed.path("image_0").unlink()
    resumed.path("image_3").unlink()
    untouched = resumed.path("image_4").stat().st_mtime_ns
    dataset.samples_read.clear()
    extract(FakeMethod(), dataset, dataset.names, resumed, ExtractConfig())
    assert "image_1" not in dataset.samples_read
    assert resumed.path("image_4").stat().st_mtime_ns == untouched
    for name in dataset.names:
        assert resumed.path(name).read_bytes() == whole.path(name).read_bytes()


def test_failing_images_never_lose_the_others_and_are_tried_again(
    dataset: MemoryDataset, tmp_path: Path
) -> None:
    dataset.broken = {"image_4", "image_1"}
    store, calls = MapStore(tmp_path), []
    with pytest.raises(
        StageError, match=r"2 of 5 images have no maps; the first is image_1: image_1\.jpg is no"
    ):
        extract(
            FakeMethod(),
            dataset,
            dataset.names,
            store,
            ExtractConfig(),
            progress=lambda *call: calls.append(call),
        )
    assert store.ids() == ("image_0", "image_2", "image_3")
    assert calls[-1] == (5, 5, "images")
    dataset.broken = set()
    extract(FakeMethod(), dataset, dataset.names, store, ExtractConfig())
    assert store.ids() == dataset.names


def test_maps_that_are_not_finite_fail_alone(dataset: MemoryDataset, tmp_path: Path) -> None:
    class Broken(FakeMethod):
        def cams(self, images: torch.Tensor) -> torch.Tensor:
            cams = super().cams(images)
            return cams * float("nan") if images.shape[-1] == 41 else cams

    store = MapStore(tmp_path)
    with pytest.raises(StageError, match="1 of 5 images has no maps; the first is image_3"):
        extract(Broken(), dataset, dataset.names, store, ExtractConfig(scales=(1.0,)))
    assert len(store.ids()) == 4


def test_bfloat16_runs_under_autocast(dataset: MemoryDataset, tmp_path: Path) -> None:
    exact, rounded = (
        extracted(dataset, tmp_path / "a"),
        extracted(dataset, tmp_path / "b", precision="bfloat16"),
    )
    assert torch.allclose(exact.read("image_0").scores, rounded.read("image_0").scores, atol=0.02)
