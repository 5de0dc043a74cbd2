"""Batches of epoch after epoch, and the position that a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from wsss.errors import StageError
from wsss.training.seeding import preserved_random_states
from wsss.types import Batch


class Batches(Protocol):
    """What training draws from; `wsss.data.loaders.TrainingBatches` is one."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch, the same for every epoch and process."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Batches `first_step`… of an epoch; their content depends on the epoch and their place alone."""


class Stream:
    """An endless run of batches that can start anywhere.

    Args:
        batches: what to draw from.
        epoch: epoch of the next batch, from 0.
        batch: place of the next batch in its epoch, from 0.
    """

    def __init__(self, batches: Batches, epoch: int = 0, batch: int = 0) -> None:
        if batches.steps_per_epoch < 1:
            raise StageError(
                "Training needs at least one batch an epoch; got none. Check the split's list of images, or "
                "set `batch_size` no larger than their number, or `drop_last: false`."
            )
        self.epoch, self.batch = epoch, batch
        self._batches = batches
        self._iterator: Iterator[Batch] | None = None

    def next(self) -> Batch:
        """The next batch, from the next epoch if need be."""
        if self.batch >= self._batches.steps_per_epoch:
            self.close()
            self.epoch, self.batch = self.epoch + 1, 0
        if self._iterator is None:
            # loaders may draw a seed when they start, and a resumed training starts one more of them
            with preserved_random_states():
                self._iterator = iter(self._batches.epoch(self.epoch, self.batch))
                item = next(self._iterator, None)
        else:
            item = next(self._iterator, None)
        if item is None:
            raise StageError(
                f"Epoch {self.epoch} ended after {self.batch} of {self._batches.steps_per_epoch} batches. "
                "`steps_per_epoch` of the batches must be what `epoch` yields."
            )
        self.batch += 1
        return item

    def close(self) -> None:
        """Stop the running epoch's iterator and what works for it."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()
        self._iterator = None
