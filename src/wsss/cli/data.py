"""`wsss data`: make data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.display import StageDisplay, console

group = typer.Typer(no_args_is_help=True, help="Make data sets.")


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(group, name="data")


@group.callback()
def _group() -> None:
    """Make data sets."""


@group.command()
def scenes(
    out: Annotated[Path, typer.Option(help="Folder for the tree; new or empty.")],
    world: Annotated[int, typer.Option(help="World seed.")] = 0,
    train: Annotated[int, typer.Option(help="Number of training images.")] = 1600,
    val: Annotated[int, typer.Option(help="Number of validation images.")] = 400,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 96,
) -> None:
    """Write the generated scenes as a VOC tree with their metadata."""
    from wsss.data.scenes import write_tree

    with StageDisplay() as display:
        report = display.started("Generate the data")

        def progress(done: int, total: int) -> None:
            report(done, total, "images")

        write_tree(out, world=world, train=train, val=val, size=size, progress=progress)
    console.print(f"{train + val:,} scenes of world {world} are in {out}.", highlight=False, soft_wrap=True)
