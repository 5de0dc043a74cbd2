"""`wsss submission`: an archive of test predictions for the server of PASCAL VOC."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.display import StageDisplay, console
from wsss.errors import DataError


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command()(submission)


def submission(
    predictions: Annotated[
        Path | None, typer.Argument(help="Run folder, or folder of predicted masks `<image id>.png`.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The archive to write, such as results.tar.gz.")] = None,
    voc: Annotated[
        Path | None,
        typer.Option(help="VOC tree with the test images and their list; none: that of the run."),
    ] = None,
    external_data: Annotated[
        bool, typer.Option("--external-data", help="More than VOC's data was learned from: comp6, not comp5.")
    ] = False,
    check: Annotated[
        Path | None, typer.Option(help="Check this archive; nothing is written or extracted.")
    ] = None,
) -> None:
    """Pack predictions of VOC's test images for its evaluation server, or check such an archive."""
    from wsss.export import voc_submission as server

    if (check is None) == (predictions is None):
        raise DataError("Give either predictions and `--out`, or `--check` and an archive.")
    if check is not None:
        if out is not None or external_data:
            raise DataError("`--check` writes nothing; leave `--out` and `--external-data` out.")
        sizes = None if voc is None else server.test_sizes(voc)
        found, place = server.check_submission(check, sizes), check
    else:
        assert predictions is not None
        if out is None:
            raise DataError("Say where to write the archive: `--out results.tar.gz`.")
        folder, root = predictions, voc
        if (predictions / "run.json").is_file():
            folder, of_run = server.predictions_of_run(predictions)
            server.check_competition(predictions, external_data=external_data)
            root = voc or of_run
        if root is None:
            raise DataError("Say where the test images are: `--voc ROOT`. All are compared with them.")
        sizes, place = server.test_sizes(root), out
        with StageDisplay() as display:
            progress = display.started("Check the predictions")
            found = server.write_submission(
                folder, out, sizes, external_data=external_data, progress=progress
            )
    compared = "" if found.is_compared else " Ids and sizes were not compared: no `--voc` was given."
    console.print(
        f"{place}: {found.images:,} masks for {found.competition}.{compared}",
        highlight=False,
        soft_wrap=True,
    )
    if found.images != server.TEST_IMAGES:
        console.print(
            f"VOC 2012's test split has {server.TEST_IMAGES:,} images: the server would refuse this archive.",
            highlight=False,
            soft_wrap=True,
        )
