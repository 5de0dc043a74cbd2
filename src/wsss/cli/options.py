"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RECIPE_HELP = "Recipe file, or name of a shipped recipe such as scenes/clims."

Recipe = Annotated[str, typer.Argument(help=RECIPE_HELP)]
Seed = Annotated[int, typer.Option(help="Seed of the trainings.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one value, as in method.area_weight=5. May be repeated."),
]
Runs = Annotated[Path, typer.Option(help="Folder where results are kept and shared.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

RUNS = Path("runs")
