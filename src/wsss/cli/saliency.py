"""`wsss saliency`: saliency maps for a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.display import StageDisplay, console


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("saliency")(detect_saliency)


def detect_saliency(
    images: Annotated[Path, typer.Argument(help="Folder of images; those in folders below it count too.")],
    out: Annotated[Path, typer.Option(help="Folder for the maps, one 8-bit grey PNG named by image id.")],
    source: Annotated[
        str, typer.Option(help="Detector: embedded, u2net, or a folder of a detector in the embedded format.")
    ] = "embedded",
    weights: Annotated[
        str | None, typer.Option(help="Of u2net: its weights' file; none: where rembg keeps it.")
    ] = None,
) -> None:
    """Write what stands out in each image; maps that are there already are kept."""
    from wsss.engine.provenance import default_device
    from wsss.models.saliency_folder import detect_image_folder

    with StageDisplay() as display:
        made, kept = detect_image_folder(
            images,
            out,
            device=default_device(),
            source=source,
            weights=weights,
            progress=display.started("Detect saliency"),
        )
    there = f"; {kept:,} were there already" if kept else ""
    console.print(
        f"{made:,} saliency maps of `{source}` are new in {out}{there}.", highlight=False, soft_wrap=True
    )
