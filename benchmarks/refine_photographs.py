"""Quality of the dense CRF on real photographs: degraded true masks before and after it.

Each class of a true mask is eroded, blurred, reduced to a grid of 16 pixels, disturbed by smooth noise and
enlarged again: maps as blurred and incomplete as class activation maps, at a known distance from the truth.
Three strengths are shown, since how good the seeds are decides what refinement can add; nothing is tuned.
Writes results/refine_photographs.csv.

    python benchmarks/refine_photographs.py PHOTOGRAPHS     (a VOC tree with masks such as MSRC v2)
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_erosion, gaussian_filter

from wsss.activation.refine import refine_images
from wsss.activation.scoring import score_maps
from wsss.activation.store import MapStore
from wsss.data import FolderConfig, open_dataset
from wsss.data.dataset import Dataset, WithoutMasks
from wsss.engine.provenance import commit, hardware
from wsss.refiners.base import find_refiner
from wsss.training.checkpoint import write_atomically
from wsss.training.seeding import derived_seed
from wsss.types import IGNORE, ActivationMaps

STRIDE = 16
STRENGTHS = {"mild": (5, 8.0, 0.15), "medium": (10, 12.0, 0.25), "strong": (15, 16.0, 0.35)}
"""Erosion in pixels, standard deviation of the blur in pixels, and of the noise as a share of the peak."""
BACKGROUND_SCORE = 0.30  # IRN's confident foreground; the score of every "fixed" number here
COLUMNS = (
    "data", "images", "seed", "degradation", "refiner", "preset", "background_score_source", "miou_before",
    "miou_after",
    "ms_per_image", "hardware", "commit",
)  # fmt: skip
PATH = Path(__file__).resolve().parents[1] / "results" / "refine_photographs.csv"
REFINERS = {
    "irn": {"background_score": BACKGROUND_SCORE},
    "psa": {},
    "clip_es": {},
    "vwl": {"background_score": BACKGROUND_SCORE},
}


def degraded(mask: np.ndarray, strength: str, rng: np.random.Generator) -> ActivationMaps:
    """Maps like those of a classifier, from a true mask."""
    erosion, blur, share = STRENGTHS[strength]
    height, width = mask.shape
    ids = [int(value) for value in np.unique(mask) if 0 < value < IGNORE]
    grid = -(-height // STRIDE), -(-width // STRIDE)
    planes = []
    for class_id in ids:
        own = mask == class_id
        core = binary_erosion(own, iterations=erosion)
        soft = gaussian_filter((core if core.any() else own).astype(np.float32), blur)
        small = F.interpolate(torch.from_numpy(soft)[None, None], size=grid, mode="area")[0, 0]
        noise = gaussian_filter(rng.normal(size=grid), 1.0)
        small = (small / small.max() + share * torch.from_numpy(noise / (noise.std() + 1e-6))).clamp(0, 1)
        planes.append(small.float())
    scores = torch.stack(planes) if planes else torch.zeros(0, *grid)
    peaks = scores.flatten(1).amax(1) if ids else torch.zeros(0)
    scores = scores / (peaks + 1e-5)[:, None, None]
    return ActivationMaps(torch.tensor(ids, dtype=torch.int64), scores).resized(height, width)


def miou(store: MapStore, dataset: Dataset, ids: tuple[str, ...]) -> dict[str, float]:
    found = score_maps(store, dataset, ids, fixed=BACKGROUND_SCORE)["entries"]
    return {entry["background_score_source"]: 100 * entry["miou"] for entry in found}


def compare(dataset: Dataset, ids: tuple[str, ...], strength: str, seed: int) -> list[tuple[object, ...]]:
    """Refine maps of one strength of degradation with every preset; rows of the results file."""
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        given = MapStore(Path(folder) / "given")
        for image_id in ids:
            mask = dataset.sample(image_id, with_mask=True).mask
            assert mask is not None
            rng = np.random.default_rng(derived_seed(seed, "degraded", image_id))
            maps = degraded(mask, strength, rng)
            given.write(image_id, maps, image_size=(mask.shape[0], mask.shape[1]))
        before = miou(given, dataset, ids)
        print({"degradation": strength, "before": before})
        for preset, values in REFINERS.items():
            cls = find_refiner("dense_crf")
            refiner = cls(cls.Config.model_validate({**cls.presets[preset], **values}), dataset.class_names)
            store, start = MapStore(Path(folder) / preset), time.perf_counter()
            refine_images(refiner, WithoutMasks(dataset), ids, given, store)
            seconds = time.perf_counter() - start
            after = miou(store, dataset, ids)["none"]
            print({"preset": preset, "after": round(after, 2), "seconds": round(seconds, 1)})
            where = hardware(torch.device("cpu")), commit()
            what = dataset.name, len(ids), seed, strength, "dense_crf", preset
            rows += [
                (*what, source, f"{value:.2f}", f"{after:.2f}", f"{1e3 * seconds / len(ids):.0f}", *where)
                for source, value in before.items()
            ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", type=Path, nargs="?", help="a VOC tree with masks and a tags file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, help="only so many")
    parser.add_argument("--no-record", action="store_true", help="only print")
    arguments = parser.parse_args()
    if arguments.photographs is None:
        print("skipped: name the folder of the photographs, which are not part of the repository")
        return
    config = FolderConfig(
        root=arguments.photographs,
        name=arguments.photographs.name,
        images="JPEGImages",
        tags="image_labels.csv",
        masks="SegmentationClass",
        classes="classes.json",
        splits="ImageSets/Segmentation",
    )
    dataset = open_dataset(config)
    ids = (*dataset.ids("train"), *dataset.ids("val"))[: arguments.images]
    rows = []
    for strength in STRENGTHS:
        rows += compare(dataset, ids, strength, arguments.seed)
    if not arguments.no_record:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])
        write_atomically(PATH, text.getvalue().encode())


if __name__ == "__main__":
    main()
