"""Refine the maps of many images: several at once, each on its own, and only those that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from accelerate.utils import gather_object

from wsss.activation.store import MapStore
from wsss.data.dataset import Dataset
from wsss.data.image_work import report_failures, threads_for, work_on_images
from wsss.errors import StageError, WsssError
from wsss.refiners.base import Refiner
from wsss.training.journal import Progress
from wsss.training.processes import num_processes, process_number
from wsss.types import ActivationMaps, Sample

TOGETHER = 8  # images of one size that an accelerator refines at once
PIXELS_ON_CPU = 2**18  # of images that a CPU refines at once


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
    they do on an accelerator. The processes of a distributed run share the images out.

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
    missing = [image_id for image_id in dict.fromkeys(ids) if image_id not in store]
    done = len(ids) - len(missing)
    own = missing[process_number() :: num_processes()]

    def given(image_id: str) -> tuple[Sample, ActivationMaps]:
        found = maps.read(image_id, full_size=refiner.reads_full_size)
        return dataset.sample(image_id).without_mask(), found.to(device)

    def write(sample: Sample, refined: ActivationMaps) -> None:
        height, width = sample.image.shape[:2]
        size = (height, width)
        store.write(sample.image_id, refined, image_size=size, stride=refiner.stride)

    def work(image_id: str) -> None:
        sample, found = given(image_id)
        write(sample, refiner.refine(sample, found))

    def together(group: Sequence[str]) -> None:
        pairs = [given(image_id) for image_id in group]
        refined = refiner.refine_batch([sample for sample, _ in pairs], [found for _, found in pairs])
        for (sample, _), result in zip(pairs, refined, strict=True):
            write(sample, result)

    def tell(finished: int, total: int, note: str) -> None:
        if progress is not None:
            progress(done + finished * num_processes(), len(ids), note)

    if progress is not None:
        progress(done, len(ids), "images")
    failures = work_on_images(
        _groups(dataset, own, refiner, device),
        work,
        together=together,
        threads=threads_for(device),
        progress=tell,
    )
    if num_processes() > 1:
        failures = _everybodys(failures)
    report_failures(failures, len(ids), "refined maps")


def _groups(dataset: Dataset, ids: Sequence[str], refiner: Refiner, device: torch.device) -> list[list[str]]:
    """Images of one size together; in the order of `ids` where each is alone."""
    is_cpu = device.type == "cpu"
    if is_cpu and refiner.together == 1:
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
        most = min(refiner.together, max(1, PIXELS_ON_CPU // max(1, prod(size)))) if is_cpu else TOGETHER
        groups += [group[start : start + most] for start in range(0, len(group), most)]
    return groups


def _everybodys(failures: dict[str, Exception]) -> dict[str, Exception]:
    """The failures of all processes, in each of them."""
    shares = gather_object([{image_id: str(error) for image_id, error in failures.items()}])
    return {image_id: StageError(text) for share in shares for image_id, text in share.items()}
