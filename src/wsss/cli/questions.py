"""`wsss questions`: answers about images, the texts made of them, and published answer files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from wsss.cli.display import console, write_json
from wsss.cli.options import RUNS, AsJson, Runs, Settings
from wsss.errors import RecipeError

questions = typer.Typer(no_args_is_help=True, help="Look at answers about images, and import published ones.")


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(questions, name="questions")


@questions.command("show")
def show_texts(
    image: Annotated[str, typer.Argument(help="Id of a training image.")],
    recipe: Annotated[str | None, typer.Option(help="Recipe whose method uses the texts.")] = None,
    answers: Annotated[Path | None, typer.Option(help="A file of answers, in place of a recipe.")] = None,
    settings: Settings = None,
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show what was answered about an image, and the final texts."""
    from wsss.engine.image_texts import image_texts, image_texts_of_file
    from wsss.engine.recipe import load_recipe

    if (recipe is None) == (answers is None):
        raise RecipeError("Give either `--recipe` or `--answers`, such as `--recipe scenes/qa_clims`.")
    if answers is not None:
        found = image_texts_of_file(answers, image)
    else:
        assert recipe is not None
        found = image_texts(load_recipe(recipe, settings or ()), image, runs=runs)
    if as_json:
        write_json(json.dumps(asdict(found), ensure_ascii=False, indent=1))
        return
    if not found.pairs:
        console.print(f"Image {escape(image)} has no class, so nothing was asked about it.")
    for pair in found.pairs:
        given = found.answers.get(pair.class_name, {})
        if given:
            table = Table("question", f"answer of {escape(found.model)}", box=None)
            for question, answer in given.items():
                table.add_row(escape(question), escape(answer))
            console.print(table)
        console.print(
            f"[bold]{escape(pair.class_name)}[/] foreground: "
            f"[green]{escape(', '.join((pair.label, *pair.foreground)))}[/]",
            f"{' ' * len(pair.class_name)} background: "
            f"[red]{escape(', '.join(pair.background) or 'none: the pair is skipped')}[/]",
            sep="\n",
            soft_wrap=True,
        )


@questions.command("import")
def import_answers(
    files: Annotated[list[Path], typer.Argument(help="Published answer files (pickles); they add up.")],
    out: Annotated[Path, typer.Option(help="File of answers to write, for `method.vqa.answers_file`.")],
    data: Annotated[str, typer.Option(help="Recipe of the data set that the answers speak of.")],
    allow_pickle: Annotated[
        bool, typer.Option(help="Read the pickles: plain values alone are rebuilt, no code runs.")
    ] = False,
    settings: Settings = None,
) -> None:
    """Turn published answer files into one readable file of answers."""
    from wsss.data import open_dataset
    from wsss.engine.recipe import load_recipe
    from wsss.questions.official import import_official

    dataset = open_dataset(load_recipe(data, settings or ()).data, root=None)
    made = import_official(
        files,
        out,
        allow_pickle=allow_pickle,
        dataset_name=dataset.name,
        class_names=dataset.class_names[1:],
    )
    console.print(
        f"{len(made.pairs):,} pairs of image and class are in {out}.", highlight=False, soft_wrap=True
    )
