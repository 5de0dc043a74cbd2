"""`wsss label`: from a folder of images and tags to masks, a network and a report, in one command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss.cli.display import StageDisplay, console, percent
from wsss.cli.options import Seed
from wsss.errors import DataError, RecipeError

if TYPE_CHECKING:
    from wsss.engine.label import Labelled, LabelSettings

MODEL, REPORT, REVIEW = "model", "report", "review"
PAGE = "index.html"
NEW = ".label-new"  # model and report are made there and moved when they are whole


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("label")(label)


def label(
    images: Annotated[Path, typer.Argument(help="Folder of images; those in folders below it count too.")],
    tags: Annotated[Path, typer.Argument(help="CSV file with the columns image,labels and perhaps scene.")],
    out: Annotated[Path, typer.Option(help="Folder for masks, network, report and all results.")],
    classes: Annotated[
        Path | None, typer.Option(help="Classes file; none: the classes are those of the tags.")
    ] = None,
    method: Annotated[str, typer.Option(help="smvwe, cam, clims or qa_clims.")] = "smvwe",
    refine: Annotated[
        str, typer.Option(help="Refiners, separated by commas, such as dense_crf or irn,dense_crf; or none.")
    ] = "dense_crf",
    background_score: Annotated[
        str, typer.Option(help="Score of the background, 0 to 1; auto: chosen without masks.")
    ] = "auto",
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of true masks, indexed PNG named like the images; scoring only."),
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(help="Masks you corrected, PNG folder or COCO file; the network learns from them too."),
    ] = None,
    seed: Seed = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps only: shows that everything works, and no more.")
    ] = False,
    estimate: Annotated[bool, typer.Option(help="Estimate time, memory and disk before a long run.")] = True,
) -> None:
    """Label a folder: tags in, masks, network and report out. Interrupted, the same command goes on."""
    from wsss.engine.label import LabelSettings, label_folder
    from wsss.engine.own_files import OwnFiles
    from wsss.export.model_folder import save_run_model
    from wsss.report.page import write_report

    settings = LabelSettings(
        images,
        tags,
        out,
        classes,
        masks,
        method,
        parse_refiners(refine),
        parse_background_score(background_score),
        seed,
        quick,
        corrections,
    )
    OwnFiles(out, images).check(_made_behind(out))
    with StageDisplay() as display:
        _examine(settings, display)
        if estimate and not quick:
            _estimate(settings)
        labelled = label_folder(settings, progress=display)
    shutil.rmtree(out / NEW, ignore_errors=True)  # of a call that was killed
    save_run_model(labelled.run_folder, out / NEW / MODEL)
    write_report([labelled.run_folder], out / NEW / REPORT)
    own = OwnFiles(out, images)
    own.place({path: out / NEW / path.relative_to(out) for path in _made_behind(out)})
    shutil.rmtree(out / NEW)
    _print(labelled, out)


def _made_behind(out: Path) -> tuple[Path, ...]:
    """Files that are written when all else is done: those of the model's folder, and the report."""
    from wsss.segmentation.model import CARD, CONFIG, WEIGHTS

    return (*(out / MODEL / name for name in (CONFIG, WEIGHTS, CARD)), out / REPORT / PAGE)


def parse_refiners(text: str) -> tuple[str, ...]:
    """Names of refiners from `irn,dense_crf`; none from `none`.

    Raises:
        RecipeError: an unknown refiner.
    """
    from wsss.checks import nearest
    from wsss.refiners.base import list_refiners

    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if names in ((), ("none",)):
        return ()
    for name in names:
        if name not in list_refiners():
            choices = (*list_refiners(), "none")
            raise RecipeError(f"There is no refiner `{name}`. {nearest(name, choices)}")
    return names


def parse_background_score(text: str) -> float | None:
    """A number from 0 to 1; None from `auto`.

    Raises:
        RecipeError: neither.
    """
    if text == "auto":
        return None
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise RecipeError(
            f"`--background-score` takes `auto` or a number from 0 to 1; got {text!r}. Correct it."
        )
    return score


def _examine(settings: LabelSettings, display: StageDisplay) -> None:
    """A quick look at the data: errors stop, the rest is shown."""
    from wsss.cli.doctor import print_findings
    from wsss.doctor.doctor import diagnose
    from wsss.doctor.inputs import Inputs

    given = Inputs(
        settings.images,
        settings.images,
        settings.tags,
        classes=settings.classes,
        masks=settings.masks,
    )
    found = diagnose(
        given,
        method=settings.method,
        out=settings.out,
        quick=True,
        progress=display.started("Check the images"),
    )
    display.close()
    print_findings(tuple(finding for finding in found.findings if finding.level != "note"))
    print_findings(tuple(finding for finding in found.findings if finding.code == "public-teacher"))
    if found.errors:
        raise DataError(
            f"Expected data without errors; got {len(found.errors)}, listed above. Mend them, then run the "
            "same command again; `wsss doctor` proposes a classes file that joins spellings."
        )


def _estimate(settings: LabelSettings) -> None:
    from wsss.cli.tables import print_estimate
    from wsss.engine.estimate import estimate
    from wsss.engine.label import label_recipe
    from wsss.engine.recipe import parse_recipe

    recipe = parse_recipe(label_recipe(settings), "the folder's recipe")
    print_estimate(estimate(recipe, seed=settings.seed, runs=settings.out / "runs"))


def _print(labelled: Labelled, out: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("class", "tagged images", "found in", "mean share of pixels %")
    for row in labelled.classes:
        table.add_row(escape(row.name), f"{row.tagged:,}", f"{row.found:,}", percent(row.share))
    console.print(table)
    _print_scores(labelled)
    for text in (
        _background_sentence(labelled),
        _masks_sentence(labelled),
        f"The network is in {out / MODEL}.",
        f"The report is in {out / REPORT / PAGE}. Open it in a browser.",
        f"Which masks to look at first: `wsss review {labelled.run_folder} --out {out / REVIEW}`. Give masks "
        "that you correct back with the same command and `--corrections DIR`.",
    ):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def _print_scores(labelled: Labelled) -> None:
    from rich.table import Table

    from wsss.engine.scoring import scored_words

    if not labelled.scores:
        return
    table = Table("scored on true masks", "background score", "mIoU %", "images")
    for stage, scores in labelled.scores.items():
        for entry in scores["entries"]:
            level = entry["background_score"]
            shown = entry["background_score_source"] + ("" if level is None else f" {level:.2f}")
            table.add_row(scored_words(stage), shown, percent(entry["miou"]), f"{scores['images']:,}")
    console.print(table)


def _masks_sentence(labelled: Labelled) -> str:
    number = labelled.from_tags + labelled.corrected + labelled.from_network
    corrected = f"{labelled.corrected:,} corrected by hand, " if labelled.corrected else ""
    return (
        f"{number:,} masks are in {labelled.masks}: {labelled.from_tags:,} from tags, {corrected}"
        f"{labelled.from_network:,} (untagged images) from the network."
    )


def _background_sentence(labelled: Labelled) -> str:
    if labelled.background_score is None:
        return "The maps have a background of their own, so no background score was chosen."
    how = {"automatic": "chosen from images and maps, without any mask", "fixed": "as given"}
    text = f"Background score of the maps: {labelled.background_score:.2f}, {how[labelled.background_source]}"
    if labelled.oracle is None:
        return f"{text}."
    return (
        f"{text}; the best one on the true masks would be {labelled.oracle:.2f} (shown for comparison only)."
    )
