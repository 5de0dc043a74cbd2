"""Finished runs as the review sees them: photographs, tags, maps and pseudo masks; never a true mask."""

from __future__ import annotations

import functools
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from wsss.activation.seeds import choose_background_score, pseudo_mask
from wsss.activation.store import MapStore
from wsss.data import DataConfig, WithoutMasks, open_dataset, tagged_ids
from wsss.data.masks_png import read_mask
from wsss.engine.chosen_score import chosen_score
from wsss.engine.corrections import corrected_ids
from wsss.engine.run import read_run
from wsss.errors import DataError, StageError
from wsss.review.signals import Mask
from wsss.types import ActivationMaps

SAME: Final = ("name", "data_version", "train_split", "class_names")
"""Facts of run.json's `data` that runs of one review share."""


@dataclass(frozen=True, eq=False)
class ReviewedRun:
    """One run, ready for looking at its pseudo masks.

    Args:
        folder: the run folder.
        record: its run.json.
        dataset: its data without any mask.
        maps: as the method made them.
        refined: as the last refiner left them; None without refiners.
        masks: folder of its pseudo masks; None: the run stopped before, and masks are made from the maps.
        corrected: images whose masks were given back already.
    """

    folder: Path
    record: Mapping[str, Any]
    dataset: WithoutMasks
    maps: MapStore
    refined: MapStore | None
    masks: Path | None
    corrected: frozenset[str]

    @property
    def class_names(self) -> tuple[str, ...]:
        """K + 1 names, the first "background"."""
        return self.dataset.class_names

    @functools.cached_property
    def tagged(self) -> tuple[str, ...]:
        """Training images with at least one tag; all others have empty masks, which say nothing."""
        ids = tagged_ids(self.dataset, str(self.record["data"]["train_split"]))
        return tuple(image_id for image_id in ids if self.tags(image_id))

    def tags(self, image_id: str) -> tuple[int, ...]:
        """Classes that an image is tagged with, ascending."""
        return tuple((np.flatnonzero(self.dataset.image_labels(image_id)) + 1).tolist())

    @property
    def last_maps(self) -> MapStore:
        """What the pseudo masks were made from."""
        return self.refined or self.maps

    @functools.cached_property
    def background_score(self) -> float | None:
        """Constant score of class 0 behind the masks; None where the maps have a background of their own."""
        if self.masks is not None:
            return chosen_score(self.masks.parent)
        if self.last_maps.read(self.tagged[0], full_size=False).background is not None:
            return None
        return choose_background_score(self.last_maps, self.tagged, self.dataset).value

    @functools.cached_property
    def unrefined_score(self) -> float | None:
        """The same for the method's own maps, whose score is another one once they are refined."""
        if self.refined is None:
            return self.background_score
        if self.maps.read(self.tagged[0], full_size=False).background is not None:
            return None
        return choose_background_score(self.maps, self.tagged, self.dataset).value

    def mask(self, image_id: str) -> Mask:
        """The pseudo mask of an image."""
        if self.masks is not None:
            return read_mask(self.masks / f"{image_id}.png")
        made: Mask = pseudo_mask(self.read_maps(self.last_maps, image_id), self.background_score).numpy()
        return made

    def read_maps(
        self, store: MapStore, image_id: str, image_size: tuple[int, int] | None = None
    ) -> ActivationMaps:
        """Full-size maps of an image.

        Args:
            store: `maps` or `refined`.
            image_id: which image.
            image_size: (height, width) that the image has; None: it is not known here.

        Raises:
            DataError: they are missing or damaged, of another size, or of classes that the data lack.
        """
        maps = store.read(image_id, image_size=image_size)
        highest = int(maps.class_ids.max()) if len(maps.class_ids) else 0
        if highest >= len(self.class_names):
            raise DataError(
                f"{store.path(image_id)} must hold maps of the classes 1-{len(self.class_names) - 1}; got "
                f"{highest}. Delete the file and run the recipe again to remake it."
            )
        return maps

    def identity(self) -> list[str]:
        """What decides the signals that this run gives: the folders of its stages, named by fingerprints."""
        places = (self.maps.folder, *((self.refined.folder,) if self.refined else ()), self.masks)
        return [place.parent.name for place in places if place is not None]


def open_runs(folders: Sequence[Path | str]) -> tuple[ReviewedRun, ...]:
    """Open the run to review and those that it is compared with.

    Raises:
        StageError: a folder holds no finished run, or one without maps.
        DataError: no folder is given, the runs are of different data, or the data can't be read.
    """
    places = [Path(folder) for folder in dict.fromkeys(str(folder) for folder in folders)]
    if not places:
        raise DataError(
            "`runs` is empty. Name the folder of a finished run, such as runs/scenes-clims-seed0."
        )
    runs = tuple(open_run(folder) for folder in places)
    for other in runs[1:]:
        for key in SAME:
            if other.record["data"][key] != runs[0].record["data"][key]:
                raise DataError(
                    f"{places[0].name} and {other.folder.name} can't be reviewed together: their `{key}` "
                    "differ. Name runs of the same data, classes and training split."
                )
    if not runs[0].tagged:
        raise DataError(f"No training image of {places[0]} has a tag, so there is no mask to review.")
    return runs


def open_run(folder: Path) -> ReviewedRun:
    """Open one run.

    Raises:
        StageError: it is not finished or has no maps.
        DataError: its data can't be read.
    """
    record = read_run(folder)
    stages = {str(entry["name"]): (folder / str(entry["folder"])).resolve() for entry in record["stages"]}
    if "activate" not in stages:
        raise StageError(
            f"{folder} has no activation maps: its network was trained on true masks, or it stopped early. "
            "Review a run that made pseudo masks."
        )
    refined = [place for name, place in stages.items() if name.startswith("refine-")]
    made = stages.get("pseudo-masks")
    corrected = stages.get("correct-masks")
    return ReviewedRun(
        folder=folder,
        record=record,
        dataset=_open_data(folder, record),
        maps=MapStore(stages["activate"] / "maps"),
        refined=MapStore(refined[-1] / "maps") if refined else None,
        masks=None if made is None else made / "pseudo_masks",
        corrected=corrected_ids(corrected) if corrected else frozenset(),
    )


def per_scale(store: MapStore, image_id: str) -> tuple[list[Tensor], Tensor]:
    """Maps of each image scale on its own, and their classes; no scale where the maps keep none.

    Returns:
        For each scale the cams of the present classes, (M, h_s, w_s); the M classes.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = store.path(image_id)
    if not path.is_file():
        raise DataError(
            f"There are no maps of {image_id} in {store.folder}. Delete the folder "
            f"{store.folder.parent.name} and run the recipe again."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            names = sorted((name for name in file.files if name.startswith("scale_")), key=_number)
            scales, class_ids = [file[name] for name in names], file["class_ids"]
            _check_scales(scales, class_ids)
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError) as error:
        raise DataError(
            f"{path} is no whole maps file ({error}). Delete it and run the recipe again to remake it."
        ) from error
    return [torch.from_numpy(cams).float() for cams in scales], torch.from_numpy(class_ids.astype(np.int64))


def _check_scales(scales: Sequence[Any], class_ids: Any) -> None:
    """Raise `ValueError` unless each scale is (M, h, w) floats with cells, and there are M class ids."""
    if not isinstance(class_ids, np.ndarray) or class_ids.dtype.kind not in "iu" or class_ids.ndim != 1:
        raise ValueError("`class_ids` must be integers on one axis")
    for cams in scales:
        if not isinstance(cams, np.ndarray) or cams.dtype.kind != "f" or cams.ndim != 3:
            raise ValueError("each scale must have 3 axes of floats")
        if len(cams) != len(class_ids) or 0 in cams.shape[1:]:
            raise ValueError(f"each scale must be ({len(class_ids)}, h, w); got {cams.shape}")


def _open_data(folder: Path, record: Mapping[str, Any]) -> WithoutMasks:
    """The data set of a run; whoever ranks its masks gets none."""
    root = (folder / str(record["data_root"])).resolve() if record["data_root"] else None
    try:
        config: Any = TypeAdapter(DataConfig).validate_python(record["dataset_config"])
    except ValueError as error:
        raise DataError(
            f"run.json of {folder} describes its data in a way that this version does not know "
            f"({' '.join(str(error).split())[:200]}). Run the recipe again."
        ) from error
    return WithoutMasks(open_dataset(config, root=root))


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])
