"""The log of a training: one JSON line per interval, and the progress callback that every long job takes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from wsss.errors import StageError
from wsss.training.checkpoint import write_atomically

Progress: TypeAlias = Callable[[int, int, str], None]
"""`progress(done, total, note)`: called now and then by long jobs; `done` of `total` units are finished."""

Totals: TypeAlias = Mapping[str, tuple[float, int]]
"""Per loss term: sum over batches, number of batches."""


class Journal:
    """Append JSON lines to a file; a line cut short by a killed process is dropped at the next start.

    Args:
        path: the `.jsonl` file.
        last_step: lines of later steps are dropped (a resumed training writes them again); None keeps all.
    """

    def __init__(self, path: Path, *, last_step: int | None = None) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [
            line for line in read_journal(self.path) if last_step is None or line.get("step", 0) <= last_step
        ]
        write_atomically(self.path, "".join(_line(entry) for entry in kept).encode())

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line. Numbers that are not finite become null."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))


class Interval:
    """Sums of losses since the last line of the log, kept on their device until they are asked for.

    Args:
        totals: what another interval's `totals` gave, to go on from it.
        device: where the losses will be.
    """

    def __init__(self, totals: Totals | None = None, device: torch.device | str = "cpu") -> None:
        parts = totals or {}
        self._sums = {name: torch.tensor(float(value), device=device) for name, (value, _) in parts.items()}
        self._counts = {name: int(count) for name, (_, count) in parts.items()}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Count one batch with its named scalar losses."""
        for name, loss in losses.items():
            value = loss.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def totals(self) -> Totals:
        """Sum and number of batches of each loss; waits for the device."""
        if not self._sums:
            return {}
        values = torch.stack(list(self._sums.values())).tolist()
        return {name: (value, self._counts[name]) for name, value in zip(self._sums, values, strict=True)}


def means(totals: Sequence[Totals]) -> dict[str, float]:
    """Mean loss per batch over the totals of all processes."""
    names = list(dict.fromkeys(name for total in totals for name in total))
    merged = {name: [total[name] for total in totals if name in total] for name in names}
    return {name: sum(s for s, _ in parts) / sum(n for _, n in parts) for name, parts in merged.items()}


class Reporter:
    """Keeps time, and tells log, TensorBoard and caller how far a training is.

    Args:
        folder: `log.jsonl` and `tensorboard/` are written here.
        total: steps of the whole training.
        step: steps already done.
        seconds: time that they took.
        progress: the caller's callback.
        tensorboard: write TensorBoard events too.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        *,
        step: int = 0,
        seconds: float = 0.0,
        progress: Progress | None = None,
        tensorboard: bool = False,
    ) -> None:
        self._journal = Journal(folder / "log.jsonl", last_step=step)
        self._tensorboard = _open_tensorboard(folder / "tensorboard", step) if tensorboard else None
        self._progress, self._total, self._step, self._images = progress, total, step, 0
        self._before, self._start = seconds, time.monotonic()
        self._interval_start = self._start
        if progress is not None:
            progress(step, total, f"goes on after step {step}" if step else "starts")

    @property
    def seconds(self) -> float:
        """Time of the training so far, interruptions left out."""
        return self._before + time.monotonic() - self._start

    def add_images(self, count: int) -> None:
        """Count images for the speed."""
        self._images += count

    def report(self, step: int, epoch: int, rate: float, losses: Mapping[str, float]) -> None:
        """Write one line for the steps since the last one.

        Args:
            step: finished steps.
            epoch: running epoch, from 0.
            rate: learning rate of the first parameter group at the last step.
            losses: mean of each term over the interval.
        """
        now = time.monotonic()
        elapsed = max(now - self._interval_start, 1e-9)
        speed, left = self._images / elapsed, elapsed / max(1, step - self._step) * (self._total - step)
        total = sum(losses.values())
        self._journal.write(
            {
                "step": step,
                "steps": self._total,
                "epoch": epoch,
                "lr": rate,
                "loss": total,
                "losses": dict(losses),
                "images_per_second": round(speed, 2),
                "seconds": round(self.seconds, 3),
                "seconds_left": round(left, 1),
            }
        )
        if self._tensorboard is not None:
            scalars = {"loss": total, "lr": rate} | {
                f"losses/{name}": value for name, value in losses.items()
            }
            for name, value in scalars.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._progress is not None:
            self._progress(
                step, self._total, f"loss {total:.4g}, {speed:.1f} images/s, {duration(left)} left"
            )
        self._step, self._images, self._interval_start = step, 0, now

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if self._tensorboard is not None:
            self._tensorboard.close()


def _open_tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise StageError(
            "`tensorboard: true` needs the package tensorboard, which is not installed. "
            'Run `pip install "wsss[tensorboard]"`, or set `tensorboard: false`; log.jsonl holds the same.'
        ) from error
    return SummaryWriter(str(folder), purge_step=step or None)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a journal; empty where there is no file."""
    return list(_entries(Path(path)))


def duration(seconds: float) -> str:
    """Seconds for people: `48 s`, `3 min 20 s`, `2 h 05 min`.

    Example:
        >>> duration(200)
        '3 min 20 s'
    """
    whole = max(0, round(seconds)) if math.isfinite(seconds) else 0
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            yield entry


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(_finite(entry), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
