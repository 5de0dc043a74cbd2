"""Images per second when several processes train CLIMS together, against one process.

Network, teacher, losses and augmentation are those of the recipe scenes/clims. A batch has 32 images however
many processes share it, so all of them do the same work. On CPUs a process has one core, and one process is
also measured with as many cores as the others have together; on accelerators each process has a device.

    python benchmarks/scaling.py [--processes 2] [--steps 40]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from record import record
from wsss.data import ScenesConfig, open_dataset
from wsss.data.scenes import write_tree
from wsss.engine.method_work import build_method, label_batches
from wsss.engine.recipe import load_recipe
from wsss.methods.base import Frozen
from wsss.models.clip import load_teacher
from wsss.training.journal import read_journal
from wsss.training.loop import train

SCENES = {"world": 0, "train": 256, "val": 1, "size": 96}
INTERVALS = 8  # of the measured steps; the first warms up


def train_share(folder: Path, name: str, steps: int) -> None:
    """One process's part of a training; the log is left in `folder/name`."""
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    config = ScenesConfig(**SCENES)
    dataset = open_dataset(config, root=folder / "tree")
    recipe = load_recipe("scenes/clims")
    assert recipe.method is not None
    assert recipe.training is not None
    every = max(1, steps // INTERVALS)
    changes = {"epochs": None, "steps": steps, "log_every": every, "checkpoint_seconds": 1e9}
    training = recipe.training.model_copy(update=changes)
    method = build_method(recipe.method, dataset, Frozen(teacher=load_teacher("embedded")), seed=0)
    batches = label_batches(dataset, recipe, training, 0, method.mean, method.std)
    train(method, batches, training, work_dir=folder / name, seed=0)


def images_per_second(folder: Path, processes: int, cores: int | None, steps: int) -> float:
    """Median speed of so many processes, of `cores` cores each where they compute on a CPU."""
    name = f"{processes}-{cores}"
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    worker = [__file__, "--worker", str(folder), name, "--steps", str(steps)]
    limit = {} if cores is None else {"OMP_NUM_THREADS": str(cores)}
    subprocess.run([sys.executable, *launch, *worker], env={**os.environ, **limit}, check=True)
    speeds = [line["images_per_second"] for line in read_journal(folder / name / "log.jsonl")]
    print(f"{processes} x {cores or 'device'}: images/s", *speeds)
    return statistics.median(speeds[1:] or speeds)


def main(arguments: argparse.Namespace) -> None:
    count = arguments.processes
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    unit = "device" if device else "core"
    cases: list[tuple[int, int | None]] = (
        [(1, None), (count, None)] if device else [(1, 1), (1, count), (count, 1)]
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_tree(folder / "tree", **SCENES)
        speeds = [images_per_second(folder, *case, arguments.steps) for case in cases]
    batch = 32
    for (processes, cores), speed in zip(cases, speeds, strict=True):
        case = f"CLIMS on scenes at 96 px, batch {batch}, {processes} process(es) of {cores or 1} {unit}(s)"
        ratio = speed / speeds[0]
        record("scaling", case, f"1 process of 1 {unit}", ratio, batch / speed, None, device=device or "cpu")
        print(f"efficiency {ratio / (processes * (cores or 1)):.0%}, {speed:.1f} images/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "NAME"), help="take part in one training")
    chosen = parser.parse_args()
    if chosen.worker:
        train_share(Path(chosen.worker[0]), chosen.worker[1], chosen.steps)
    else:
        main(chosen)
