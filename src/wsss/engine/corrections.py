"""Masks corrected by hand: given back to a recipe, they replace pseudo masks where its network is trained.

A stage of its own, `correct-masks`, holds what the network learns from: given masks as they are, all others
byte for byte as the pseudo masks. Maps, refiners and pseudo masks stay untouched, and so do their scores,
which say what the method does by itself; what corrections brought shows in the scores of the network. The
number of given masks is part of the run's supervision, `I+M(12)`: such a run learned from more than tags.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from wsss.checks import nearest
from wsss.data.dataset import Dataset, WithoutMasks, tagged_ids
from wsss.data.digests import file_digests
from wsss.data.masks_png import check_labels, read_mask, write_mask
from wsss.engine.given_masks import GivenMasks, open_given_masks
from wsss.engine.stages import Stage, Workspace, stage_record
from wsss.errors import DataError, RecipeError, StageError
from wsss.training.checkpoint import write_atomically
from wsss.training.journal import Progress

if TYPE_CHECKING:
    from wsss.engine.recipe import Recipe

STAGE: Final = "correct-masks"
KIND: Final = "pseudo-masks"  # that of both stages: one takes the other's place
CORRECTED: Final = "corrected.json"  # ids of the images whose masks were given
MASKS: Final = "pseudo_masks"  # folder inside the stage's, as in that of the pseudo masks


class CorrectionsSection(BaseModel):
    """Masks corrected by hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str = Field(
        description="Folder of masks, `<image id>.png` each, or of one COCO JSON file; or that file."
    )

    @property
    def place(self) -> Path:
        """The folder or file."""
        try:
            return Path(self.folder).expanduser()
        except RuntimeError as error:  # there is no such user
            raise DataError(
                f"There is no home folder for {self.folder[:200]}. Correct the path given as `corrections`."
            ) from error


def check_section(recipe: Recipe, source: str) -> None:
    """Raise `RecipeError` where nothing would use the corrections that the file `source` names."""
    if recipe.corrections is None:
        return
    if recipe.segmentation is None or recipe.segmentation.target == "masks":
        raise RecipeError(
            f"`corrections` in {source} replace pseudo masks in the training of a network, and this recipe "
            "trains none on them. Add a section `segmentation`, or leave `corrections` out."
        )


def with_corrections(supervision: str, section: CorrectionsSection | None) -> str:
    """What a run learns from, with the number of given masks: I+L becomes I+L+M(12).

    Raises:
        DataError: there are none where the section says.
    """
    return (
        supervision if section is None else f"{supervision}+M({len(open_given_masks(section.place).names)})"
    )


def corrected_masks(
    recipe: Recipe,
    pseudo_masks: Stage,
    inputs: tuple[Stage, ...],
    reads: tuple[str, ...],
    workspace: Workspace,
) -> tuple[Stage, ...]:
    """The stage between the pseudo masks and the network's training; none without corrections.

    Args:
        recipe: what is to run.
        pseudo_masks: the stage that makes them.
        inputs: the stage that generates the data, where they are generated.
        reads: fingerprints of the data, where they are files.
        workspace: tells whether the data are there to check the masks against.

    Raises:
        DataError: the masks can't be read, or don't fit the data, as far as these are there.
    """
    if recipe.corrections is None:
        return ()
    given = open_given_masks(recipe.corrections.place)
    generated = workspace.data_stage
    if generated is None or stage_record(workspace.folder(generated)) is not None:
        check_given_masks(given, workspace.dataset, recipe.data.train_split)
    stage = Stage(
        name=STAGE,
        kind=KIND,
        title="Put corrected masks in place",
        settings={"split": recipe.data.train_split, "corrections": True},
        inputs=(pseudo_masks, *inputs),
        work=partial(correct_masks, recipe, pseudo_masks),
        reads=(*reads, _digest(given)),
    )
    return (stage,)


def latest_masks(stages: Sequence[Stage]) -> Stage:
    """What the network learns from: the corrected masks, or else the pseudo masks."""
    return next(stage for stage in reversed(stages) if stage.kind == KIND)


def correct_masks(
    recipe: Recipe, pseudo_masks: Stage, folder: Path, workspace: Workspace, progress: Progress
) -> dict[str, Any]:
    """Write the masks that the network is trained on."""
    assert recipe.corrections is not None
    dataset, split = WithoutMasks(workspace.dataset), recipe.data.train_split
    given = open_given_masks(recipe.corrections.place)
    names = check_given_masks(given, dataset, split)
    ids, made = tagged_ids(dataset, split), workspace.folder(pseudo_masks) / MASKS
    for done, image_id in enumerate(ids, start=1):
        path = folder / MASKS / f"{image_id}.png"
        if not path.is_file():
            if image_id in names:
                write_mask(path, given.read(names[image_id], dataset.class_names))
            else:
                write_atomically(path, _whole_bytes(made / f"{image_id}.png"))
        progress(done, len(ids), "images")
    write_atomically(folder / CORRECTED, (json.dumps(sorted(names), indent=1) + "\n").encode())
    record = stage_record(workspace.folder(pseudo_masks))
    assert record is not None
    scores = {key: record["facts"][key] for key in ("background_score", "background_score_source")}
    return {"images": len(ids), "corrected": len(names), **scores}


def _whole_bytes(path: Path) -> bytes:
    """The bytes of a pseudo mask that can be read: a damaged one is not handed on."""
    try:
        read_mask(path)
        return path.read_bytes()
    except (OSError, DataError) as error:
        raise StageError(
            f"The pseudo mask {path} is missing or damaged. Delete the folder {path.parent.parent.name} and "
            "run the same command again to remake it."
        ) from error


def corrected_ids(stage: Path) -> frozenset[str]:
    """Ids of the images whose masks were given.

    Args:
        stage: folder of the finished stage `correct-masks`.

    Raises:
        StageError: the list is missing or damaged.
    """
    path = stage / CORRECTED
    try:
        return frozenset(TypeAdapter(list[str]).validate_json(path.read_bytes(), strict=True))
    except (OSError, ValueError) as error:
        raise StageError(
            f"{path} must list the images whose masks were corrected, and can't be read. Delete the folder "
            f"{stage.name} and run the recipe again."
        ) from error


def check_given_masks(given: GivenMasks, dataset: Dataset, split: str) -> dict[str, str]:
    """Find the image of each given mask, and read all masks once.

    Args:
        given: the masks.
        dataset: their data; no true mask is read.
        split: of the training.

    Returns:
        Name of the given mask by image id.

    Raises:
        DataError: a mask belongs to no image of the split, has another size, or holds what is no class.
    """
    ids = tagged_ids(dataset, split)
    names = _images_of(given, ids, split)
    for image_id, name in names.items():
        mask, size = given.read(name, dataset.class_names), dataset.image_size(image_id)
        if mask.shape != size:
            raise DataError(
                f"The corrected mask {name} in {given.place} must be {size[0]} x {size[1]} (height x width) "
                f"like its image; got {mask.shape[0]} x {mask.shape[1]}. Save it at the image's own size."
            )
        numbers = f"Use the numbers of the classes: {_classes(dataset.class_names)}."
        known = len(dataset.class_names)
        check_labels(mask, known, f"The corrected mask {name} in {given.place}", numbers)
    return names


def _images_of(given: GivenMasks, ids: Sequence[str], split: str) -> dict[str, str]:
    """Masks by image id; tools that drop folders are forgiven where the file's name alone is unique."""
    known, short = set(ids), _unique_stems(ids)
    found: dict[str, str] = {}
    unknown = []
    for name in given.names:
        image_id = name if name in known else short.get(name.rpartition("/")[2])
        if image_id is None:
            unknown.append(name)
        elif image_id in found:
            raise DataError(
                f"Two corrected masks in {given.place} belong to image {image_id}: {found[image_id]} and "
                f"{name}. Keep one of them."
            )
        else:
            found[image_id] = name
    if unknown:
        raise DataError(
            f"{len(unknown):,} of {len(given.names):,} corrected masks in {given.place} belong to no tagged "
            f"image of split {split}; the first is {unknown[0]}. {nearest(unknown[0], ids)} Only images that "
            "are trained on can be corrected."
        )
    return found


def _unique_stems(ids: Sequence[str]) -> Mapping[str, str]:
    """Ids by their last part, where no other id shares it."""
    stems: dict[str, list[str]] = {}
    for image_id in ids:
        stems.setdefault(image_id.rpartition("/")[2], []).append(image_id)
    return {stem: owners[0] for stem, owners in stems.items() if len(owners) == 1}


def _digest(given: GivenMasks) -> str:
    """Changes when a given mask changes, comes or goes."""
    lines = zip((path.as_posix() for path in given.relative), file_digests(given.files), strict=True)
    return hashlib.sha256("\n".join(f"{name}\0{digest}" for name, digest in lines).encode()).hexdigest()


def _classes(class_names: Sequence[str]) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(class_names))
