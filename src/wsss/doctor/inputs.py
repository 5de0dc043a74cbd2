"""What the doctor looks at: a folder of images and tags, a VOC tree, a recipe's data, or single files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wsss.data import FolderConfig, VocConfig
from wsss.data.file_dataset import FilesConfig
from wsss.data.image_folder import MissingImages
from wsss.data.images import MAX_PIXELS
from wsss.engine.folder_recipe import data_name
from wsss.engine.recipe import Recipe, load_recipe
from wsss.engine.recipe_files import list_recipes
from wsss.errors import DataError

IMAGE_FOLDERS: Final = ("images", "JPEGImages")
CLASSES_FILES: Final = ("classes.yaml", "classes.yml", "classes.json")
MASK_FOLDERS: Final = ("masks", "SegmentationClass")
VAL_FRACTION: Final = 0.2  # share of the tagged images that a proposed recipe keeps for testing
SPLITS: Final = Path("ImageSets") / "Segmentation"


@dataclass(frozen=True)
class Inputs:
    """Where data lie; what is None is not there.

    Args:
        root: folder of the data set.
        images: folder of the images, searched with all folders below it.
        tags: CSV file of tags.
        annotations: folder of VOC's `<id>.xml`, where there is no tags file.
        classes: classes file.
        class_names: foreground classes given without a file.
        masks: folder of true masks.
        splits: folder of lists `<split>.txt`.
        missing_images: whether tags of images that are not there are an error or left out.
        max_pixels: largest image that is decoded.
        recipe: the recipe that names all this.
        refused: why the recipe's data set can't be opened; empty: it can, as far as is known.
    """

    root: Path
    images: Path | None
    tags: Path | None = None
    annotations: Path | None = None
    classes: Path | None = None
    class_names: tuple[str, ...] | None = None
    masks: Path | None = None
    splits: Path | None = None
    missing_images: MissingImages = "error"
    max_pixels: int = MAX_PIXELS
    recipe: Recipe | None = None
    refused: str = ""

    def data_section(self) -> dict[str, Any]:
        """The section `data` of a recipe; without lists of splits, a fifth is kept for testing."""
        section: dict[str, Any] = {"root": str(self.root.resolve()), "name": data_name(self.root)}
        if self.annotations is not None:
            return {"kind": "voc", **section, **self._optional("classes")}
        images = self.images or self.root
        section |= {"kind": "folder", "images": self._relative(images)}
        section |= self._optional("tags", "classes", "masks", "splits")
        if self.splits is None:
            section["val_fraction"] = VAL_FRACTION
        return section

    def _optional(self, *keys: str) -> dict[str, str]:
        found = {key: getattr(self, key) for key in keys}
        return {key: self._relative(path) for key, path in found.items() if path is not None}

    def _relative(self, path: Path) -> str:
        """A path below the root relative to it, another one whole."""
        whole, root = path.resolve(), self.root.resolve()
        return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else str(whole)


def find_inputs(target: str | Path) -> Inputs:
    """Find out what `target` is: a data folder, a recipe file or the name of a shipped recipe.

    Raises:
        DataError: neither.
        RecipeError: a recipe that is wrong.
    """
    path = Path(target).expanduser()
    if path.is_dir():
        return _folder_inputs(path)
    name = path.as_posix().removeprefix("recipes/").removesuffix(".yaml")
    if path.is_file() or name in list_recipes():
        return recipe_inputs(load_recipe(target))
    raise DataError(
        f"Expected a folder of images or a recipe; there is no {target}. Correct the path, or name a shipped "
        "recipe (`wsss list recipes`)."
    )


def recipe_inputs(recipe: Recipe) -> Inputs:
    """The files that a recipe's section `data` names; generated data have none, nor has a missing folder."""
    data = recipe.data
    if not isinstance(data, FilesConfig):
        return Inputs(Path(), None, recipe=recipe)
    try:
        base = data.base(None)
    except DataError as error:
        return Inputs(data.root, None, recipe=recipe, refused=str(error))
    if not isinstance(data, FolderConfig | VocConfig):  # COCO's files are its own business
        return Inputs(Path(), None, recipe=recipe)
    rest: dict[str, Any] = {
        "classes": None if data.classes is None else base / data.classes,
        "class_names": data.class_names,
        "missing_images": data.missing_images,
        "max_pixels": data.max_pixels,
        "tags": None if data.tags is None else base / data.tags,
        "recipe": recipe,
    }
    if isinstance(data, VocConfig):
        annotations = base / "Annotations" if data.tags is None else None
        masks = _there(base / data.mask_folder)
        return Inputs(base, base / "JPEGImages", annotations=annotations, masks=masks, **rest)
    masks = None if data.masks is None else base / data.masks
    return Inputs(base, base / data.images, masks=masks, **rest)


def _folder_inputs(root: Path) -> Inputs:
    images = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), root)
    classes = next((root / name for name in CLASSES_FILES if (root / name).is_file()), None)
    tags = next(_tag_files(root), None)
    annotations = _there(root / "Annotations") if tags is None else None
    masks = next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None)
    return Inputs(root, images, tags, annotations, classes=classes, masks=masks, splits=_there(root / SPLITS))


def _there(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None


def _tag_files(root: Path) -> Iterator[Path]:
    """CSV files whose first line names images and labels; `tags.csv` first, whatever it holds."""
    if (root / "tags.csv").is_file():
        yield root / "tags.csv"
    for path in sorted(root.glob("*.csv")):
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                header = {cell.strip().lower() for cell in next(csv.reader(file), [])}
        except (OSError, UnicodeDecodeError, csv.Error):
            continue
        if {"image", "labels"} <= header:
            yield path
