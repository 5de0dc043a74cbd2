"""Saliency of the training images: which detector a recipe names, its stage, and reading it in training.

A detector sees images alone: no tags, and never a mask. Its maps are kept in the stage's folder, which all
runs with the same detector and data share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from wsss.data.dataset import Dataset, WithoutMasks
from wsss.data.digests import file_digests, png_digests
from wsss.data.file_dataset import FileDataset
from wsss.data.image_work import of_everyone
from wsss.data.loaders import Aligned
from wsss.errors import DataError
from wsss.models.saliency import (
    check_saliency_folder,
    detect_to_folder,
    load_detector,
    read_saliency,
    saliency_file,
)
from wsss.training.journal import Progress
from wsss.training.processes import is_main_process, num_processes, own_share, wait_for_everyone

SALIENCY: Final = "saliency"  # its name among `Method.pixel_inputs` and in `Batch.aligned`
MAPS: Final = "maps"  # folder inside the stage's
IMAGES_AT_ONCE = 16


class SaliencySection(BaseModel):
    """Where a method's saliency maps come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        "embedded",
        description="Detector: embedded, u2net (extra `saliency`), or a folder of a detector in the embedded "
        "format.",
    )
    weights: str | None = Field(None, description="File of u2net's weights; null: where rembg keeps them.")
    folder: str | None = Field(
        None, description="Maps that are there already, `<image id>.png` each; nothing is detected."
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.folder is not None and (self.source != "embedded" or self.weights is not None):
            raise ValueError("`folder` and a detector exclude each other; give one of them")
        return self

    @property
    def given_maps(self) -> Path | None:
        """Folder of the maps that are there already; None: they are detected."""
        return None if self.folder is None else Path(self.folder).expanduser()


def detector_digest(section: SaliencySection) -> str:
    """SHA-256 of the detector's weights.

    Raises:
        WeightsError: there is no such detector on this machine.
    """
    return load_detector(section.source, weights=section.weights, device=torch.device("cpu")).sha256


def folder_digest(section: SaliencySection) -> str:
    """Changes when a map of the section's folder, or of folders below it, changes, comes or goes.

    Raises:
        DataError: there is no such folder.
    """
    folder = section.given_maps or Path()
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder} of saliency maps. Correct `method.saliency.folder`, or leave it "
            "out to have them detected."
        )
    lines = [f"{name}\0{digest}" for name, digest in png_digests(folder)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_given_maps(folder: Path, dataset: Dataset, ids: Sequence[str]) -> None:
    """Make sure that maps given by the user are complete and are not the data set's own true masks.

    Compared are places and files' bytes; a mask that was changed in any way is not found.

    Args:
        folder: of the maps.
        dataset: the data set with its masks, whose contents are compared but not decoded.
        ids: images that will be trained on.

    Raises:
        DataError: the folder lies in one of true masks or context maps; maps are missing, or of a kind that
            masks have; or a map is a copy of its image's mask.
    """
    private = dataset.mask_folders if isinstance(dataset, FileDataset) else ()
    for place in private:
        if folder.resolve().is_relative_to(place.resolve()):
            raise DataError(
                f"`method.saliency.folder` must be outside {place}, where {dataset.name} keeps true masks or "
                f"context maps; got {folder}. True masks must not serve as saliency: name a folder of a "
                "detector's maps."
            )
    check_saliency_folder(folder, ids)
    if not isinstance(dataset, FileDataset):
        return
    pairs = [(image_id, mask) for image_id in ids for mask in dataset.mask_files(image_id)]
    maps = [saliency_file(folder, image_id) for image_id, _ in pairs]
    digests = zip(file_digests(maps), file_digests([mask for _, mask in pairs]), strict=True)
    for (image_id, mask), path, (own, true) in zip(pairs, maps, digests, strict=True):
        # a map where nothing stands out may well equal a mask without any object
        if own == true and np.ptp(read_saliency(path, dataset.image_size(image_id))) > 0:
            raise DataError(
                f"Saliency maps must come from a detector; {path} is a copy of the true mask or context map "
                f"{mask}. True masks must not serve as saliency: put the detector's map there."
            )


def detect_saliency(
    section: SaliencySection,
    dataset: Dataset,
    ids: Sequence[str],
    folder: Path,
    device: torch.device,
    progress: Progress,
) -> dict[str, Any]:
    """Detect what is missing in the stage's `maps`; an interrupted call goes on where it stopped.

    Several processes leave the files that one would: each detects in batches of images of its own.
    """
    detector = load_detector(section.source, weights=section.weights, device=device)
    maps = folder / MAPS
    maps.mkdir(exist_ok=True)
    batches = [ids[start : start + IMAGES_AT_ONCE] for start in range(0, len(ids), IMAGES_AT_ONCE)]
    detect_to_folder(
        detector,
        WithoutMasks(dataset),
        [image_id for batch in own_share(batches) for image_id in batch],
        maps,
        images_at_once=IMAGES_AT_ONCE,
        alone=num_processes() == 1,
        progress=of_everyone(progress, len(ids)),
    )
    wait_for_everyone()
    if not is_main_process():
        return {}
    return {"images": len(ids), "detector": detector.name, "sha256": detector.sha256}


def saliency_inputs(
    section: SaliencySection, made: Path | None, dataset: Dataset, ids: Sequence[str]
) -> Aligned:
    """What training reads beside each image: `saliency`, (H, W), float32 in [0, 1].

    Args:
        section: names the folder of maps that are there already, if any.
        made: folder of the stage that detected them otherwise.
        dataset: says how large images are.
        ids: images that will be trained on.

    Raises:
        DataError: maps are missing, or of a kind that true masks have.
    """
    folder = section.given_maps
    if folder is None:
        assert made is not None  # recipes without a folder have a stage that detects
        folder = made / MAPS
    check_saliency_folder(folder, ids)
    return partial(_read, folder, dataset)


def _read(folder: Path, dataset: Dataset, image_id: str) -> Mapping[str, np.ndarray]:
    return {SALIENCY: read_saliency(saliency_file(folder, image_id), dataset.image_size(image_id))}
