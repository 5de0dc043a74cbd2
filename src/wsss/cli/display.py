"""What the terminal shows: progress bars, plain lines where there is no terminal, and tables."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_is_silent = os.environ.get("RANK", "0") != "0"  # one process of several speaks

console = Console(quiet=_is_silent)
error_console = Console(stderr=True)

_PLAIN_SECONDS = 10.0  # pause between plain lines


class StageDisplay:
    """Follows a run: one bar per stage on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def __enter__(self) -> StageDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def started(self, title: str) -> Callable[[int, int, str], None]:
        """Open a bar for the stage."""
        self.close()
        if _is_silent or not error_console.is_terminal:
            self._line(f"{title} …")
            return self._plain(title)
        bar = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=error_console,
            transient=True,
        )
        task = bar.add_task(title, total=None, note="")
        bar.start()
        self._bar = bar

        phase = _Phases()

        def report(done: int, total: int, note: str) -> None:
            if phase.begins(done, total):
                bar.reset(task, total=total, completed=done)
            bar.update(task, completed=done, total=total, note=note)

        return report

    def finished(self, title: str, seconds: float) -> None:
        """Close the bar and say how long it took."""
        from wsss.training.journal import duration

        self.close()
        self._line(f"{title}: done in {duration(seconds)}.")

    def skipped(self, title: str) -> None:
        """A stage that an earlier run finished."""
        self._line(f"{title}: already done.")

    def note(self, text: str) -> None:
        """One sentence."""
        self._line(text)

    def close(self) -> None:
        """Remove a bar that is still open."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _plain(self, title: str) -> Callable[[int, int, str], None]:
        from wsss.training.journal import duration  # loads PyTorch, which `wsss --help` can do without

        start = last = time.monotonic()
        first, phase = 0, _Phases()

        def report(done: int, total: int, note: str) -> None:
            nonlocal start, last, first
            now = time.monotonic()
            if phase.begins(done, total):
                is_first = phase.count == 1
                start, first = start if is_first else now, done  # a resumed stage did not do these now
            if now - last < _PLAIN_SECONDS:
                return
            last = now
            left = (now - start) / max(done - first, 1) * (total - done)
            self._line(f"{title}: {done:,} of {total:,} {note}, {duration(left)} left.".replace(" ,", ","))

        return report

    @staticmethod
    def _line(text: str) -> None:
        if not _is_silent:
            error_console.print(text, highlight=False, markup=False, soft_wrap=True)


class _Phases:
    """Tells when a stage goes over to other work: labels, training and refining are counted apart."""

    def __init__(self) -> None:
        self.count = 0
        self._total = self._done = -1

    def begins(self, done: int, total: int) -> bool:
        """Whether this report is the first of a phase: another total, or less done than before."""
        is_new = total != self._total or done < self._done
        self.count += is_new
        self._total, self._done = total, done
        return is_new


def percent(value: float | None) -> str:
    """A share as percent with one decimal; a dash where unknown."""
    return "-" if value is None else f"{100 * value:.1f}"


def write_json(text: str) -> None:
    """Machine-readable output: nothing added."""
    sys.stdout.write(text + "\n")
