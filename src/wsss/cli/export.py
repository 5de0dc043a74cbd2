"""`wsss export`: models as folders or ONNX files, masks for annotation tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss.cli.display import console

if TYPE_CHECKING:
    from wsss.export.mask_source import MaskSource

export = typer.Typer(no_args_is_help=True, help="Take a model or masks along, to other tools and machines.")

Masks = Annotated[Path, typer.Argument(help="Run, output folder of `wsss predict`, or folder of PNG masks.")]
Classes = Annotated[
    Path | None, typer.Option(help="classes.json or classes.yaml; none: those of the run or the prediction.")
]
Stage = Annotated[
    str, typer.Option(help="Of a run, whose masks: pseudo_masks, segmentation or segmentation_crf.")
]
Images = Annotated[
    Path | None, typer.Option(help="Folder of the images, for their names; none: the masks' own names.")
]
OutFile = Annotated[Path, typer.Option(help="The file to write.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(export, name="export")


@export.command("model")
def export_model(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="Model folder to write; an older model there is replaced.")],
) -> None:
    """Make a model folder of a run: safetensors, configuration and a card."""
    from wsss.export.model_folder import save_run_model

    folder = save_run_model(run, out)
    _say(f"The model is in {folder}. Use it with `wsss predict {folder} IMAGES --out DIR`.")


@export.command("onnx")
def export_onnx_file(
    model: Annotated[Path, typer.Argument(help="Model folder, or folder of a finished run.")],
    out: OutFile,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare the file with PyTorch by onnxruntime.")
    ] = True,
) -> None:
    """Write a model as an ONNX file for any number and size of images."""
    from wsss.export.model_folder import load_model
    from wsss.export.onnx_model import EXAMPLE, export_onnx
    from wsss.export.target_file import check_target_file

    check_target_file(out, EXAMPLE)  # reading a model takes a while
    difference = export_onnx(load_model(model), out, check=check)
    checked = (
        "" if difference is None else f"; its probabilities differ from PyTorch's by at most {difference:.1e}"
    )
    _say(f"The model is in {out}{checked}.")


@export.command("coco")
def export_coco(
    masks: Masks, out: OutFile, classes: Classes = None, stage: Stage = "pseudo_masks", images: Images = None
) -> None:
    """Write masks as COCO JSON: one run-length encoded annotation for each class of each image."""
    from wsss.export.coco import EXAMPLE, write_coco
    from wsss.export.target_file import check_target_file

    check_target_file(out, EXAMPLE)
    source = _open(masks, classes, stage, images)
    _say(f"{write_coco(source, out):,} annotations of {len(source.names):,} masks are in {out}.")


@export.command("label-studio")
def export_label_studio(
    masks: Masks,
    out: OutFile,
    classes: Classes = None,
    stage: Stage = "pseudo_masks",
    images: Images = None,
    *,
    prefix: Annotated[str, typer.Option(help="Put before images' names, as in /data/local-files/?d=")] = "",
) -> None:
    """Write masks as Label Studio tasks with brush regions, and the labelling set-up beside them."""
    from wsss.export.label_studio import EXAMPLE, write_label_studio
    from wsss.export.target_file import check_target_file

    check_target_file(out, EXAMPLE)
    source = _open(masks, classes, stage, images)
    count = write_label_studio(source, out, prefix=prefix)
    setup = out.with_suffix(".xml")
    _say(f"{count:,} regions of {len(source.names):,} masks are in {out}, the set-up is in {setup}.")


@export.command("cvat")
def export_cvat(
    masks: Masks, out: OutFile, classes: Classes = None, stage: Stage = "pseudo_masks", images: Images = None
) -> None:
    """Write masks as XML of CVAT for images 1.1."""
    from wsss.export.cvat import EXAMPLE, write_cvat
    from wsss.export.target_file import check_target_file

    check_target_file(out, EXAMPLE)
    source = _open(masks, classes, stage, images)
    _say(f"{write_cvat(source, out):,} regions of {len(source.names):,} masks are in {out}.")


@export.command("png")
def export_png(
    masks: Masks,
    out: Annotated[Path, typer.Option(help="Folder for the files and classes.json.")],
    classes: Classes = None,
    stage: Stage = "pseudo_masks",
    style: Annotated[
        str, typer.Option(help="palette (indexed), plain (grey class numbers) or colour (RGB).")
    ] = "palette",
) -> None:
    """Write masks as PNG files: indexed, grey or in colours."""
    from wsss.export.png import write_pngs

    _say(f"{write_pngs(_open(masks, classes, stage, None), out, style):,} masks are in {out}.")


def _open(masks: Path, classes: Path | None, stage: str, images: Path | None) -> MaskSource:
    from wsss.export.mask_source import open_masks

    return open_masks(masks, classes=classes, stage=stage, images=images)


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
