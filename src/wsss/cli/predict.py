"""`wsss predict`: masks for any images, from a model folder or a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss.cli.display import StageDisplay, console, error_console
from wsss.errors import DataError, StageError

LEAST_SIDE = 128  # pixels; a network that sees less of a photograph was hardly meant to

if TYPE_CHECKING:
    from wsss.segmentation.image_list import ImageFile
    from wsss.segmentation.model import PredictionSettings


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("predict")(predict)


def predict(
    model: Annotated[Path, typer.Argument(help="Model folder, or folder of a finished run.")],
    images: Annotated[
        list[str],
        typer.Argument(help="Folders, quoted patterns, .txt lists of one path a line, or image files."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the masks, indexed PNGs; folders below are kept.")],
    scales: Annotated[
        str | None,
        typer.Option(
            help="Image scales to average, as in 1.0,1.5; none: the model's own. They are relative to images "
            "of the size trained on; for other sizes pass 320/LONGER_SIDE worked out, as in 0.4 for 800."
        ),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Average with mirror images; neither: the model's own."),
    ] = None,
    crf: Annotated[bool, typer.Option("--crf", help="Let a dense CRF follow the network.")] = False,
    tile: Annotated[
        int, typer.Option(help="Images of more than N x N pixels are predicted in tiles of that side.")
    ] = 2048,
    overlays: Annotated[
        bool, typer.Option("--overlays", help="Also write overlays/NAME.jpg, the masks over the images.")
    ] = False,
    coco: Annotated[Path | None, typer.Option(help="Also write all masks as one COCO JSON file.")] = None,
) -> None:
    """Write a mask for each image; masks that are there already are kept."""
    from wsss.engine.provenance import default_device
    from wsss.export.model_folder import load_model
    from wsss.segmentation.image_list import find_images
    from wsss.segmentation.predict_images import predict_images

    settings = prediction_settings(scales, flip, tile, crf=crf)
    if coco is not None:
        from wsss.export.coco import EXAMPLE
        from wsss.export.target_file import check_target_file

        check_target_file(coco, EXAMPLE)
    loaded = load_model(model, device=default_device())
    found = find_images(images, out)
    _warn_of_scales(settings.scales or loaded.config.test_scales, found)
    with StageDisplay() as display:
        made = predict_images(
            loaded, found, out, settings, overlays=overlays, progress=display.started("Predict masks")
        )
    there = f"; {made.kept:,} were there already" if made.kept else ""
    console.print(f"{made.new:,} masks are new in {out}{there}.", highlight=False, soft_wrap=True)
    if coco is not None and len(made.failures) < len(found):
        from wsss.export.coco import write_coco
        from wsss.export.mask_source import predicted_masks

        count = write_coco(predicted_masks(loaded, found, out), coco)
        console.print(f"{count:,} annotations are in {coco}.", highlight=False, soft_wrap=True)
    _report(made.failures, len(found))


def _warn_of_scales(scales: Sequence[float], images: Sequence[ImageFile]) -> None:
    """Say so, once, where the network would see but a stamp of the first image."""
    from wsss.data.images import image_size
    from wsss.engine.folder_recipe import TRIED_LONG_SIDE

    if not images or max(scales) >= 1:  # nothing is shrunk
        return
    try:
        side = max(image_size(images[0].path))
    except (DataError, OSError):  # it is listed with the images that have no mask
        return
    shown = side * max(scales)
    if shown < LEAST_SIDE:
        error_console.print(
            f"At scale {max(scales):g} the network sees {images[0].name}, {side:,} pixels long, "
            f"at {shown:.0f} pixels. Scales are relative to images of the size trained on; for this "
            f"size, masks may be better with `--scales {min(1.0, TRIED_LONG_SIDE / side):.4g}`.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _report(failures: Mapping[str, str], total: int) -> None:
    """List the images that have no mask, and end as a failure where there are any."""
    if not failures:
        return
    for name, reason in failures.items():
        error_console.print(f"{name}: {reason}", highlight=False, markup=False, soft_wrap=True)
    raise StageError(
        f"{len(failures):,} of {total:,} images have no mask; they are listed above. Mend or leave out such "
        "images and run the same command again; the masks of the others are kept."
    )


def prediction_settings(scales: str | None, flip: bool | None, tile: int, *, crf: bool) -> PredictionSettings:
    """Options as settings.

    Raises:
        DataError: an option is out of range.
    """
    from pydantic import ValidationError

    from wsss.segmentation.model import PredictionSettings

    try:
        given = None if scales is None else tuple(float(word) for word in scales.split(","))
        return PredictionSettings(scales=given, flip=flip, crf=crf, tile=tile)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"`--{first['loc'][0]}` can't be {first['input']}: {first['msg']}.") from None
    except ValueError:
        raise DataError(
            f"`--scales` takes numbers separated by commas; got `{scales}`. Write for example 1.0,1.5."
        ) from None
