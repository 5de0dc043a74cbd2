"""Peak memory of labelling and predicting few and many small images: it must not grow with their number.

`wsss predict` and `wsss label` (CAM of a few training steps, a dense CRF, maps, masks and a network's masks
of all images; once more with true masks, so that everything is scored) by the functions behind the commands,
on generated images, each in a process of its own. A row's baseline is the run of few images, and its `ratio`
one of memory, peak of few / peak of many: 0.91 or more is within ten percent.

    python benchmarks/memory.py [--few 200] [--many 5000] [--side 48] [--only predict|label|score]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from record import record
from wsss.data.masks_png import write_mask
from wsss.engine.label import LabelSettings, label_folder
from wsss.segmentation import SegmentationConfig, build
from wsss.segmentation.image_list import find_images
from wsss.segmentation.model import PredictionSettings, SegmentationModel
from wsss.segmentation.predict_images import predict_images

CASES = {
    "predict": "predict masks",
    "label": "label a folder",
    "score": "label a folder and score it on true masks",
}
CLASSES = ("cat", "dog", "bird")
LARGEST_GROWTH = 0.10


def write_images(folder: Path, count: int, side: int) -> None:
    """Photographs of noise with a bright or dark square, the tags that name it, and its mask."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,labels"]
    for number in range(count):
        rng = np.random.default_rng(number)
        image = rng.integers(100, 150, (side, side, 3), dtype=np.uint8)
        kind, half = number % len(CLASSES), side // 2
        top, left = rng.integers(0, half, 2)
        image[top : top + half, left : left + half] = 40 + 80 * kind
        mask = np.zeros((side, side), np.uint8)
        mask[top : top + half, left : left + half] = kind + 1
        Image.fromarray(image).save(folder / "images" / f"{number:05}.jpg")
        write_mask(folder / "masks" / f"{number:05}.png", mask)
        lines.append(f"{number:05},{CLASSES[kind]}")
    (folder / "tags.csv").write_text("\n".join(lines) + "\n")


def predict(folder: Path) -> None:
    """Masks of all images by an untrained network."""
    torch.manual_seed(0)
    config, names = SegmentationConfig(preset="scenes"), ("background", *CLASSES)
    model = SegmentationModel(build(config, names), config, names)
    images = find_images([folder / "images"], folder / "out")
    made = predict_images(model, images, folder / "out", PredictionSettings())
    assert made.new == len(images)


def label(folder: Path, *, scored: bool) -> None:
    """From tags to masks of all images, in a few training steps."""
    masks = folder / "masks" if scored else None
    label_folder(
        LabelSettings(
            folder / "images", folder / "tags.csv", folder / "out", masks=masks, method="cam", quick=True
        )
    )


def work(case: str, count: int, side: int) -> None:
    """In a process of its own: do it, and print seconds and peak memory."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_images(folder, count, side)
        start = time.perf_counter()
        if case == "predict":
            predict(folder)
        else:
            label(folder, scored=case == "score")
        seconds = time.perf_counter() - start
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak_mb": peak_kb / 1024}))


def measure(case: str, count: int, side: int) -> tuple[float, float]:
    """Seconds and peak memory in MB."""
    command = [sys.executable, __file__, "--work", case, "--many", str(count), "--side", str(side)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["peak_mb"]


def main() -> int:
    """Measure, record, and fail where memory grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--few", type=int, default=200)
    parser.add_argument("--many", type=int, default=5_000)
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--work", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.many, given.side)
        return 0
    grown = []
    for case in [given.only] if given.only else CASES:
        _, few = measure(case, given.few, given.side)
        seconds, many = measure(case, given.many, given.side)
        words = f"{CASES[case]}, {given.many:,} images of {given.side} x {given.side}"
        record("memory", words, f"{given.few:,} images", few / many, seconds, many)
        per_image = 1024 * (many - few) / (given.many - given.few)
        print(
            f"  {few:.0f} MB and {many:.0f} MB, {100 * (many / few - 1):+.1f}%, {per_image:+.1f} kB an image"
        )
        if many > few * (1 + LARGEST_GROWTH):
            grown.append(case)
    if grown:
        print(f"Memory grows by more than {LARGEST_GROWTH:.0%}: {', '.join(grown)}.")
    return len(grown)


if __name__ == "__main__":
    sys.exit(main())
