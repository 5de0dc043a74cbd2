"""`wsss paper`: a table or figure of a paper by one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from wsss.cli.display import StageDisplay, console
from wsss.cli.options import RUNS, Runs
from wsss.cli.runs import parse_seeds

if TYPE_CHECKING:
    from wsss.engine.papers import Exhibit
    from wsss.report.result_rows import Results


def add_to(app: typer.Typer) -> None:
    """Add this command to the program."""
    app.command("paper")(reproduce_paper)


def reproduce_paper(
    name: Annotated[
        str | None,
        typer.Argument(help="A table or figure such as clims-table3, or a paper such as clims; none: list."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    runs: Runs = RUNS,
    report: Annotated[Path | None, typer.Option(help="Also write the report into this folder.")] = None,
    published: Annotated[
        Path | None, typer.Option(help="Run nothing: show the numbers in this folder of results.")
    ] = None,
) -> None:
    """Run what is unfinished of a paper's table or figure and show it beside the paper's numbers."""
    if name is None:
        _list()
        return
    from wsss.engine.papers import find_exhibits, reproduce
    from wsss.report.paper_tables import published as published_numbers
    from wsss.report.paper_tables import with_points
    from wsss.report.result_rows import Results

    shown = find_exhibits(name)
    if published is not None:
        for exhibit in shown:
            _print(exhibit, published_numbers(exhibit, published))
        return
    with StageDisplay() as display:
        comparison, point_files = reproduce(shown, seeds=parse_seeds(seeds), runs=runs, progress=display)
    plain = comparison.to_dict()
    results = with_points(Results.of_comparison(plain), point_files)
    for exhibit in shown:
        _print(exhibit, results)
    if report is not None:
        from wsss.report.page import write_report

        page = write_report(
            comparison.run_folders, report, comparison=plain, exhibits=shown, point_files=point_files
        )
        console.print(f"The report is in {page}. Open it in a browser.", highlight=False, soft_wrap=True)


def _list() -> None:
    from wsss.engine.papers import exhibits

    table = Table("name", "in the paper", "what it shows", "recipes", box=None)
    for each in exhibits():
        where = f"{each.paper_title}, {each.heading}"
        table.add_row(each.name, escape(where), escape(each.title), str(len(each.recipes)))
    console.print(table)


def _print(exhibit: Exhibit, results: Results) -> None:
    from wsss.report.paper_tables import paper_table

    heading = f"{exhibit.paper_title}, {exhibit.heading}: {exhibit.title}"
    console.print(f"\n[bold]{escape(heading)}[/]", highlight=False)
    console.print(f"The paper: {exhibit.says}", highlight=False, markup=False)
    found = paper_table(exhibit, results)
    if found is None:
        console.print(f"No numbers yet. Run `wsss paper {exhibit.name}`.", highlight=False)
        return
    table = Table(*(escape(title) for title in found.head))
    for row in found.rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
    for trend in found.trends:
        console.print(f"- {trend}", highlight=False, markup=False)
