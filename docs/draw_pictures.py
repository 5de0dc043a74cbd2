"""Draw the pictures of docs/concepts.md from a finished run: `python docs/draw_pictures.py RUN`.

One row of the same generated training images for each stage. The run needs the stages that `ROWS` names; the
pictures in the repository are of `wsss run scenes/clims-irn-crf --seed 0`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from wsss.activation.store import MapStore
from wsss.data import open_dataset
from wsss.data.dataset import Dataset
from wsss.data.masks_png import read_mask
from wsss.engine.recipe import load_recipe
from wsss.engine.run import read_run
from wsss.report.images import Picture, map_picture, mask_picture, thumbnail

IMAGES: Final = 4
GAP: Final = 6  # white pixels between images
COLOURS: Final = 112  # of the palette of a file; keeps it below 60 kB
OUT: Final = Path(__file__).parent / "pictures"
MAPS: Final = {"maps": "activate", "refined-irn": "refine-0-irn", "refined-crf": "refine-1-dense_crf"}


def draw(run: Path, out: Path = OUT) -> list[Path]:
    """Write one PNG file a stage into `out`."""
    record = read_run(run)
    folders = {stage["name"]: run / stage["folder"] for stage in record["stages"]}
    data = load_recipe(run / "recipe.yaml").data
    dataset = open_dataset(data, root=run / record["data_root"])
    ids, tested = chosen(dataset, "train"), chosen(dataset, "val")
    rows = {"images": [thumbnail(dataset.sample(image_id).image) for image_id in ids]}
    for name, stage in MAPS.items():
        rows[name] = [_map(dataset, folders[stage] / "maps", image_id) for image_id in ids]
    masks = folders["pseudo-masks"] / "pseudo_masks"
    rows["pseudo-masks"] = [_mask(dataset, masks, image_id) for image_id in ids]
    rows["tested-images"] = [thumbnail(dataset.sample(image_id).image) for image_id in tested]
    masks = folders["predict"] / "predictions"
    rows["predictions"] = [_mask(dataset, masks, image_id) for image_id in tested]
    return [_write(out / f"{name}.png", pictures) for name, pictures in rows.items()]


def chosen(dataset: Dataset, split: str) -> list[str]:
    """The first images of a split that show classes which none before them shows."""
    shown: set[int] = set()
    found = []
    for image_id in dataset.ids(split):
        present = set(np.flatnonzero(dataset.image_labels(image_id)).tolist())
        if present and not present & shown and len(found) < IMAGES:
            found.append(image_id)
            shown |= present
    return found


def _map(dataset: Dataset, folder: Path, image_id: str) -> Picture:
    maps = MapStore(folder).read(image_id)
    return map_picture(dataset.sample(image_id).image, maps.class_ids.tolist(), maps.scores.numpy())


def _mask(dataset: Dataset, folder: Path, image_id: str) -> Picture:
    return mask_picture(dataset.sample(image_id).image, read_mask(folder / f"{image_id}.png"))


def _write(path: Path, pictures: list[Picture]) -> Path:
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    row = Image.fromarray(np.concatenate(parts, axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    # photographs want their many colours; the others are mostly grey, and must keep the few that mean a class
    method = Image.Quantize.MEDIANCUT if "images" in path.stem else Image.Quantize.MAXCOVERAGE
    row.quantize(COLOURS, method=method, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


if __name__ == "__main__":
    for written in draw(Path(sys.argv[1])):
        sys.stdout.write(f"{written}: {written.stat().st_size / 1e3:.0f} kB\n")
