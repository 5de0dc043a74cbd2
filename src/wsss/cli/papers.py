"""`wsss paper`: a table or figure of a paper by one command."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Group
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from wsss.cli.display import StageDisplay, console
from wsss.cli.options import RUNS, Runs
from wsss.cli.runs import parse_seeds

if TYPE_CHECKING:
    from wsss.engine.papers import Exhibit
    from wsss.report.paper_tables import PaperTable
    from wsss.report.result_rows import Results

UNBROKEN: Final = 10_000  # characters of a line that holds everything
CELL_WIDTHS: Final = (UNBROKEN, 24, 16)  # what is tried until a table fits the terminal
NONE: Final = "–"  # as in `wsss.report.paper_tables`, which takes long to load


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
    console.print(_fitting(found, exhibit.where))
    for trend in found.trends:
        console.print(f"- {trend}", highlight=False, markup=False)


def _fitting(found: PaperTable, where: str) -> Table | Group:
    """The table as wide as the terminal allows, broken between words only; else its rows in blocks."""
    for width in CELL_WIDTHS:
        table = _table(found, width)
        if (
            Measurement.get(console, console.options.update(max_width=UNBROKEN), table).maximum
            <= console.width
        ):
            return table
    return _blocks(found, where)


def _table(found: PaperTable, width: int) -> Table:
    """The table with cells of at most `width` characters, and headings hardly wider than the cells below."""
    table = Table()
    for head, *cells in zip(found.head, *found.rows, strict=True):
        lines = [line for cell in cells for line in _broken(cell, width).splitlines()]
        room = UNBROKEN if width == UNBROKEN else max(map(len, lines), default=1)
        table.add_column(escape(_broken(head, room)), no_wrap=True)
    for row in found.rows:
        table.add_row(*(escape(_broken(cell, width)) for cell in row))
    return table


def _blocks(found: PaperTable, where: str) -> Group:
    """Row below row: its label, then a line for each number, with the paper's behind it."""
    lines: list[Text | Padding] = []
    for row in found.rows:
        lines.append(Text(f"{found.head[0]} {row[0]}".strip(), style="bold"))
        for place in range(1, len(row)):
            paper = row[found.papers[place]] if place in found.papers else NONE
            if place not in found.papers.values() and (row[place], paper) != (NONE, NONE):
                said = "" if paper == NONE else f"; paper: {paper}"
                number = Text(f"{found.head[place]}: {row[place]}{said}")
                lines.append(Padding(number, (0, 0, 0, 2), expand=False))
    if found.papers:
        lines.append(Text(f"Numbers of the paper: {where}."))
    return Group(*lines)


def _broken(text: str, width: int) -> str:
    """`text` in lines of at most `width` characters, or of one longer word."""
    return "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)) or text
