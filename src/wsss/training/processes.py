"""Runs of several processes: training and work on images use all of them, everything else only the first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from wsss.errors import StageError

PATIENCE: Final = timedelta(days=7)  # the others wait while the first process prepares or scores

Item = TypeVar("Item")


class OtherProcessError(StageError):
    """Another process of the run has failed and told why, so this one stops too."""


def num_processes() -> int:
    """How many processes work on this run (set by the launcher)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this process writes files that all share."""
    return process_number() == 0


def own_share(items: Sequence[Item]) -> Sequence[Item]:
    """What this process works on: of N processes number i takes items i, i + N, i + 2 N, ….

    Each item belongs to one process; without a launcher all are this one's.
    """
    return items[process_number() :: num_processes()]


def wait_for_everyone() -> None:
    """Return when all processes have come here.

    Raises:
        OtherProcessError: one of them has ended.
    """
    if num_processes() > 1:
        with connected():
            _state().wait_for_everyone()


def everyone_agrees(value: bool) -> bool:
    """The first process's `value`, in all processes."""
    if num_processes() == 1:
        return value
    values = [value]
    with connected():
        _state()
        broadcast_object_list(values, from_process=0)
    return values[0]


def gathered(value: Item) -> list[Item]:
    """The values of all processes, in their order, in each of them; returns when all have come here.

    Raises:
        OtherProcessError: one of them has ended.
    """
    if num_processes() == 1:
        return [value]
    with connected():
        _state()
        values: list[Item] = gather_object([value])
    return values


@contextmanager
def connected() -> Iterator[None]:
    """Say in plain words where the connection to another process breaks within the block.

    A process that fails tells why and ends. The others wait for it at that moment, and all they learn is that
    the connection was closed.

    Raises:
        OtherProcessError: in place of the connection's own error.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise OtherProcessError(
            f"Another process of this run has ended early, so process {process_number()} of "
            f"{num_processes()} stops too. Read the message of that process, mend what it names, and run the "
            "same command again."
        ) from error


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether gloo or NCCL complain; gloo's errors have no class of their own."""
    if num_processes() == 1:
        return False
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _state() -> PartialState:
    """The group of processes; without `cpu`, several processes on CPUs would not see each other."""
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
