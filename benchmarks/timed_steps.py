"""Times training steps of several cases in one process, and the peak memory of each in one of its own."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wsss.methods.base import Method
from wsss.types import Batch

Losses = Callable[[Any, Batch], Mapping[str, Tensor]]
Setup = Callable[[argparse.Namespace, torch.device], tuple[Method, Batch]]

BACKBONE = "backbone"
"""Case whose step changes no weight: the backbone's own pass."""


class Timed(NamedTuple):
    """One step: its loss, its seconds, and the seconds of all cores together."""

    loss: float
    seconds: float
    core_seconds: float


def backbone_pass(method: Any, batch: Batch) -> dict[str, Tensor]:
    """The backbone's own forward pass, with a loss that costs nothing."""
    return {"mean": method.backbone(batch.images).mean()}


def step(losses: Losses, method: Method, batch: Batch, optimizer: torch.optim.Optimizer | None) -> Timed:
    """Run one step; without an optimiser, forward and backward alone."""
    _wait(batch)
    start, cores = time.perf_counter(), time.process_time()
    total = torch.stack(list(losses(method, batch).values())).sum()
    total.backward()
    if optimizer is not None:
        optimizer.step()
    method.zero_grad()
    _wait(batch)
    return Timed(float(total.detach()), time.perf_counter() - start, time.process_time() - cores)


def best_times(
    cases: Mapping[str, Losses], method: Method, batch: Batch, repetitions: int, before: Callable[[str], None]
) -> dict[str, float]:
    """Least seconds of each case over `repetitions` rounds; `ours` and `straightforward` must agree.

    Args:
        cases: what a step computes.
        method: all cases share it; its weights don't move.
        batch: shown in every step.
        repetitions: rounds that count; one more warms up.
        before: called with the name of the case whose step comes.
    """
    optimizer = torch.optim.SGD(method.parameter_groups(0.0))  # rate 0: every step has the same loss
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    core_seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repetition in range(repetitions + 1):
        losses = {}
        for name, case in cases.items():
            before(name)
            timed = step(case, method, batch, None if name == BACKBONE else optimizer)
            losses[name] = timed.loss
            if repetition:
                seconds[name].append(timed.seconds)
                core_seconds[name].append(timed.core_seconds)
        difference = abs(losses["ours"] - losses["straightforward"])
        assert difference < 1e-4 * abs(losses["straightforward"]), losses
    for name in cases:
        times = (f"{v:.2f}" for v in seconds[name])
        print(name, "seconds", *times, "of cores", f"{min(core_seconds[name]):.2f}")
    return {name: min(values) for name, values in seconds.items()}  # other work on the machine only adds


def peak_mb(file: str, name: str, options: Sequence[str]) -> float:
    """Peak memory of a process that runs two steps of one case of a benchmark."""
    done = subprocess.run(
        [sys.executable, file, "--only", name, *options], check=True, capture_output=True, text=True
    )
    return float(json.loads(done.stdout)["peak_mb"])


def run_alone(losses: Losses, method: Method, batch: Batch) -> None:
    """Two steps, then the process's peak memory as JSON."""
    optimizer = torch.optim.SGD(method.parameter_groups(1e-6))
    for _ in range(2):
        step(losses, method, batch, optimizer)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if batch.images.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps({"peak_mb": peak}))


def _wait(batch: Batch) -> None:
    if batch.images.device.type == "cuda":
        torch.cuda.synchronize()
