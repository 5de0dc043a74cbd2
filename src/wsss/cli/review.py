"""`wsss review`: which pseudo masks to look at first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.display import StageDisplay, console

LISTED = 5  # images named on the terminal


def add_to(app: typer.Typer) -> None:
    """Add this command to the program."""
    app.command("review")(review_runs)


def review_runs(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folder of a finished run; masks of further runs serve as second opinions."),
    ],
    top: Annotated[int, typer.Option(help="Most images on the page.", min=1)] = 100,
    out: Annotated[Path, typer.Option(help="Folder for index.html, ranking.csv and ranking.json.")] = Path(
        "review"
    ),
) -> None:
    """Rank pseudo masks by how suspicious they are, and write a page to go through them."""
    from wsss.review import review

    with StageDisplay() as display:
        found = review(runs, top=top, out=out, progress=display.started("Look at the masks"))
    for suspect in found.suspects[:LISTED]:
        words = f"{suspect.place}. {suspect.ranked.image_id}: {' '.join(suspect.reasons)}"
        console.print(words, highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{len(found.suspects):,} masks are ranked in {out / 'ranking.csv'}; the page {found.page} shows "
        f"{found.shown:,}. Open it in a browser.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
