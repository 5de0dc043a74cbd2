"""Training batches that depend on the seed, the epoch and their place alone.

Neither worker processes, nor ranks, nor an interruption change what a training sees: the order follows from
(seed, epoch), the augmentation of an image from (seed, epoch, image id).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from wsss.data.dataset import Dataset
from wsss.data.transforms import Augmentation, augment
from wsss.errors import DataError, StageError, WsssError
from wsss.training.seeding import derived_seed
from wsss.types import Batch

Aligned = Callable[[str], Mapping[str, np.ndarray]]

CACHE_BYTES: Final = 1 << 30  # 1 GiB of decoded images: about 38,000 of 96 x 96 pixels, or 1,900 of VOC's


class TrainingBatches:
    """Shuffled, augmented batches of a data set; `wsss.training.loop.train` draws from it.

    A batch over all ranks has `batch_size` images; each rank gets its own part, in rank order.

    Args:
        dataset: where images and labels come from; pass `WithoutMasks(dataset)` for weak supervision.
        ids: images of one epoch, each once.
        augmentation: random geometry and colour.
        batch_size: images per batch over all ranks.
        seed: decides order and augmentation.
        mean: of normalised images, RGB in [0, 1].
        std: of normalised images, RGB in [0, 1].
        aligned: per-pixel inputs of an image, as `augment` takes them; none by default.
        drop_last: leave out the last batch of an epoch where it is smaller.
        workers: processes that decode and augment; 0: this process. They are kept between epochs.
        cache: keep decoded images in memory, up to `cache_bytes` (all workers together).
        cache_bytes: largest size of that memory in bytes.
        rank: number of this process, from 0.
        world: number of processes.

    Raises:
        DataError: `ids` repeats an image, or `batch_size` can't be shared equally among the ranks.
    """

    def __init__(
        self,
        dataset: Dataset,
        ids: Sequence[str],
        augmentation: Augmentation,
        *,
        batch_size: int,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        aligned: Aligned | None = None,
        drop_last: bool = True,
        workers: int = 0,
        cache: bool = True,
        cache_bytes: int = CACHE_BYTES,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        _check(ids, batch_size, rank, world)
        self._ids = tuple(ids)
        self._batch_size, self._seed, self._workers = batch_size, seed, workers
        self._rank, self._world = rank, world
        whole, rest = divmod(len(self._ids), batch_size)
        # a last batch with fewer images than ranks would leave a rank without any
        self.steps_per_epoch = whole + (0 if drop_last or rest < world else 1)
        limit = cache_bytes // max(1, workers) if cache else 0
        self._source = _Source(dataset, aligned, augmentation, seed, tuple(mean), tuple(std), limit)
        self._order = _Order()
        self._loader: DataLoader[Any] | None = None
        self._latest = 0

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Batches `first_step`… of an epoch.

        With workers, one epoch is drawn from at a time: starting one ends the one before.

        Raises:
            DataError: an image or aligned input can't be read; the message names its file.
        """
        requests = [(epoch, ids) for ids in self._batch_ids(epoch)[first_step:]]
        self._latest += 1
        return self._drawn(requests, self._latest) if self._workers else map(self._source.batch, requests)

    def _batch_ids(self, epoch: int) -> list[tuple[str, ...]]:
        """This rank's ids of every batch of an epoch."""
        rng = np.random.default_rng(derived_seed(self._seed, "order", epoch))
        order = rng.permutation(len(self._ids))
        batches = []
        for step in range(self.steps_per_epoch):
            places = order[step * self._batch_size : (step + 1) * self._batch_size]
            own = np.array_split(places, self._world)[self._rank]
            batches.append(tuple(self._ids[place] for place in own))
        return batches

    def _drawn(self, requests: list[tuple[int, tuple[str, ...]]], number: int) -> Iterator[Batch]:
        """Batches made by the workers, in order."""
        if self._loader is None:
            self._loader = DataLoader(
                self._source,
                sampler=self._order,
                batch_size=None,  # the source makes whole batches
                collate_fn=_unchanged,
                num_workers=self._workers,
                persistent_workers=True,
                generator=torch.Generator().manual_seed(0),  # draws nothing from the global one
            )
        self._order.requests = requests
        for item in self._loader:
            if number != self._latest:
                raise StageError(
                    "Another epoch was started on these batches. With `workers`, finish one epoch "
                    "before the next."
                )
            if isinstance(item, WsssError):
                raise item
            yield item


class _Order:
    """The requests of the running epoch, as a sampler."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, tuple[str, ...]]] = []

    def __iter__(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        return iter(self.requests)

    def __len__(self) -> int:
        return len(self.requests)


class _Source(TorchDataset[Any]):
    """Makes whole batches; every worker has one."""

    def __init__(
        self,
        dataset: Dataset,
        aligned: Aligned | None,
        augmentation: Augmentation,
        seed: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        cache_bytes: int,
    ) -> None:
        self._dataset, self._aligned, self._augmentation = dataset, aligned, augmentation
        self._seed, self._mean, self._std = seed, mean, std
        self._free_bytes = cache_bytes
        self._cache: dict[str, tuple[np.ndarray, Mapping[str, np.ndarray]]] = {}

    def __getitem__(self, request: tuple[int, tuple[str, ...]]) -> Batch | WsssError:
        try:
            return self.batch(request)
        except WsssError as error:
            return error  # raised in a worker, it would reach the user inside a traceback

    def batch(self, request: tuple[int, tuple[str, ...]]) -> Batch:
        """The batch of an epoch and its image ids."""
        epoch, ids = request
        images: list[Tensor] = []
        planes: list[dict[str, Tensor]] = []
        valid: list[Tensor] = []
        for image_id in ids:
            image, aligned = self._read(image_id)
            rng = np.random.default_rng(derived_seed(self._seed, "augmentation", epoch, image_id))
            moved = augment(image, aligned, rng, self._mean, self._std, self._augmentation)
            images.append(moved[0])
            planes.append(moved[1])
            valid.append(moved[2])
        labels = np.stack([self._dataset.image_labels(image_id) for image_id in ids])
        return Batch(
            images=torch.stack(images),
            image_labels=torch.from_numpy(labels),
            image_ids=ids,
            valid=torch.stack(valid),
            aligned={name: torch.stack([plane[name] for plane in planes]) for name in planes[0]},
        )

    def _read(self, image_id: str) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Decoded image and aligned inputs; kept in memory as long as there is room."""
        if image_id in self._cache:
            return self._cache[image_id]
        entry = self._dataset.sample(image_id).image, self._aligned(image_id) if self._aligned else {}
        size = entry[0].nbytes + sum(plane.nbytes for plane in entry[1].values())
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._cache[image_id] = entry
        return entry


def _unchanged(item: Any) -> Any:
    return item


def _check(ids: Sequence[str], batch_size: int, rank: int, world: int) -> None:
    if len(set(ids)) != len(ids):
        raise DataError("`ids` must name each image once. Remove repetitions.")
    if batch_size < 1 or batch_size % world or not 0 <= rank < world:
        raise DataError(
            f"`batch_size` must be a positive multiple of the number of processes; got {batch_size} "
            f"for {world} "
            f"(rank {rank}). Choose a batch size that they can share equally."
        )
