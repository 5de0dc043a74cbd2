"""Multi-scale, mirrored extraction of activation maps, as IRN and CLIMS do it, in batches.

For each scale the image and its mirror image pass the network; the mirrored cams are turned back and added.
Only the classes that the image labels name leave the network's device, and they are selected before anything
is enlarged: selection and interpolation commute. Images of one size share batches. The network sees very
large images shrunk; their maps have the image's own size all the same.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from wsss.activation.store import MapStore, sum_strided
from wsss.data.dataset import Dataset
from wsss.data.image_work import everybodys, of_everyone, report_failures
from wsss.errors import WsssError
from wsss.methods.base import Method
from wsss.training.journal import Progress
from wsss.training.processes import own_share
from wsss.types import ActivationMaps

PIXELS_ON_CPU: Final = 2**18  # larger passes of the network gain nothing there and take memory
PIXELS_ON_ACCELERATOR: Final = 2**24
PIXELS_LOADED: Final = 2**27  # of one batch at all scales, 400 MB; the next one is loaded meanwhile
MAX_PIXELS: Final = 2**22  # of one input of a network; VOC and COCO stay far below at scale 2

Pixels = npt.NDArray[np.uint8]
log = logging.getLogger(__name__)


class ExtractConfig(BaseModel):
    """How maps are extracted; defaults as in IRN, CLIMS and QA-CLIMS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scales: tuple[float, ...] = Field(
        (1.0, 0.5, 1.5, 2.0), min_length=1, description="Image scales, summed (IRN, CLIMS: 1, 0.5, 1.5, 2)."
    )
    flip: bool = Field(True, description="Add the maps of the mirrored image at every scale (IRN: yes).")
    stride: int = Field(4, ge=1, description="Image pixels per cell of the low-resolution maps (IRN: 4).")
    batch_images: int = Field(16, ge=1, description="Images of one size per batch (IRN: 1); bounds memory.")
    batch_pixels: int | None = Field(
        None,
        ge=1,
        description="Pixels per pass of the network, mirror images counted; null: 262,144 on a CPU, 16 "
        "million on an accelerator. One image always passes.",
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        description="A scaled image never has more pixels than this: larger ones are shrunk, sides in "
        "proportion; published data sets stay below (IRN: no limit).",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16 runs the network under autocast; sums stay float32 (IRN: float32)."
    )
    loaders: int = Field(2, ge=1, description="Threads that decode and resize the next batch meanwhile.")


def extract(
    method: Method,
    dataset: Dataset,
    ids: Sequence[str],
    store: MapStore,
    config: ExtractConfig,
    *,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the maps of all `ids` that the store does not hold yet.

    Batches depend on `ids` alone, not on what is done already, so an interrupted extraction gives the same
    bytes as an uninterrupted one. The processes of a distributed run share the batches out, and return when
    all are done. A failing image never loses the others: all failures are reported together at the end, and
    the next call tries only those again.

    Args:
        method: trained; put into evaluation mode on `device`.
        dataset: gives images and image labels; its masks are never read.
        ids: images; one without any present class gets maps of 0 classes.
        store: where maps go.
        config: scales, stride and batch sizes.
        device: None: where the method is.
        progress: told after each image.

    Raises:
        StageError: some images failed; names the first and the number.
    """
    device = next(method.parameters()).device if device is None else torch.device(device)
    method.to(device).eval()
    everything = tuple(dict.fromkeys(ids))
    every, unreadable = _batches(dataset, everything, config)
    own = own_share(every)
    names = [*unreadable, *(image_id for batch in own for image_id in batch)]
    tally = _Tally(names, store, of_everyone(progress, len(everything)))
    for image_id, error in unreadable.items():
        tally.failed([image_id], error)
    batches = [batch for batch in own if tally.missing & set(batch)]
    with ThreadPoolExecutor(config.loaders) as loaders:
        for loading in _ahead(loaders, dataset, batches, config):
            images = tally.loaded(loading)
            if not images:
                continue
            try:
                maps = _maps(method, images, config, device)
            except (WsssError, RuntimeError, MemoryError) as error:  # one batch too large or not finite
                tally.failed([image.image_id for image in images], error)
                continue
            for image, (low_resolution, per_scale) in zip(images, maps, strict=True):
                tally.write(image, low_resolution, per_scale)
    report_failures(everybodys(tally.failures, everything), len(everything), "maps")


@dataclass(frozen=True, eq=False)
class _Scaled:
    """One decoded image: its size, its labels and its pixels at every scale."""

    image_id: str
    size: tuple[int, int]
    image_labels: npt.NDArray[np.bool_]
    pixels: tuple[Pixels, ...]  # each (h_s, w_s, 3)


class _Tally:
    """What is missing, done and failed of this process's images."""

    def __init__(self, ids: Sequence[str], store: MapStore, progress: Progress) -> None:
        self.store, self.progress = store, progress
        self.missing = {image_id for image_id in ids if image_id not in store}
        self.failures: dict[str, Exception] = {}
        self._tell()

    def loaded(self, loading: Sequence[tuple[str, Future[_Scaled]]]) -> list[_Scaled]:
        """Wait for the images of one batch; those that can't be read are noted as failed."""
        images = []
        for image_id, future in loading:
            try:
                images.append(future.result())
            except (WsssError, OSError) as error:  # noqa: PERF203  (each image fails on its own)
                self.failed([image_id], error)
        return images

    def write(self, image: _Scaled, maps: ActivationMaps, per_scale: Sequence[Tensor]) -> None:
        """Store the maps of an image that has none yet."""
        if image.image_id in self.missing:
            self.store.write(image.image_id, maps, image_size=image.size, per_scale=per_scale)
            self.missing.discard(image.image_id)
            self._tell()

    def failed(self, image_ids: Sequence[str], error: Exception) -> None:
        """Note the images that have no maps yet as failed."""
        for image_id in self.missing & set(image_ids):
            self.failures[image_id] = error
            log.warning("%s has no maps: %s", image_id, error)
        self._tell()

    def _tell(self) -> None:
        self.progress(len(self.failures), len(self.missing), "images")


def _batches(
    dataset: Dataset, ids: Sequence[str], config: ExtractConfig
) -> tuple[list[list[str]], dict[str, Exception]]:
    """All images in batches of one size each, in an order that depends on `ids` alone.

    Very large images come in smaller batches. Beside them comes why some images are in none.
    """
    groups: dict[tuple[int, int], list[str]] = {}
    unreadable: dict[str, Exception] = {}
    for image_id in ids:
        try:
            groups.setdefault(dataset.image_size(image_id), []).append(image_id)
        except (WsssError, OSError) as error:  # noqa: PERF203
            unreadable[image_id] = error
    batches = []
    for size, group in groups.items():
        pixels = sum(prod(scaled_size(size, scale, config.max_pixels)) for scale in config.scales)
        count = max(1, min(config.batch_images, PIXELS_LOADED // pixels))
        batches += [group[start : start + count] for start in range(0, len(group), count)]
    return batches, unreadable


def _ahead(
    loaders: ThreadPoolExecutor, dataset: Dataset, batches: Sequence[Sequence[str]], config: ExtractConfig
) -> Iterator[list[tuple[str, Future[_Scaled]]]]:
    """The images of each batch, while those of the next one are being loaded."""
    waiting: deque[list[tuple[str, Future[_Scaled]]]] = deque()
    for batch in batches:
        waiting.append([(image_id, loaders.submit(_load, dataset, image_id, config)) for image_id in batch])
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _load(dataset: Dataset, image_id: str, config: ExtractConfig) -> _Scaled:
    """Decode one image and resize it to every scale (PIL bicubic, sides as in `scaled_size`)."""
    sample = dataset.sample(image_id)
    height, width = sample.image.shape[:2]
    labels = dataset.image_labels(image_id)
    scales = config.scales if labels.any() else ()  # without classes there is nothing to compute
    sizes = [scaled_size((height, width), scale, config.max_pixels) for scale in scales]
    pixels = [resized(sample.image, size, Image.Resampling.BICUBIC) for size in sizes]
    return _Scaled(image_id, (height, width), labels, tuple(pixels))


def scaled_size(size: tuple[int, int], scale: float, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of an image at a scale: int(round(side * scale)), halves to even, at least 1.

    Where that is more than `max_pixels`, it is `capped_size` of that.
    """
    return capped_size((max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), max_pixels)


def capped_size(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """(height, width) as given, or shrunk, sides in proportion, to at most `max_pixels` pixels.

    >>> capped_size((375, 500), 2**22), capped_size((6000, 8000), 2**22)
    ((375, 500), (1773, 2364))
    """
    height, width = size
    if height * width <= max_pixels:
        return size
    factor = (max_pixels / (height * width)) ** 0.5
    short = max(1, int(min(size) * factor))
    long = max(1, min(int(max(size) * factor), max_pixels // short))  # one pixel can't get thinner
    return (short, long) if height < width else (long, short)


def resized(image: Pixels, size: tuple[int, int], resampling: Image.Resampling) -> Pixels:
    """An RGB image (H, W, 3) resized by PIL to (height, width); the very same one if it has that size."""
    if image.shape[:2] == size:
        return image
    return np.array(Image.fromarray(image).resize(size[::-1], resampling))


def images_per_pass(size: tuple[int, int], config: ExtractConfig, device: torch.device) -> int:
    """How many images of one scaled size pass the network at once, not counting their mirror images."""
    budget = config.batch_pixels or (PIXELS_ON_CPU if device.type == "cpu" else PIXELS_ON_ACCELERATOR)
    return max(1, budget // (prod(size) * (2 if config.flip else 1)))


@torch.inference_mode()
def _maps(
    method: Method, images: Sequence[_Scaled], config: ExtractConfig, device: torch.device
) -> list[tuple[ActivationMaps, list[Tensor]]]:
    """Low-resolution maps and the cams of each scale of images of one size, on the CPU."""
    labels = torch.from_numpy(np.stack([image.image_labels for image in images]))  # (B, K)
    shown = [image for image in images if image.image_labels.any()]
    present = labels[labels.any(dim=1)]
    at_scales = zip(*(image.pixels for image in shown), strict=True)
    per_scale = [
        _present_cams(method, pixels, present, config, device) for pixels in at_scales
    ]  # (P, h_s, w_s)
    size = images[0].size
    if not shown:
        per_scale = [torch.zeros(0, 1, 1)]
    strided = sum_strided(per_scale, size, config.stride).cpu()  # (P, h, w)
    per_scale = [cams.cpu() for cams in per_scale]
    counts = labels.sum(dim=1).tolist()
    pieces = [torch.split(cams, counts) for cams in (strided, *per_scale)]
    results = []
    for row, (cams, *scales) in zip(labels, zip(*pieces, strict=True), strict=True):
        class_ids = row.nonzero().flatten() + 1
        results.append((ActivationMaps.from_present_cams(cams, class_ids), list(scales)))
    return results


def _present_cams(
    method: Method, pixels: Sequence[Pixels], labels: Tensor, config: ExtractConfig, device: torch.device
) -> Tensor:
    """Cams of the present classes at one scale, image after image, plus those of the mirror images.

    Args:
        method: in evaluation mode on `device`.
        pixels: B images of one size, (h, w, 3) each.
        labels: (B, K), bool, P of them true.
        config: batch size and precision.
        device: where to compute.

    Returns:
        (P, h_s, w_s), float32, on `device`.
    """
    height, width = pixels[0].shape[:2]
    step = images_per_pass((height, width), config, device)
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (method.mean, method.std))
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16")
    found = []
    for start in range(0, len(pixels), step):
        stacked = torch.from_numpy(np.stack(pixels[start : start + step])).to(device)
        images = (stacked.permute(0, 3, 1, 2).float() / 255 - mean) / std  # (b, 3, h, w)
        rows, columns = labels[start : start + step].nonzero(as_tuple=True)
        rows, columns = rows.to(device), columns.to(device)
        with autocast:
            cams = method.cams(torch.cat([images, images.flip(3)]) if config.flip else images)
        present = cams[rows, columns].float()  # (p, h_s, w_s)
        if config.flip:
            present = present + cams[rows + len(images), columns].float().flip(2)
        found.append(present)
    return torch.cat(found)
