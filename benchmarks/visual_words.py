"""L1 distances of cells and visual words, forward and backward, against the naive form and torch's own.

The small case is 28 x 28 cells of 4,096 channels, as SMVWE's network gives them for 224 pixels, with 256
words and gradients to the words, as in training. The naive form holds all differences, 3.3 GB, several
times over; torch.cdist does not on a CPU, but its backward pass on an accelerator does. The large case, 56
x 56 cells (448 pixels), is without the naive form, for which one such tensor takes 13 GB. The scenes case
is one batch of the small network for generated scenes, 32 times 12 x 12 cells of 128 channels.

Each side runs in a process of its own, in turns; times are the least, memory is the whole process's peak,
torch included.

    python benchmarks/visual_words.py [--case small|large|scenes] [--repetitions 3]
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from record import record
from wsss.layers.visual_words import pairwise_l1

WORDS = 256
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Case:
    """How many cells of how many channels, and what our distances are compared with."""

    cells: int
    channels: int
    baselines: tuple[str, ...]

    @property
    def words(self) -> str:
        return f"{self.cells} cells, {self.channels} channels, {WORDS} words, gradients to the words"


CASES = {
    "small": Case(28 * 28, 4096, ("naive form", "torch.cdist")),
    "large": Case(56 * 56, 4096, ("torch.cdist",)),
    "scenes": Case(32 * 12 * 12, 128, ("naive form", "torch.cdist")),
}


def naive(features: Tensor, words: Tensor) -> Tensor:
    return (features[:, None] - words[None]).abs().sum(dim=2)


SIDES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ours": pairwise_l1,
    "naive form": naive,
    "torch.cdist": lambda features, words: torch.cdist(features, words, p=1),
}


def peak_mb() -> float:
    """Peak of this process; getrusage also counts the process that started it, so it comes second."""
    if STATUS.exists():
        found = re.search(r"VmHWM:\s*(\d+)", STATUS.read_text())
        assert found is not None
        return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_side(side: str, case: Case) -> dict[str, Any]:
    """Time of the faster of two rounds of one side in this process, and its memory."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(case.cells, case.channels, generator=generator).relu()
    words = torch.randn(WORDS, case.channels, generator=generator).requires_grad_()
    slopes = torch.randn(case.cells, WORDS, generator=generator)
    seconds = []
    for _ in range(2):  # libraries load in the first
        words.grad = None
        start = time.perf_counter()
        distances = SIDES[side](features, words)
        distances.backward(slopes)
        seconds.append(time.perf_counter() - start)
    gradient = words.grad
    assert gradient is not None
    checks = [*distances.detach()[::97, ::31].flatten().tolist(), *gradient[::31, ::97].flatten().tolist()]
    return {"seconds": min(seconds), "peak_mb": peak_mb(), "checks": checks}


def measured(side: str, name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--case", name]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def compare(name: str, repetitions: int) -> None:
    """All sides in turns; every one is recorded."""
    case = CASES[name]
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in ("ours", *case.baselines)}
    for _ in range(repetitions):
        for side, found in runs.items():
            found.append(measured(side, name))
    seconds = {side: min(run["seconds"] for run in found) for side, found in runs.items()}
    peaks = {side: max(run["peak_mb"] for run in found) for side, found in runs.items()}
    for side, found in runs.items():
        for ours, theirs in zip(runs["ours"][0]["checks"], found[0]["checks"], strict=True):
            assert abs(ours - theirs) < 1e-4 * max(1.0, abs(theirs)), f"{side} gives {theirs}, we give {ours}"
    for side in case.baselines:
        record(
            "visual_words", case.words, side, seconds[side] / seconds["ours"], seconds["ours"], peaks["ours"]
        )
        words = f"{case.words}: the baseline itself"
        record("visual_words", words, side, 1.0, seconds[side], peaks[side])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(one_side(arguments.side, CASES[arguments.case[0]])))
        return
    for name in arguments.case or list(CASES):
        compare(name, arguments.repetitions)


if __name__ == "__main__":
    main()
