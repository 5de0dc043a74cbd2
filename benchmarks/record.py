"""Write benchmark results to results/benchmarks.csv: one row for each case and hardware.

Run a benchmark again on the same hardware and its row is replaced, so the file holds the newest numbers.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import torch

from wsss.engine.provenance import commit, hardware
from wsss.training.checkpoint import write_atomically

COLUMNS = ("benchmark", "case", "baseline", "ratio", "seconds", "peak_mb", "hardware", "commit")
KEY = ("benchmark", "case", "baseline", "hardware")
PATH = Path(__file__).resolve().parents[1] / "results" / "benchmarks.csv"


def record(
    benchmark: str,
    case: str,
    baseline: str,
    ratio: float,
    seconds: float,
    peak_mb: float | None,
    *,
    device: torch.device | str = "cpu",
    path: Path = PATH,
) -> dict[str, str]:
    """Add or replace one row, and print it.

    Args:
        benchmark: file name of the benchmark without `.py`.
        case: what was measured, in words.
        baseline: what it is compared with.
        ratio: time of the baseline / our time; of `memory` the baseline's peak / our peak; of `scaling` our
            images per second / those of the baseline.
        seconds: our time; of `scaling` the time of one step.
        peak_mb: our peak memory in MB; None where it was not measured.
        device: where it ran.
        path: the CSV file.
    """
    row = {
        "benchmark": benchmark,
        "case": case,
        "baseline": baseline,
        "ratio": f"{ratio:.2f}",
        "seconds": f"{seconds:.4g}",
        "peak_mb": "" if peak_mb is None else f"{peak_mb:.0f}",
        "hardware": hardware(torch.device(device)),
        "commit": commit(),
    }
    rows: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    places = [index for index, old in enumerate(rows) if all(old[key] == row[key] for key in KEY)]
    if places:
        rows[places[0]] = row
    else:
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue().encode())
    print(", ".join(f"{key} {value}" for key, value in row.items() if key not in ("hardware", "commit")))
    return row
