"""Tables of scores, comparisons and estimates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from wsss.cli.display import console, error_console, percent
from wsss.training.journal import duration

if TYPE_CHECKING:
    from wsss.engine.compare import Comparison, Gain, Row
    from wsss.engine.estimate import Estimate
    from wsss.engine.run import RunResult

LONG_SECONDS = 120.0  # shorter runs need no estimate


def print_scores(result: RunResult) -> None:
    """One line per scored stage and background score."""
    if result.scores:
        table = Table("stage", "background score", "mIoU %", "images")
        for stage, scores in result.scores.items():
            for entry in scores["entries"]:
                table.add_row(stage, _background(entry), percent(entry["miou"]), f"{scores['images']:,}")
        console.print(table)
    console.print(f"The run is in {result.folder}.", highlight=False, soft_wrap=True)


def print_comparison(comparison: Comparison) -> None:
    """MIoU of every stage, then the gains over the first recipe."""
    shown = [row for row in comparison.rows if row.metric in ("miou", "weak_to_full")]
    table = Table("recipe", "stage", "split", "background", "measure", "value %", "seeds", title="mIoU")
    for row in sorted(shown, key=lambda row: (row.stage, row.background_score_source)):
        spread = "" if row.standard_deviation is None else f" ± {row.standard_deviation:.1f}"
        table.add_row(
            row.recipe,
            row.stage,
            row.split,
            row.background_score_source,
            "mIoU" if row.metric == "miou" else "weak / full",
            f"{row.mean:.1f}{spread}",
            _seeds(row),
        )
    console.print(table)
    if comparison.gains:
        console.print(_gain_table(comparison.gains))


def _gain_table(gains: Iterable[Gain]) -> Table:
    table = Table(
        "recipe",
        "over",
        "stage",
        "background",
        "gain",
        "by seed",
        "95% (images)",
        "counts",
        title="Gains in points of mIoU",
    )
    for gain in gains:
        error = "" if gain.standard_error is None else f" ± {gain.standard_error:.1f}"
        table.add_row(
            gain.recipe,
            gain.over,
            gain.stage,
            gain.background_score_source,
            f"{gain.mean:+.1f}{error}",
            " ".join(f"{value:+.1f}" for value in gain.by_seed.values()),
            "" if gain.interval is None else f"{gain.interval[0]:+.1f} … {gain.interval[1]:+.1f}",
            {True: "yes", False: "no", None: "one seed"}[gain.counts],
        )
    return table


def print_estimate(estimate: Estimate) -> None:
    """What a long run will take; nothing for a short one."""
    if estimate.seconds < LONG_SECONDS:
        return
    table = Table("stage", "time", "disk", title="Estimate")
    for stage in estimate.stages:
        table.add_row(escape(stage.title), duration(stage.seconds), _size(stage.disk_bytes))
    table.add_section()
    table.add_row("all", duration(estimate.seconds), _size(estimate.disk_bytes))
    error_console.print(table)
    error_console.print(
        f"Memory: about {_size(estimate.memory_bytes)}. Free disk: {_size(estimate.free_disk_bytes)}.",
        highlight=False,
    )


def _seeds(row: Row) -> str:
    return ",".join(str(seed) for seed in row.by_seed)


def _background(entry: dict[str, Any]) -> str:
    level = entry["background_score"]
    return str(entry["background_score_source"]) + ("" if level is None else f" {level:.2f}")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
