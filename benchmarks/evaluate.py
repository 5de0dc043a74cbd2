"""All background scores of maps in one pass, against one evaluation for each score.

The maps are of the size of VOC's photographs, 375 x 500 pixels, with one to three of 20 classes present; 60
background scores are tried. Ours counts a histogram of each image and reads the confusion at every score off
it. The plain baseline makes the mask and counts its pixels once for each score; the second baseline finds the
best class of each pixel only once, and counts once for each score all the same. All start from maps and masks
in memory, use one thread, and must give the same confusions. Time is the process's own, so work beside it
hardly counts; rounds take turns and the least time of each side is taken.

A case of its own is the whole scoring of a folder of maps, at 100 scores and ten powers, with edges at two of
them. It reads compressed maps of four scales, and masks, twice; its baseline once for each of the 100 scores,
without powers and edges, of a third of the images.

    python benchmarks/evaluate.py [--images 12] [--repetitions 3] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image as Picture

from record import record
from wsss.activation.scoring import score_maps
from wsss.activation.store import MapStore
from wsss.data.dataset import Dataset
from wsss.data.folder import FolderConfig, open_folder
from wsss.data.masks_png import write_mask
from wsss.metrics.confusion import Confusion, Counts, count_pixels
from wsss.metrics.curves import THRESHOLDS, ScoreCurve, count_levels
from wsss.types import IGNORE, ActivationMaps

SIZE = (375, 500)
CLASSES = 21
MAP_SCALES = (1.0, 0.5, 1.5, 2.0)
SCORES = tuple(step / 60 for step in range(60))
WORDS = f"{SIZE[0]} x {SIZE[1]}, {CLASSES} classes, {len(SCORES)} background scores"

Image = tuple[ActivationMaps, npt.NDArray[np.uint8]]
"""Maps, and the true mask."""


def made_up(count: int) -> list[Image]:
    """Discs of one to three classes within a band of 255, and smooth maps that find most of them."""
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    images = []
    for number in range(count):
        present = np.sort(rng.choice(np.arange(1, CLASSES), 1 + number % 3, replace=False))
        mask, scores = np.zeros(SIZE, dtype=np.uint8), []
        for class_id in present:
            distance = np.hypot(rows - rng.uniform(60, 315), columns - rng.uniform(60, 440))
            radius = rng.uniform(40, 110)
            mask[distance < radius + 4] = IGNORE
            mask[distance < radius] = class_id
            noise = torch.rand(1, 1, 24, 32, generator=generator)
            noise = F.interpolate(noise, size=SIZE, mode="bilinear", align_corners=False)[0, 0]
            near = torch.from_numpy(1 / (1 + np.exp((distance - radius) / 30)))
            scores.append(0.3 * noise + 0.7 * near)
        maps = ActivationMaps(torch.from_numpy(present), torch.stack(scores).float())
        images.append((maps, mask))
    return images


def ours(images: Sequence[Image]) -> list[Counts]:
    """One histogram of each image."""
    curve = ScoreCurve(CLASSES, SCORES)
    for maps, mask in images:
        curve.add(count_levels(mask, mask != IGNORE, maps, num_labels=CLASSES, thresholds=SCORES))
    curve.miou()
    return [curve.confusion(index).counts for index in range(len(SCORES))]


def one_pass_per_score(images: Sequence[Image]) -> list[Counts]:
    """A mask and its pixels, for each score anew."""
    found = [Confusion.empty(CLASSES) for _ in SCORES]
    for confusion, score in zip(found, SCORES, strict=True):
        for maps, mask in images:
            confusion.add(mask, maps.to_mask(score).numpy())
        confusion.miou()
    return [confusion.counts for confusion in found]


def best_class_once(images: Sequence[Image]) -> list[Counts]:
    """The best class of each pixel once; a mask and its pixels for each score."""
    found = [Confusion.empty(CLASSES) for _ in SCORES]
    for maps, mask in images:
        top, rows = maps.scores.max(dim=0)
        best, winner = top.numpy(), maps.class_ids[rows].to(torch.uint8).numpy()
        for confusion, score in zip(found, SCORES, strict=True):
            predicted = np.where(best > np.float32(score), winner, np.uint8(0))
            confusion.counts += count_pixels(mask, predicted, CLASSES)
    for confusion in found:
        confusion.miou()
    return [confusion.counts for confusion in found]


BASELINES: dict[str, Callable[[Sequence[Image]], list[Counts]]] = {
    "one pass per score": one_pass_per_score,
    "best class found once, one count per score": best_class_once,
}


def seconds_of(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def in_memory(images: Sequence[Image], repetitions: int, *, is_recorded: bool) -> None:
    """All sides in turns; seconds are those of one image."""
    sides = {"ours": ours, **BASELINES}
    expected = sides["ours"](images)
    for side, work in BASELINES.items():
        for own, other in zip(expected, work(images), strict=True):
            assert np.array_equal(own, other), f"{side} counts otherwise"
    least = dict.fromkeys(sides, float("inf"))
    for _ in range(repetitions):
        for side, work in sides.items():
            least[side] = min(least[side], seconds_of(lambda work=work: work(images)) / len(images))
    for side, seconds in least.items():
        ratio = seconds / least["ours"]
        print(f"{WORDS}, {side}: {1 / seconds:.1f} images/s on one core, {ratio:.1f} times our time")
        if is_recorded and side != "ours":
            record("evaluate", f"{WORDS}, one image", side, ratio, least["ours"], None)


def whole_scoring(images: Sequence[Image], *, is_recorded: bool) -> None:
    """`score_maps` on files, as a run does it."""
    with tempfile.TemporaryDirectory() as place:
        dataset, store = written(Path(place), images)
        ids = dataset.ids("train")
        seconds = min(seconds_of(lambda: score_maps(store, dataset, ids)) for _ in range(2)) / len(ids)
        few = ids[::3]
        baseline = seconds_of(lambda: one_reading_per_score(store, dataset, few)) / len(few)
    words = f"{SIZE[0]} x {SIZE[1]}, {CLASSES} classes, maps on disk, all of score_maps, one image"
    ratio, name = baseline / seconds, "one reading of the maps per score"
    print(f"{words}: {1 / seconds:.1f} images/s on one core; {name} takes {ratio:.1f} times our time")
    if is_recorded:
        record("evaluate", words, name, ratio, seconds, None)


def one_reading_per_score(store: MapStore, dataset: Dataset, ids: Sequence[str]) -> None:
    """What `score_maps` does without the histogram: everything anew at each score."""
    for score in THRESHOLDS:
        confusion = Confusion.empty(CLASSES)
        for image_id in ids:
            mask = dataset.sample(image_id, with_mask=True).mask
            assert mask is not None
            confusion.add(mask, store.read(image_id).to_mask(score).numpy())
        confusion.miou()


def written(place: Path, images: Sequence[Image]) -> tuple[Dataset, MapStore]:
    """A folder data set of black images with true masks, and a store of their maps at four scales."""
    store, lines = MapStore(place / "maps"), ["image,labels"]
    for folder in ("images", "masks"):
        (place / folder).mkdir()
    for number, (maps, mask) in enumerate(images):
        name = f"image_{number}"
        Picture.new("RGB", SIZE[::-1]).save(place / "images" / f"{name}.png")
        write_mask(place / "masks" / f"{name}.png", mask)
        lines.append(f"{name}.png,{'|'.join(str(class_id) for class_id in maps.class_ids.tolist())}")
        grids = [(round(scale * SIZE[0] / 16), round(scale * SIZE[1] / 16)) for scale in MAP_SCALES]
        per_scale = [maps.resized(*grid).scores for grid in grids]
        store.write(name, maps.reduced(4), image_size=SIZE, per_scale=per_scale)
    (place / "tags.csv").write_text("\n".join(lines) + "\n")
    config = FolderConfig(
        root=place,
        images=Path("images"),
        masks=Path("masks"),
        class_names=tuple(str(c) for c in range(1, CLASSES)),
    )
    return open_folder(config), store


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="three images, one round; record nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = made_up(3 if arguments.quick else arguments.images)
    in_memory(images, 1 if arguments.quick else arguments.repetitions, is_recorded=not arguments.quick)
    whole_scoring(images, is_recorded=not arguments.quick)


if __name__ == "__main__":
    main()
