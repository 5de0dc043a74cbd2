"""`wsss embedded` and `wsss teacher`: models that methods use but never train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from wsss.cli.display import StageDisplay, console, percent, write_json
from wsss.cli.options import RUNS, AsJson, Runs, Settings
from wsss.cli.weights import weights
from wsss.errors import RecipeError

if TYPE_CHECKING:
    from wsss.training.journal import Progress

embedded = typer.Typer(
    no_args_is_help=True, help="Make and measure the small models shipped with the package."
)
teacher = typer.Typer(no_args_is_help=True, help="Train a teacher on one's own tags and scene words.")

MASK_PROMPTS = "mask_prompts"

NAMES = {"clip": "teacher", "vqa": "VQA", "saliency": "saliency detector"}

Model = Annotated[str, typer.Argument(help="Which embedded model: clip, vqa or saliency.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(embedded, name="embedded")
    app.add_typer(teacher, name="teacher")
    app.add_typer(weights, name="weights")


@embedded.command("train")
def train_embedded(
    model: Model = "clip",
    seed: Annotated[int, typer.Option(help="Seed of pictures and weights.")] = 0,
    variant: Annotated[
        str,
        typer.Option(help="Of clip: contrastive (the shipped one), dense or exact; mask_prompts adds those."),
    ] = "contrastive",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; none: embedded in teachers, vqa or saliency.")
    ] = None,
) -> None:
    """Train the embedded teacher, VQA or saliency detector as the shipped one was made."""
    _check_model(model)
    folder = out or Path("teachers" if model == "clip" else model) / "embedded"
    bars: dict[str, Progress] = {}
    with StageDisplay() as display:

        def report(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = display.started(what.capitalize())
            bars[what](done, total, "")

        if model == "clip" and variant == MASK_PROMPTS:
            from wsss.models.embedded.mask_prompts import train_mask_prompts

            train_mask_prompts(folder, seed=seed, progress=report)
        elif model == "clip":
            from wsss.models.embedded.teacher import train_clip

            train_clip(folder, seed=seed, variant=variant, progress=report)
        elif model == "vqa":
            from wsss.models.embedded.vqa_training import train_vqa

            train_vqa(folder, seed=seed, progress=report)
        else:
            from wsss.models.embedded.saliency_training import train_saliency

            train_saliency(folder, seed=seed, progress=report)
    console.print(
        f"The {NAMES[model]} is in {folder}. "
        f"Measure it with `wsss embedded evaluate {model} --folder {folder}`.",
        highlight=False,
        soft_wrap=True,
    )


@embedded.command("evaluate")
def evaluate_embedded(
    model: Model = "clip",
    folder: Annotated[Path | None, typer.Option(help="Another model; none: the shipped one.")] = None,
    images: Annotated[int, typer.Option(help="Number of unseen scenes.")] = 500,
    seed: Annotated[int, typer.Option(help="Which scenes.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure the embedded teacher on masked crops, the VQA on its questions, or the saliency detector."""
    _check_model(model)
    if model == "vqa":
        _evaluate_vqa(folder, images, seed, as_json=as_json)
        return
    if model == "saliency":
        _evaluate_saliency(folder, images, seed, as_json=as_json)
        return
    from wsss.models.embedded.evaluation import evaluate_clip
    from wsss.models.weights import find_weights

    scores = evaluate_clip(folder or find_weights("embedded"), images=images, seed=seed)
    if as_json:
        write_json(json.dumps(scores, indent=1))
        return
    table, cosines = Table("what was asked", "right %"), Table("cosine", "mean")
    for name, value in scores.items():
        if name.startswith("cosine_"):
            cosines.add_row(name.removeprefix("cosine_").replace("_", " "), f"{value:+.2f}")
        else:
            table.add_row(name.replace("_", " "), f"{value:.1f}")
    console.print(table, cosines)


@teacher.command("train")
def train_own_teacher(
    data: Annotated[
        str, typer.Argument(help="A recipe whose data to learn from, or a folder of images and tags.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the teacher, for `method.teacher` in recipes.")],
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    tags: Annotated[Path, typer.Option(help="For a folder: its tags file.")] = Path("tags.csv"),
    settings: Settings = None,
    runs: Runs = RUNS,
) -> None:
    """Train a CLIP-format teacher from tags and scene words alone; masks are never read."""
    from wsss.engine.teacher import train_teacher_for

    with StageDisplay() as display:
        made = train_teacher_for(
            data, out, seed=seed, tags=tags, settings=settings or (), runs=runs, progress=display
        )
    lines = [f"Learned {len(made.words)} words from {made.images:,} images: {', '.join(made.words)}."]
    if made.held_out is not None:
        found = made.held_out
        lines.append(
            f"On {found.images:,} held-out images: mean average precision "
            f"{percent(found.mean_average_precision)}% (chance {percent(found.chance)}%), "
            f"best word right {percent(found.first_word_right)}% "
            f"(always the most frequent word: {percent(found.most_frequent_word_right)}%)."
        )
    console.print(*lines, f"The teacher is in {made.folder}.", sep="\n", highlight=False, soft_wrap=True)


def _evaluate_vqa(folder: Path | None, images: int, seed: int, *, as_json: bool) -> None:
    from wsss.models.embedded.vqa_evaluation import evaluate_vqa

    scores = evaluate_vqa(folder or "embedded", images=images, seed=seed)
    if as_json:
        write_json(json.dumps(scores, indent=1))
        return
    table = Table("question", "right %", "of a grey image %", "gain", "best guess %", "benchmark scenes %")
    for topic, seen in scores["seeing"].items():
        grey, guess, usual = (scores[how][topic] for how in ("grey", "guessing", "benchmark"))
        gain = f"{seen - grey:+.1f}"
        table.add_row(
            topic.replace("_", " "), f"{seen:.1f}", f"{grey:.1f}", gain, f"{guess:.1f}", f"{usual:.1f}"
        )
    console.print(table)


def _evaluate_saliency(folder: Path | None, images: int, seed: int, *, as_json: bool) -> None:
    from wsss.models.embedded.saliency_evaluation import evaluate_saliency

    scores = evaluate_saliency(folder or "embedded", images=images, seed=seed)
    if as_json:
        write_json(json.dumps(scores, indent=1))
        return
    table = Table("scenes", "MAE", "best F", "threshold", "F at 0.5")
    for kind, found in scores.items():
        table.add_row(
            kind.replace("_", " "),
            f"{found['mean_absolute_error']:.3f}",
            f"{found['best_f']:.3f}",
            f"{found['best_threshold']:.2f}",
            f"{found['half_f']:.3f}",
        )
    console.print(table)


def _check_model(model: str) -> None:
    if model not in NAMES:
        from wsss.checks import nearest

        raise RecipeError(f"There is no embedded model `{model}`. {nearest(model, NAMES)}")
