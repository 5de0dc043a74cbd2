"""`wsss evaluate`: score a recipe, or anybody's masks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from wsss.cli.display import console, percent, write_json
from wsss.cli.options import RECIPE_HELP, RUNS, AsJson, Runs, Seed, Settings
from wsss.cli.runs import run_stage
from wsss.errors import RecipeError


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command()(evaluate)


def evaluate(
    recipe: Annotated[
        str | None, typer.Argument(help=f"{RECIPE_HELP} Or give --predictions and --masks.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Folder of predicted masks (8-bit PNG of class numbers).")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of true masks with the same names.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="classes.json or classes.yaml; none: numbers as names.")
    ] = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    settings: Settings = None,
    runs: Runs = RUNS,
) -> None:
    """Score a recipe's stages, or any folder of predicted masks against true ones."""
    if recipe is not None:
        run_stage(recipe, None, seed, settings, runs)
        return
    if predictions is None or masks is None:
        raise RecipeError(
            "`wsss evaluate` needs a recipe, or both `--predictions DIR` and `--masks DIR`. Give either."
        )
    scores = scores_of_folders(predictions, masks, classes)
    if as_json:
        write_json(json.dumps(scores, indent=1))
    else:
        _print_scores(scores)


def scores_of_folders(predictions: Path, masks: Path, classes: Path | None = None) -> dict[str, Any]:
    """Scores of a folder of predicted masks; see `wsss.activation.scoring.evaluate_folders`."""
    from wsss.activation.scoring import evaluate_folders
    from wsss.data.classes import read_classes

    names = None if classes is None else read_classes(classes).class_names
    return evaluate_folders(predictions, masks, names)


def _print_scores(scores: Mapping[str, Any]) -> None:
    entry = scores["entries"][0]
    table = Table(
        "class",
        *(f"{name} %" for name in ("IoU", "precision", "recall")),
        title=f"{scores['images']:,} masks",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name, iou in entry["iou"].items():
        table.add_row(
            name, percent(iou), percent(entry["precision"].get(name)), percent(entry["recall"].get(name))
        )
    table.add_section()
    table.add_row("mean", percent(entry["miou"]))
    console.print(table)
    for radius, found in entry["boundary"].items():
        values = ", ".join(
            f"{word} {percent(found[key])}%"
            for word, key in (("recall", "recall"), ("precision", "precision"), ("F1", "f1"))
        )
        console.print(f"Edges within {radius} of the diagonal: {values}.", highlight=False)
    if entry["missing_classes"]:
        missing = ", ".join(entry["missing_classes"])
        console.print(f"Without true pixels, so outside the mean: {missing}.", highlight=False)
