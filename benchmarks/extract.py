"""Extraction of activation maps against the straightforward version: maps per second and peak memory.

The straightforward version takes one image and one scale at a time (with its mirror image), as the reference
code does: it enlarges the maps of all classes to both sizes, adds them up, picks the classes at the end and
writes full-size float32 maps. Both start from the same decoded images, write to disk and give the same maps.
Each side runs in a process of its own, in turns.

    python benchmarks/extract.py [--case resnet50|resnet_small] [--repetitions 3] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from record import record
from wsss.activation.extract import ExtractConfig, extract, scaled_size
from wsss.activation.store import MapStore
from wsss.methods.base import Frozen
from wsss.methods.cam import Cam, CamConfig
from wsss.types import Sample

BASELINE = "one image, one scale, all classes"


@dataclass(frozen=True)
class Case:
    """What is extracted; photographs of VOC hold 1.5 of 20 classes, scenes 1.3 of 8."""

    backbone: str
    images: int
    size: tuple[int, int]
    classes: int
    output_stride: int

    @property
    def words(self) -> str:
        backbone = {"resnet50": "ResNet-50", "resnet_small": "small ResNet"}[self.backbone]
        return f"{backbone}, {self.images} images of {self.size[0]} x {self.size[1]}, {self.classes} classes"


CASES = {
    "resnet50": Case("resnet50", 8, (375, 500), 20, 16),
    "resnet_small": Case("resnet_small", 128, (96, 96), 8, 4),
}


class Photographs:
    """Random images held in memory; every second one shows two classes."""

    class_names: tuple[str, ...]

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(0)
        self.class_names = ("background", *(f"class {number}" for number in range(1, case.classes + 1)))
        self.names = tuple(f"image_{number}" for number in range(case.images))
        self.images = {n: rng.integers(0, 256, (*case.size, 3)).astype(np.uint8) for n in self.names}
        self.labels = {}
        for number, name in enumerate(self.names):
            self.labels[name] = np.zeros(case.classes, dtype=bool)
            self.labels[name][rng.choice(case.classes, 1 + number % 2, replace=False)] = True

    def image_size(self, image_id: str) -> tuple[int, int]:
        height, width = self.images[image_id].shape[:2]
        return height, width

    def image_labels(self, image_id: str) -> np.ndarray:
        return self.labels[image_id]

    def sample(self, image_id: str, *, with_mask: bool = False) -> Sample:
        return Sample(image_id, self.images[image_id], self.labels[image_id])


@torch.no_grad()
def straightforward(
    method: Cam, dataset: Photographs, folder: Path, config: ExtractConfig, device: str
) -> None:
    """The same maps, the plain way."""
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (method.mean, method.std))
    for name in dataset.names:
        image, (height, width) = dataset.images[name], dataset.image_size(name)
        low: Tensor | float = 0.0
        full: Tensor | float = 0.0
        for scale in config.scales:
            size = scaled_size((height, width), scale)
            scaled = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
            pixels = torch.from_numpy(scaled.copy()).to(device).permute(2, 0, 1).float() / 255
            pixels = (pixels - mean) / std
            cams = method.cams(torch.stack([pixels, pixels.flip(2)]))
            both = (cams[0] + cams[1].flip(2))[None].cpu()
            low = low + resized(both, ((height - 1) // 4 + 1, (width - 1) // 4 + 1))
            canvas = ((height - 1) // 16 + 1) * 16, ((width - 1) // 16 + 1) * 16
            full = full + resized(both, canvas)[:, :height, :width]
        present = torch.from_numpy(dataset.labels[name])
        keys = np.flatnonzero(dataset.labels[name])
        maps = [(m / (m.amax((1, 2), keepdim=True) + 1e-5)).numpy() for m in (low[present], full[present])]
        np.savez(folder / f"{name}.npz", keys=keys, cam=maps[0], high_res=maps[1])


def resized(cams: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(cams, size, mode="bilinear", align_corners=False)[0]


def one_side(side: str, case: Case, device: str) -> dict[str, Any]:
    """Time and peak memory of one side in this process, after one image to warm up."""
    torch.manual_seed(0)
    dataset = Photographs(case)
    config = CamConfig(
        backbone=case.backbone, backbone_weights=None, output_stride=case.output_stride, batch_norm="live"
    )
    method = Cam(config, dataset.class_names, Frozen()).to(device).eval()
    warm_up = Photographs(Case(case.backbone, 1, (64, 64), case.classes, case.output_stride))
    settings = ExtractConfig()
    with tempfile.TemporaryDirectory() as folder:
        for data, name in ((warm_up, "warm"), (dataset, "timed")):
            target = Path(folder) / name
            target.mkdir()
            before, start = peak_mb(device), time.perf_counter()
            if side == "ours":
                extract(method, data, data.names, MapStore(target), settings, device=device)
            else:
                straightforward(method, data, target, settings, device)
            if device != "cpu":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
        if side == "ours":
            checks = [MapStore(target).read(name).scores[0, 10, :10].tolist() for name in dataset.names[:2]]
        else:
            checks = [
                np.load(target / f"{n}.npz")["high_res"][0, 10, :10].tolist() for n in dataset.names[:2]
            ]
    return {"seconds": seconds, "peak_mb": peak_mb(device), "before_mb": before, "checks": checks}


def peak_mb(device: str) -> float:
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measured(side: str, name: str, device: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--case", name, "--device", device]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def compare(name: str, repetitions: int, device: str) -> None:
    """Both sides in turns; the median of each is recorded."""
    case, runs = CASES[name], {"ours": [], "straightforward": []}  # type: ignore[var-annotated]
    for _ in range(repetitions):
        for side, found in runs.items():
            found.append(measured(side, name, device))
    ours, plain = runs["ours"][0], runs["straightforward"][0]
    difference = np.abs(np.array(ours["checks"]) - np.array(plain["checks"])).max()
    assert difference < 1e-3, f"the two versions differ by {difference}"
    seconds = {side: statistics.median(run["seconds"] for run in found) for side, found in runs.items()}
    peaks = {side: max(run["peak_mb"] for run in found) for side, found in runs.items()}
    for side in runs:
        print(
            f"{side}: {case.images / seconds[side]:.2f} images/s, peak {peaks[side]:.0f} MB, "
            f"of which {runs[side][0]['before_mb']:.0f} MB before the first image"
        )
    ratio = seconds["straightforward"] / seconds["ours"]
    record("extract", case.words, BASELINE, ratio, seconds["ours"], peaks["ours"], device=device)
    words = f"{case.words}: the baseline itself"
    record(
        "extract", words, BASELINE, 1.0, seconds["straightforward"], peaks["straightforward"], device=device
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--side", choices=("ours", "straightforward"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(one_side(arguments.side, CASES[arguments.case[0]], arguments.device)))
        return
    for name in arguments.case or CASES:
        compare(name, arguments.repetitions, arguments.device)


if __name__ == "__main__":
    main()
