"""The random walk of PSA and IRN against dense squaring, as the reference code does it, and a sparse matrix.

Dense squaring builds the N x N transition matrix in float32 and squares it eight times. Small entries turn
denormal on the way, which slows CPUs down; the second dense baseline sets entries below 1e-20 to 0 before
every squaring. "50 times faster than dense squaring" means the plain version, as the reference code has it.
On the full grid of a VOC photograph the dense version takes minutes and 0.55 GB for each matrix, so there the
baseline is the simplest sparse version: a scipy matrix multiplied 256 times.

All sides start from the same affinities of an image of random regions (down to e^-12 across their borders):
power 10, radius 5, 256 steps, two classes. Each runs in a process of its own, in turns (the plain dense
version once, for it takes minutes); memory counts from the inputs on.

    python benchmarks/random_walk.py [--case dense|photograph] [--repetitions 3] [--quick]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from record import record
from wsss.affinity.pairs import offsets, overlap
from wsss.affinity.random_walk import walk

RADIUS, POWER, DOUBLINGS, CLASSES = 5, 10.0, 8, 2
LEAST = 1e-20
SLOW = "dense squaring"


@dataclass(frozen=True)
class Case:
    """A grid, and what our walk is compared with on it."""

    size: tuple[int, int]
    baselines: tuple[str, ...]

    @property
    def words(self) -> str:
        return f"{self.size[0]} x {self.size[1]} cells, {CLASSES} classes, {2**DOUBLINGS} steps"


CASES = {
    "dense": Case((47, 62), (SLOW, "dense squaring, tiny entries zeroed")),
    "photograph": Case((94, 125), ("sparse matrix of scipy",)),
    "quick": Case((12, 15), (SLOW, "dense squaring, tiny entries zeroed", "sparse matrix of scipy")),
}


def inputs(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Scores (M, h, w) and affinities (P, h, w) of an image of twenty random regions."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: size[0], : size[1]]
    centres = rng.uniform((0, 0), size, (20, 2))
    distances = np.hypot(rows[None] - centres[:, 0, None, None], columns[None] - centres[:, 1, None, None])
    region = distances.argmin(axis=0)
    noise = 0.05 * rng.standard_normal(size)
    features = torch.from_numpy((rng.uniform(0, 12, 20)[region] + noise).astype(np.float32))
    affinities = torch.zeros(len(offsets(RADIUS)), *size)
    for plane, offset in zip(affinities, offsets(RADIUS), strict=True):
        here, there = overlap(features, offset)
        overlap(plane, offset)[0].copy_(torch.exp(-(here - there).abs()))
    return torch.from_numpy(rng.random((CLASSES, *size), dtype=np.float32)), affinities


def ours(scores: Tensor, affinities: Tensor) -> Tensor:
    return walk(scores, affinities, radius=RADIUS, affinity_power=POWER, num_doublings=DOUBLINGS)


def entries(affinities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of all pairs, one way."""
    places = torch.arange(affinities[0].numel()).view(affinities.shape[1:])
    found: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for plane, offset in zip(affinities, offsets(RADIUS), strict=True):
        here, there = overlap(places, offset)
        for kept, values in zip(found, (here, there, overlap(plane, offset)[0]), strict=True):
            kept.append(values.flatten())
    rows, columns, values = (torch.cat(kept) for kept in found)
    return rows, columns, values


def dense(scores: Tensor, affinities: Tensor, *, is_zeroed: bool) -> Tensor:
    """Square the transition matrix; optionally zero its tiny entries each time."""
    rows, columns, values = entries(affinities)
    transition = torch.eye(scores[0].numel())
    transition[rows, columns] = values
    transition[columns, rows] = values
    transition **= POWER
    transition /= transition.sum(dim=0, keepdim=True)
    for _ in range(DOUBLINGS):
        if is_zeroed:
            transition[transition < LEAST] = 0
        transition = transition @ transition
    return (scores.flatten(1) @ transition).view_as(scores)


def sparse_products(scores: Tensor, affinities: Tensor) -> Tensor:
    """Multiply by a sparse matrix, once for each step."""
    rows, columns, values = (part.numpy() for part in entries(affinities))
    number = scores[0].numel()
    one_way = sparse.csr_matrix((values**POWER, (rows, columns)), shape=(number, number))
    symmetric = (one_way + one_way.T + sparse.identity(number, dtype=np.float32)).tocsr()
    shares = 1 / np.asarray(symmetric.sum(axis=0))[0]
    transposed = (sparse.diags(shares.astype(np.float32)) @ symmetric).tocsr()
    columns_of_scores = scores.flatten(1).T.numpy().copy()
    for _ in range(2**DOUBLINGS):
        columns_of_scores = transposed @ columns_of_scores
    return torch.from_numpy(columns_of_scores.T.copy()).view_as(scores)


SIDES = {
    "ours": ours,
    SLOW: lambda scores, affinities: dense(scores, affinities, is_zeroed=False),
    "dense squaring, tiny entries zeroed": lambda scores, affinities: dense(
        scores, affinities, is_zeroed=True
    ),
    "sparse matrix of scipy": sparse_products,
}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def one_side(side: str, case: Case) -> dict[str, Any]:
    """Time and further peak memory of one side in this process, after a tiny walk to warm up."""
    SIDES[side](*inputs((6, 7)))
    scores, affinities = inputs(case.size)
    before, start = peak_mb(), time.perf_counter()
    walked = SIDES[side](scores, affinities)
    seconds = time.perf_counter() - start
    checks = walked.flatten()[:: max(1, walked.numel() // 50)].tolist()
    return {"seconds": seconds, "peak_mb": peak_mb() - before, "checks": checks}


def measured(side: str, name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--case", name]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def compare(name: str, repetitions: int) -> None:
    """All sides in turns; the median of each is recorded, unless the case is the quick one."""
    case = CASES[name]
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in ("ours", *case.baselines)}
    for number in range(repetitions):
        for side, found in runs.items():
            if number == 0 or side != SLOW:
                found.append(measured(side, name))
    seconds = {side: statistics.median(run["seconds"] for run in found) for side, found in runs.items()}
    peaks = {side: max(run["peak_mb"] for run in found) for side, found in runs.items()}
    for side, found in runs.items():
        difference = np.abs(np.array(found[0]["checks"]) - np.array(runs["ours"][0]["checks"])).max()
        assert difference < 1e-3, f"{side} differs by {difference}"
        print(f"{case.words}, {side}: {seconds[side]:.4g} s, {peaks[side]:.0f} MB beyond the inputs")
    if name == "quick":
        return
    for side in case.baselines:
        ratio = seconds[side] / seconds["ours"]
        record("random_walk", case.words, side, ratio, seconds["ours"], peaks["ours"])
        words = f"{case.words}: the baseline itself"
        record("random_walk", words, side, 1.0, seconds[side], peaks[side])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="try all sides on a small grid; record nothing")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(one_side(arguments.side, CASES[arguments.case[0]])))
        return
    names = ["quick"] if arguments.quick else arguments.case or ["dense", "photograph"]
    for name in names:
        compare(name, arguments.repetitions)


if __name__ == "__main__":
    main()
