"""Refine the maps of many images: several at once, each on its own, and only those that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wsss.activation.store import MapStore
from wsss.data.dataset import Dataset
from wsss.data.image_work import everybodys, of_everyone, report_failures, threads_for, work_on_images
from wsss.errors import WsssError
from wsss.refiners.base import Refiner
from wsss.training.journal import Progress
from wsss.training.processes import own_share
from wsss.types import ActivationMaps, Sample

TOGETHER = 8  # images of one size that an accelerator refines at once, at most
PIXELS_ON_CPU = 2**18  # of images that are refined at once, as a network sees them
PIXELS_ON_ACCELERATOR = 2**22


def refine_images(
    refiner: Refiner,
    dataset: Dataset,
    ids: Sequence[str],
    maps: MapStore,
    store: MapStore,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> None:
    """Write refined maps of all `ids` that `store` does not hold yet.

    On a CPU each core refines images of its own; small ones of one size go together where that is faster, as
    they do on an accelerator. The processes of a distributed run share the images out, batch by batch, and
    return when all are done; the files are the same for any number of processes.

    Args:
        refiner: fitted.
        dataset: gives images, never masks.
        ids: images.
        maps: the maps to be refined.
        store: where the refined maps go.
        device: where to compute.
        progress: told after each image, or batch of images.

    Raises:
        StageError: some images failed; names the first and their number. The others are written, and the next
            call tries only the failed ones again.
    """
    device = torch.device(device)
    everything = tuple(dict.fromkeys(ids))
    # batches depend on the images alone, not on what is done already or on how many processes there are: the
    # same bytes after an interruption, and whoever makes them
    own = own_share(_groups(dataset, everything, refiner, device))
    missing = frozenset(image_id for group in own for image_id in group if image_id not in store)
    work = _Refining(refiner, dataset, maps, store, device, missing)
    groups = [group for group in own if missing & set(group)]
    tell = of_everyone(progress, len(everything))
    tell(0, sum(map(len, groups)), "images")
    failures = work_on_images(
        groups, work.alone, together=work.together, threads=threads_for(device), progress=tell
    )
    report_failures(everybodys(failures, everything), len(everything), "refined maps")


@dataclass(frozen=True, eq=False)
class _Refining:
    """Reads, refines and writes the missing images."""

    refiner: Refiner
    dataset: Dataset
    maps: MapStore
    store: MapStore
    device: torch.device
    missing: frozenset[str]

    def alone(self, image_id: str) -> None:
        """One image."""
        if image_id in self.missing:
            sample, found = self._given(image_id)
            self._write(sample, self.refiner.refine(sample, found))

    def together(self, group: Sequence[str]) -> None:
        """Images of one size; those that are there already are refined again, and not written."""
        pairs = [self._given(image_id) for image_id in group]
        samples, found = [sample for sample, _ in pairs], [maps for _, maps in pairs]
        for sample, refined in zip(samples, self.refiner.refine_batch(samples, found), strict=True):
            if sample.image_id in self.missing:
                self._write(sample, refined)

    def _given(self, image_id: str) -> tuple[Sample, ActivationMaps]:
        sample = self.dataset.sample(image_id).without_mask()
        refiner = self.refiner
        # maps on another grid than the refiner's are no smaller version of the image, but an enlarged one's
        is_full = refiner.reads_full_size or self.maps.stride(image_id) not in (None, refiner.stride)
        height, width = sample.image.shape[:2]
        found = self.maps.read(image_id, full_size=is_full, image_size=(height, width))
        return sample, found.to(self.device)

    def _write(self, sample: Sample, refined: ActivationMaps) -> None:
        height, width = sample.image.shape[:2]
        size, stride = (height, width), self.refiner.stride
        self.store.write(sample.image_id, refined, image_size=size, stride=stride)


def _groups(dataset: Dataset, ids: Sequence[str], refiner: Refiner, device: torch.device) -> list[list[str]]:
    """Images of one size together; in the order of `ids` where each is alone."""
    is_cpu = device.type == "cpu"
    most, budget = (refiner.together, PIXELS_ON_CPU) if is_cpu else (TOGETHER, PIXELS_ON_ACCELERATOR)
    if most == 1:
        return [[image_id] for image_id in ids]
    by_size: dict[tuple[int, int], list[str]] = {}
    for image_id in ids:
        try:
            size = dataset.image_size(image_id)
        except (WsssError, OSError):  # its own turn will say why
            size = (0, 0)
        by_size.setdefault(size, []).append(image_id)
    groups = []
    for size, group in by_size.items():
        count = min(most, max(1, budget // max(1, refiner.seen_pixels(size))))
        groups += [group[start : start + count] for start in range(0, len(group), count)]
    return groups
