"""Runs of several processes: training uses all of them, everything else only the first."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Final

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

PATIENCE: Final = timedelta(days=7)  # the others wait while the first process extracts or scores


def num_processes() -> int:
    """How many processes work on this run (set by the launcher)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this process writes files that all share."""
    return process_number() == 0


def wait_for_everyone() -> None:
    """Return when all processes have come here."""
    if num_processes() > 1:
        _state().wait_for_everyone()


def everyone_agrees(value: bool) -> bool:
    """The first process's `value`, in all processes."""
    if num_processes() == 1:
        return value
    values = [value]
    _state()
    broadcast_object_list(values, from_process=0)
    return values[0]


def _state() -> PartialState:
    """The group of processes; without `cpu`, several processes on CPUs would not see each other."""
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
