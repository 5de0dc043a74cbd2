"""Publish numbers: rows of `results/<data set>.csv`, made from run folders only."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wsss.engine.measurements import FinishedRun, Measurement, finished_run, with_weak_to_full
from wsss.engine.passport import passport_of
from wsss.engine.protocol import check_same_data
from wsss.errors import DataError
from wsss.training.checkpoint import write_atomically

COLUMNS: Final = (
    "recipe",
    "method",
    "stage",
    "split",
    "metric",
    "seed",
    "value",
    "background_score_source",
    "supervision",
    "crf",
    "scales",
    "flip",
    "weights_sha256",
    "data_version",
    "run",
    "commit",
    "hardware",
    "minutes",
    "paper_value",
)
_KEY: Final = ("recipe", "stage", "split", "metric", "seed", "background_score_source")


def publish(runs: Sequence[Path | str], results_folder: Path | str) -> tuple[Path, ...]:
    """Write the runs' numbers into `results_folder`, one file per data set.

    All older rows of the same recipe and seed are replaced; those of others stay. Rows are sorted.

    Args:
        runs: folders of finished runs.
        results_folder: made if missing.

    Returns:
        The files written.

    Raises:
        StageError: a folder holds no finished run.
        RecipeError: the runs are of different data or splits, or runs of one recipe have different settings.
        DataError: an existing file has other columns, or holds rows of the same recipe with other data.
    """
    by_data: dict[str, list[FinishedRun]] = {}
    for item in with_weak_to_full([finished_run(folder) for folder in runs]):
        by_data.setdefault(str(item.record["data"]["name"]), []).append(item)
    return tuple(_write(group, Path(results_folder) / f"{name}.csv") for name, group in by_data.items())


def rows_of(run: FinishedRun) -> list[dict[str, str]]:
    """The run's rows, all values as text."""
    return [_row(run, measurement) for measurement in run.measurements]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a results file; empty where there is none.

    Raises:
        DataError: its columns are not ours.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError(
                f"{path} must have the columns {', '.join(COLUMNS)}; got {reader.fieldnames}. Move it away."
            )
        return list(reader)


def _write(runs: Sequence[FinishedRun], path: Path) -> Path:
    check_same_data(runs)
    republished = {(item.recipe_name, str(item.seed)) for item in runs}
    kept = [row for row in read_rows(path) if (row["recipe"], row["seed"]) not in republished]
    _check_same_data(kept, runs, path)
    rows = {_key(row): row for row in kept}
    for item in runs:
        rows.update({_key(row): row for row in rows_of(item)})
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[key] for key in sorted(rows))
    write_atomically(path, text.getvalue().encode())
    return path


def _check_same_data(kept: Sequence[Mapping[str, str]], runs: Sequence[FinishedRun], path: Path) -> None:
    """Other seeds of a published recipe must be of the same data."""
    versions = {item.recipe_name: str(item.record["data"]["data_version"]) for item in runs}
    for row in kept:
        version = versions.get(row["recipe"], row["data_version"])
        if row["data_version"] != version:
            raise DataError(
                f"{path} holds seed {row['seed']} of {row['recipe']} with other data "
                f"({row['data_version']}, now {version}). Publish all its seeds together, or delete its rows."
            )


def _key(row: Mapping[str, str]) -> tuple[Any, ...]:
    return tuple(int(row[name]) if name == "seed" else row[name] for name in _KEY)


def _row(run: FinishedRun, m: Measurement) -> dict[str, str]:
    passport = passport_of(run, m)
    paper_values = run.record["recipe"]["about"]["paper_values"]
    paper_value = paper_values.get(f"{m.stage}.{m.background_score_source}.{m.metric}")
    values = {
        "recipe": passport.recipe,
        "method": passport.method,
        "stage": passport.stage,
        "split": passport.split,
        "metric": m.metric,
        "seed": passport.seed,
        "value": f"{m.value:.2f}",
        "background_score_source": passport.background_score_source,
        "supervision": passport.supervision,
        "crf": "yes" if passport.crf or passport.test_crf else "no",
        "scales": " ".join(f"{scale:g}" for scale in passport.scales),
        "flip": "yes" if passport.flip else "no",
        "weights_sha256": " ".join(f"{role}:{digest[:16]}" for role, digest in passport.weights.items()),
        "data_version": passport.data_version,
        "run": passport.run,
        "commit": passport.commit,
        "hardware": passport.hardware,
        "minutes": f"{passport.minutes:.1f}",
        "paper_value": "" if paper_value is None else f"{paper_value:g}",
    }
    return {name: str(value) for name, value in values.items()}
