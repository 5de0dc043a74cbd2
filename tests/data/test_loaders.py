import random

import numpy as np
import pytest
import torch

from wsss.data.dataset import WithoutMasks
from wsss.data.loaders import TrainingBatches
from wsss.data.transforms import Augmentation
from wsss.errors import DataError, StageError
from wsss.types import Batch, Sample

SETTINGS = {"batch_size": 4, "seed": 3, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
AUGMENTATION = Augmentation(crop_size=16, long_side=(10, 24))
IDS = tuple(f"image {i}" for i in range(14))


class Noise:
    """Images of noise; counts how often each is read, and can't read the `broken` one."""

    def __init__(self, broken: str = "") -> None:
        self.reads: list[str] = []
        self.broken = broken

    def image_labels(self, image_id: str) -> np.ndarray:
        number = int(image_id.split()[1])
        return np.array([number % 2 == 0, number % 3 == 0])

    def sample(self, image_id: str, *, with_mask: bool = False) -> Sample:
        assert not with_mask
        self.reads.append(image_id)
        if image_id == self.broken:
            raise DataError(f"Image /data/{image_id}.jpg is damaged. Replace it.")
        number = int(image_id.split()[1])
        image = np.random.default_rng(number).integers(0, 256, (12 + number, 20, 3), dtype=np.uint8)
        return Sample(image_id, image, self.image_labels(image_id))


def first_channel(image_id: str) -> dict[str, np.ndarray]:
    image = Noise().sample(image_id).image
    return {"target": image[..., 0].copy(), "plane": image[..., 1] / np.float32(255)}


def batches(dataset=None, ids=IDS, augmentation=AUGMENTATION, **settings) -> TrainingBatches:
    return TrainingBatches(dataset or Noise(), ids, augmentation, **{**SETTINGS, **settings})


def same(first: Batch, second: Batch) -> bool:
    return (
        first.image_ids == second.image_ids
        and torch.equal(first.images, second.images)
        and torch.equal(first.image_labels, second.image_labels)
        and torch.equal(first.valid, second.valid)
        and first.aligned.keys() == second.aligned.keys()
        and all(torch.equal(first.aligned[key], second.aligned[key]) for key in first.aligned)
    )


def all_same(first, second) -> bool:
    first, second = list(first), list(second)
    return len(first) == len(second) and all(map(same, first, second))


def test_a_batch_holds_what_a_network_needs() -> None:
    batch = next(iter(batches(aligned=first_channel).epoch(0)))
    assert batch.images.shape == (4, 3, 16, 16)
    assert batch.images.dtype == torch.float32
    assert batch.valid.shape == (4, 16, 16)
    assert batch.image_labels.shape == (4, 2)
    assert batch.image_labels.dtype == torch.bool
    assert batch.aligned["target"].dtype == torch.uint8
    assert batch.aligned["plane"].shape == (4, 16, 16)
    for place, image_id in enumerate(batch.image_ids):
        assert batch.image_labels[place].tolist() == Noise().image_labels(image_id).tolist()
        assert (batch.aligned["target"][place][~batch.valid[place]] == 255).all()


def test_each_epoch_shows_every_image_once_in_its_own_order() -> None:
    loader = batches(drop_last=False)
    orders = [[i for batch in loader.epoch(epoch) for i in batch.image_ids] for epoch in range(3)]
    assert loader.steps_per_epoch == 4
    for order in orders:
        assert sorted(order) == sorted(IDS)
    assert orders[0] != orders[1] != orders[2] != list(IDS)


def test_the_last_smaller_batch_is_dropped_or_kept() -> None:
    sizes = [len(batch.image_ids) for batch in batches(drop_last=False).epoch(0)]
    assert sizes == [4, 4, 4, 2]
    dropped = batches(drop_last=True)
    assert [len(batch.image_ids) for batch in dropped.epoch(0)] == [4, 4, 4]
    assert dropped.steps_per_epoch == 3
    assert batches(ids=IDS[:12], drop_last=False).steps_per_epoch == 3
    assert batches(ids=IDS[:3]).steps_per_epoch == 0


def test_the_same_seed_gives_the_same_batches_and_another_does_not() -> None:
    assert all_same(batches().epoch(2), batches().epoch(2))
    assert not all_same(batches().epoch(2), batches(seed=4).epoch(2))
    assert not all_same(batches().epoch(2), batches().epoch(3))


def test_an_image_is_augmented_by_seed_epoch_and_id_alone() -> None:
    """Whatever else is in the data set, and wherever the image falls in the epoch."""

    def shown(loader: TrainingBatches, epoch: int) -> dict[str, torch.Tensor]:
        return {i: batch.images[n] for batch in loader.epoch(epoch) for n, i in enumerate(batch.image_ids)}

    whole, part = shown(batches(drop_last=False), 1), shown(batches(ids=IDS[5:2:-1], batch_size=3), 1)
    assert len(part) == 3
    assert all(torch.equal(whole[image_id], image) for image_id, image in part.items())
    later = shown(batches(drop_last=False), 2)
    assert sum(torch.equal(whole[i], later[i]) for i in IDS) <= 1


def test_an_epoch_can_be_entered_anywhere() -> None:
    whole = list(batches(drop_last=False).epoch(5))
    for first in range(5):
        assert all_same(batches(drop_last=False).epoch(5, first), whole[first:])


def test_ranks_share_each_batch_in_order() -> None:
    for world in (2, 4):
        whole = list(batches().epoch(1))
        parts = [list(batches(rank=rank, world=world).epoch(1)) for rank in range(world)]
        assert {len(part) for part in parts} == {len(whole)}
        for step, batch in enumerate(whole):
            assert sum((part[step].image_ids for part in parts), ()) == batch.image_ids
            assert torch.equal(torch.cat([part[step].images for part in parts]), batch.images)
            assert {len(part[step].image_ids) for part in parts} == {4 // world}


def test_no_rank_gets_an_empty_batch() -> None:
    for world in (1, 2, 4):
        loaders = [batches(drop_last=False, rank=rank, world=world) for rank in range(world)]
        assert len({loader.steps_per_epoch for loader in loaders}) == 1
        assert all(batch.image_ids for loader in loaders for batch in loader.epoch(0))
    assert batches(drop_last=False, world=4).steps_per_epoch == 3  # two images are left for four ranks


@pytest.mark.parametrize("wrong", [{"world": 3}, {"rank": 1}, {"batch_size": 0}, {"world": 2, "rank": -1}])
def test_batches_that_ranks_cannot_share_are_refused(wrong) -> None:
    with pytest.raises(DataError, match="multiple of the number of processes"):
        batches(**wrong)


def test_repeated_ids_are_refused() -> None:
    with pytest.raises(DataError, match="each image once"):
        batches(ids=("image 1", "image 1"))


def test_workers_change_nothing() -> None:
    alone, helped = (batches(drop_last=False, aligned=first_channel, workers=workers) for workers in (0, 2))
    for epoch in (0, 1):
        assert all_same(alone.epoch(epoch), helped.epoch(epoch))
    assert all_same(alone.epoch(2, 2), helped.epoch(2, 2))
    abandoned = helped.epoch(3)
    next(abandoned)
    assert all_same(alone.epoch(4), helped.epoch(4))  # prefetched batches of epoch 3 are gone
    assert all_same(alone.epoch(3), helped.epoch(3))
    late = helped.epoch(5)
    next(late)
    next(helped.epoch(6))
    with pytest.raises(StageError, match="finish one epoch"):
        next(late)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_stops_training_with_its_own_message(workers: int) -> None:
    loader = batches(Noise(broken="image 7"), drop_last=False, workers=workers)
    with pytest.raises(DataError) as caught:
        list(loader.epoch(0))
    assert str(caught.value) == "Image /data/image 7.jpg is damaged. Replace it."


@pytest.mark.parametrize("workers", [0, 1])
def test_global_random_states_are_left_alone(workers: int) -> None:
    loader = batches(workers=workers)

    def states() -> tuple:
        numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002
        return random.getstate(), numpy_state, torch.get_rng_state().tolist()

    before = states()
    list(loader.epoch(0))
    assert states() == before


def test_images_are_decoded_once_while_there_is_room() -> None:
    for options, reads in (
        ({}, 14),
        ({"cache": False}, 3 * 14),
        ({"cache_bytes": 0}, 3 * 14),
    ):
        dataset = Noise()
        loader = batches(dataset, drop_last=False, **options)
        for epoch in range(3):
            assert all_same(loader.epoch(epoch), batches(drop_last=False, cache=False).epoch(epoch))
        assert len(dataset.reads) == reads


def test_the_memory_for_decoded_images_is_bounded() -> None:
    dataset, limit = Noise(), 5_000
    loader = batches(dataset, drop_last=False, cache_bytes=limit)
    list(loader.epoch(0))
    kept = set(IDS)
    dataset.reads.clear()
    list(loader.epoch(1))
    kept -= set(dataset.reads)
    sizes = {i: Noise().sample(i).image.nbytes for i in IDS}
    assert 0 < sum(sizes[i] for i in kept) <= limit
    assert sum(sizes[i] for i in kept) + min(sizes[i] for i in set(IDS) - kept) > limit


def test_real_data_flow_through_without_masks(tiny_scenes) -> None:
    dataset = WithoutMasks(tiny_scenes)
    loader = batches(dataset, dataset.ids("train"), Augmentation(crop_size=64, long_side=(48, 96)))
    seen = {i for batch in loader.epoch(0) for i in batch.image_ids}
    assert seen == set(tiny_scenes.ids("train"))
