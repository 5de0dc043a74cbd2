"""`wsss run` and what belongs to it: single stages, compare, report, demo."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsss.cli.display import StageDisplay, console, error_console, write_json
from wsss.cli.options import RUNS, AsJson, Recipe, Runs, Seed, Settings
from wsss.errors import RecipeError

if TYPE_CHECKING:
    from wsss.engine.run import RunResult

STAGES = {
    "train-method": "Train a recipe's method (and what it starts from).",
    "activate": "Write activation maps and score them.",
    "refine": "Refine the activation maps and score them.",
    "pseudo-masks": "Write pseudo masks and score them.",
    "train-segmentation": "Train the segmentation network.",
}


MixProtocols = Annotated[
    bool,
    typer.Option(
        "--mix-protocols", help="Put runs side by side that were not measured alike, and say how they differ."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("run")(run_recipe)
    for name, text in STAGES.items():
        app.command(name, help=text)(_stage_command(name))
    app.command("compare")(compare_recipes)
    app.command("report")(report_runs)
    app.command("demo")(demo)


def run_recipe(
    recipe: Recipe,
    seed: Seed = 0,
    settings: Settings = None,
    runs: Runs = RUNS,
    method: Annotated[
        str | None, typer.Option(help="Another method: a name, or the path of a Python file.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Last stage to run.")] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(help="Masks corrected by hand: folder of `<image id>.png`, or a COCO JSON file."),
    ] = None,
    estimate: Annotated[bool, typer.Option(help="Estimate time, memory and disk before a long run.")] = True,
) -> None:
    """Run a recipe: all stages that are not finished."""
    overrides = [*(settings or ()), *([f"method.name={method}"] if method else ())]
    if corrections is not None:
        overrides.append(f"corrections.folder={json.dumps(str(corrections))}")  # quoted: it is read as YAML
    run_stage(recipe, until, seed, overrides, runs, with_estimate=estimate)


def run_stage(
    recipe: str,
    until: str | None,
    seed: int,
    settings: Sequence[str] | None,
    runs: Path,
    *,
    with_estimate: bool = False,
) -> RunResult:
    """Run a recipe up to a stage, showing progress and scores."""
    from wsss.cli.tables import print_estimate, print_scores
    from wsss.engine.estimate import estimate as estimate_run
    from wsss.engine.recipe import load_recipe
    from wsss.engine.run import run

    loaded = load_recipe(recipe, settings or ())
    if with_estimate:
        print_estimate(estimate_run(loaded, seed=seed, runs=runs, until=until))
    with StageDisplay() as display:
        result = run(loaded, seed=seed, runs=runs, until=until, progress=display)
    print_scores(result)
    return result


def _stage_command(name: str) -> Callable[..., None]:
    def command(recipe: Recipe, seed: Seed = 0, settings: Settings = None, runs: Runs = RUNS) -> None:
        run_stage(recipe, name, seed, settings, runs)

    return command


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from `0,1,2`.

    Raises:
        RecipeError: not a list of numbers.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise RecipeError(
            f"`--seeds` takes numbers separated by commas; got {text!r}. Write for example `--seeds 0,1,2`."
        )
    return tuple(int(part) for part in parts)


def compare_recipes(
    recipes_or_runs: Annotated[
        list[str], typer.Argument(help="Recipes and run folders; the first is the baseline.")
    ],
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    settings: Settings = None,
    runs: Runs = RUNS,
    as_json: AsJson = False,
    report: Annotated[
        Path | None, typer.Option(help="Also write the report of all these runs into this folder.")
    ] = None,
    mix_protocols: MixProtocols = False,
) -> None:
    """Run what is unfinished and compare: mean, spread and gains over the first."""
    from wsss.cli.tables import print_comparison, print_mixing
    from wsss.engine.compare import compare

    chosen = parse_seeds(seeds)
    with StageDisplay() as display:
        comparison = compare(
            recipes_or_runs,
            seeds=chosen,
            runs=runs,
            overrides=settings or (),
            mix_protocols=mix_protocols,
            progress=display,
        )
    if as_json:
        print_mixing(comparison.mixed, error_console)
        write_json(json.dumps(comparison.to_dict(), indent=1))
    else:
        print_comparison(comparison)
    if report is not None:
        from wsss.report.page import write_report

        _say_where(write_report(comparison.run_folders, report, comparison=comparison.to_dict()))


def report_runs(
    run_folders: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    out: Annotated[Path, typer.Option(help="Folder for index.html.")] = Path("report"),
    publish: Annotated[
        Path | None, typer.Option(help="Also write the numbers into this folder of results.")
    ] = None,
    mix_protocols: MixProtocols = False,
) -> None:
    """Write one HTML page about runs; publish their numbers on request."""
    from wsss.cli.tables import print_mixing
    from wsss.engine.compare import compare_runs
    from wsss.report.page import write_report

    if publish is not None:
        from wsss.engine.publish import publish as publish_runs

        for path in publish_runs(run_folders, publish):
            console.print(f"Numbers are in {path}.", highlight=False, soft_wrap=True)
    comparison = compare_runs(run_folders, mix_protocols=mix_protocols)
    print_mixing(comparison.mixed, console)
    _say_where(write_report(run_folders, out, comparison=comparison.to_dict()))


def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, results and report.")] = Path("demo"),
    seed: Seed = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few images and steps: shows only that everything works.")
    ] = False,
) -> None:
    """Show everything at once: data, CAM and CLIMS, segmentation, scores, report (about 10 minutes)."""
    from wsss.cli.tables import print_comparison
    from wsss.engine.demo import run_demo
    from wsss.report.page import write_report

    with StageDisplay() as display:
        comparison = run_demo(out, seed=seed, quick=quick, progress=display)
    print_comparison(comparison)
    title = "Image tags in, masks out: CAM and CLIMS"
    page = write_report(comparison.run_folders, out / "report", title=title, comparison=comparison.to_dict())
    _say_where(page)


def _say_where(page: Any) -> None:
    console.print(f"The report is in {page}. Open it in a browser.", highlight=False, soft_wrap=True)
