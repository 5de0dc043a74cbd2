"""Tables of scores, comparisons and estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
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
    from wsss.engine.scoring import scored_words

    if result.scores:
        table = Table("stage", "background score", "mIoU %", "images")
        for stage, scores in result.scores.items():
            for entry in scores["entries"]:
                cells = (scored_words(stage), _background(entry), percent(entry["miou"]))
                table.add_row(*cells, f"{scores['images']:,}")
        console.print(table)
    console.print(f"The run is in {result.folder}.", highlight=False, soft_wrap=True)


def print_comparison(comparison: Comparison) -> None:
    """MIoU of every recipe by stage and background score, then the gains over the first recipe."""
    from wsss.engine.passport import by_supervision

    shown = [row for row in comparison.rows if row.metric in ("miou", "weak_to_full")]
    columns = list(dict.fromkeys(_column(row) for row in sorted(shown, key=_place)))
    table = Table("recipe", "seeds", *columns, title="mIoU in %, mean ± standard deviation over seeds")
    groups = by_supervision(row.supervision for row in shown)
    if len(groups) > 1:
        table.caption = "learned from " + "; ".join(f"{short}: {words}" for short, words in groups)
    for supervision, _ in groups:
        if len(groups) > 1:
            table.add_section()
            table.add_row(f"[bold]{supervision}[/bold]")
        for recipe in dict.fromkeys(row.recipe for row in shown if row.supervision == supervision):
            own = [row for row in shown if row.recipe == recipe]
            cells = {_column(row): _cell(row) for row in own}
            table.add_row(_short(recipe), _seeds(own[0]), *(cells.get(column, "") for column in columns))
    print_mixing(comparison.mixed, console)
    console.print(table)
    if comparison.gains:
        console.print(_gain_table(comparison.gains))


def print_mixing(mixed: Sequence[str], where: Console) -> None:
    """Say loudly that numbers mean different things, and why; nothing where all were measured alike."""
    if not mixed:
        return
    where.print("[bold red]These runs were not measured alike, so their numbers mean different things:[/]")
    for difference in mixed:
        where.print(f"  {escape(difference)}", highlight=False, soft_wrap=True)


STAGE_ORDER = ("maps", "refined", "pseudo_masks", "segmentation")


def _place(row: Row) -> tuple[int, str, str]:
    """Stages in the order of a run; the ratio to full supervision last."""
    stage = next((i for i, name in enumerate(STAGE_ORDER) if row.stage.startswith(name)), 0)
    return (stage + (row.metric != "miou"), row.stage, row.background_score_source)


def _column(row: Row) -> str:
    from wsss.engine.scoring import scored_words

    if row.metric != "miou":
        return "weak / full"
    source = f"\n{row.background_score_source}" if row.stage.startswith(("maps", "refined")) else ""
    return f"{scored_words(row.stage)}{source}"


def _cell(row: Row) -> str:
    spread = "" if row.standard_deviation is None else f" ± {row.standard_deviation:.1f}"
    return f"{row.mean:.1f}{spread}"


def _short(recipe: str) -> str:
    """A recipe's name without its folder: the data of compared recipes are the same."""
    return recipe.rpartition("/")[2]


def _gain_table(gains: Sequence[Gain]) -> Table:
    from wsss.engine.scoring import scored_words

    table = Table(
        "recipe",
        "stage",
        "background",
        "gain",
        "by seed",
        "95% (images)",
        "counts",
        title=f"Gains over {_short(gains[0].over)} in points of mIoU",
    )
    for gain in gains:
        error = "" if gain.standard_error is None else f" ± {gain.standard_error:.1f}"
        table.add_row(
            _short(gain.recipe),
            scored_words(gain.stage),
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
