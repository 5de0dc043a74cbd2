"""Tables of `results/benchmarks.csv`: speed, memory that must not grow, and several processes.

A ratio means something else in each, so each has a table of its own, whose heading says what.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wsss.report.markdown_table import markdown

MEMORY: Final = "memory"
SCALING: Final = "scaling"


def speed(path: Path) -> str:
    """Speed and memory beside the simplest correct version: time of that version ÷ own time."""
    rows = [row for row in _latest(path) if row["benchmark"] not in (MEMORY, SCALING)]
    columns = ("benchmark", "case", "baseline", "ratio", "seconds", "peak_mb", "hardware")
    head = ("benchmark", "case", "against", "times faster", "seconds", "peak MB", "hardware")
    return _table(rows, columns, head, numbers_from=3)


def memory(path: Path) -> str:
    """Peaks of work on many images: that with few images ÷ that with many, 1 where nothing grows."""
    rows = [row for row in _latest(path) if row["benchmark"] == MEMORY]
    columns = ("case", "baseline", "ratio", "peak_mb", "seconds", "hardware")
    head = ("case", "against", "peak against it ÷ own peak", "peak MB", "seconds", "hardware")
    return _table(rows, columns, head, numbers_from=2)


def scaling(path: Path) -> str:
    """Training with several processes: images per second ÷ those of one process; seconds are of a step."""
    rows = [row for row in _latest(path) if row["benchmark"] == SCALING]
    columns = ("case", "baseline", "ratio", "seconds", "hardware")
    head = ("case", "against", "times the images per second", "seconds per step", "hardware")
    return _table(rows, columns, head, numbers_from=2)


def _latest(path: Path) -> list[dict[str, str]]:
    """The last row of each benchmark, case, baseline and hardware."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    keys = ("benchmark", "case", "baseline", "hardware")
    return list({tuple(row[key] for key in keys): row for row in rows}.values())


def _table(
    rows: Sequence[dict[str, str]], columns: Sequence[str], head: Sequence[str], *, numbers_from: int
) -> str:
    return markdown(head, [[row[name] for name in columns] for row in rows], numbers_from=numbers_from)
