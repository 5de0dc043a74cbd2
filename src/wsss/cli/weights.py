"""`wsss weights`: public models, downloads on request, and what foreign files hold."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from wsss.cli.display import StageDisplay, console, write_json
from wsss.cli.options import AsJson

if TYPE_CHECKING:
    from wsss.models.weight_conversion import Networks

weights = typer.Typer(no_args_is_help=True, help="Get, describe and convert model weights.")

IMAGES = {
    "imagenet": "RGB with ImageNet's statistics",
    "bgr_levels": "BGR levels (0-255) minus the mean colour, as caffe has them",
    "unknown": "as in the training that made the file",
}


@weights.command("list")
def list_weights() -> None:
    """List the public models that have short names, and which of them are on this machine."""
    from wsss.errors import WeightsError
    from wsss.models.public_models import PUBLIC_MODELS
    from wsss.models.weights import find_weights

    table = Table(box=None)
    table.add_column("name", no_wrap=True)
    for heading in ("what for", "parameters", "licence", "here"):
        table.add_column(heading)
    for name, model in PUBLIC_MODELS.items():
        try:
            find_weights(name)
            here = "yes"
        except WeightsError:
            here = "no"
        size = "" if model.parameters is None else f"{model.parameters / 1e6:.1f} M"
        table.add_row(name, escape(model.role), size, escape(model.licence), here)
    console.print(table)
    console.print("Get one with `wsss weights fetch NAME`; nothing is fetched otherwise.", highlight=False)


@weights.command("fetch")
def fetch_weights(
    name: Annotated[
        str,
        typer.Argument(help="A name of `wsss weights list`, or an id such as openai/clip-vit-base-patch32."),
    ],
    allow_pickle: Annotated[
        bool, typer.Option(help="Read a pickle once where there is no safetensors file.")
    ] = False,
) -> None:
    """Download weights into the usual cache of their kind."""
    from wsss.models.weights import fetch, sha256

    with StageDisplay() as display:
        path = fetch(name, allow_pickle=allow_pickle, progress=display.started(f"Fetch {name}"))
    console.print(
        f"The weights are in {path}.", f"SHA-256: {sha256(path)}", sep="\n", highlight=False, soft_wrap=True
    )


@weights.command("show")
def show_weights(
    file: Annotated[Path, typer.Argument(help="A .safetensors, .pth, .params or .caffemodel file.")],
    as_json: AsJson = False,
) -> None:
    """Show what a weights file holds, and which of the networks it fits."""
    from wsss.models.weight_conversion import describe_weights

    found = describe_weights(file, _networks())
    if as_json:
        write_json(json.dumps(asdict(found), indent=1))
        return
    stride = {True: "in the first 1x1 convolution", False: "in the 3x3 convolution", None: ""}
    lines = {
        "format": found.format,
        "tensors": f"{found.tensors:,} with {found.numbers:,} numbers",
        "SHA-256": found.sha256,
        "fits": ", ".join(found.fits) or "none of the networks",
        "images": IMAGES[found.preprocess] if found.fits else "",
        "strides": stride[found.stride_in_1x1],
        "left out": ", ".join(found.left_out),
        "note": found.note,
    }
    for key, value in lines.items():
        if value:
            console.print(f"{key + ':':<10}{value}", highlight=False, markup=False, soft_wrap=True)


@weights.command("convert")
def convert_file(
    file: Annotated[Path, typer.Argument(help="A .safetensors, .pth, .params or .caffemodel file.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    network: Annotated[
        str, typer.Option("--to", help="A backbone such as wide_resnet38, or cam: with its classifier.")
    ],
) -> None:
    """Write a published file's weights as safetensors under the names of one of the networks."""
    from wsss.models.weight_conversion import convert_weights

    made = convert_weights(file, network, out, _networks())
    console.print(
        f"{len(made.state):,} tensors of {network} are in {out}. Images: {IMAGES[made.preprocess]}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@weights.command("convert-ovseg")
def convert_ovseg_weights(
    file: Annotated[Path, typer.Argument(help="OVSeg's checkpoint, ovseg_swinbase_vitL14_ft_mpt.pth.")],
    out: Annotated[Path, typer.Option(help="Folder for the teacher, for `method.teacher` in recipes.")],
    base: Annotated[
        str, typer.Option(help="The plain CLIP that it began with: an id in the local cache, or a folder.")
    ] = "openai/clip-vit-large-patch14",
    allow_pickle: Annotated[
        bool, typer.Option(help="Read a file that holds more than tensors; none of its code runs.")
    ] = False,
) -> None:
    """Make a mask-adapted teacher of OVSeg's checkpoint (CC BY-NC 4.0: non-commercial)."""
    from wsss.models.ovseg_import import convert_ovseg

    folder = convert_ovseg(file, base, out, allow_pickle=allow_pickle)
    console.print(
        f"The teacher is in {folder}. Its licence is CC BY-NC 4.0 (non-commercial).",
        highlight=False,
        soft_wrap=True,
    )


def _networks() -> Networks:
    from wsss.models import BACKBONES
    from wsss.segmentation.resnet101_deeplab import resnet101_deeplab

    return {**BACKBONES, "resnet101_deeplab": resnet101_deeplab}
