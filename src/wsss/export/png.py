"""Masks as PNG files of three kinds: with a palette, plain grey class numbers, or colours.

Values of 255 (ignore) stay what they are; as a colour they are the palette's last, which no class has.
`classes.json` is written first: it marks a folder whose masks may be written anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsss.checks import nearest
from wsss.data.masks_png import voc_palette
from wsss.errors import DataError
from wsss.export.mask_source import MaskSource
from wsss.segmentation.predict_images import write_indexed
from wsss.training.checkpoint import atomic_path, write_atomically
from wsss.types import IGNORE

STYLES: Final = ("palette", "plain", "colour")
CLASSES: Final = "classes.json"  # beside the files: what values and colours mean

Pixels = npt.NDArray[np.uint8]


def write_pngs(source: MaskSource, out: Path, style: str) -> int:
    """Write every mask anew, and `classes.json` with value, name and colour of each class.

    Args:
        source: masks.
        out: folder; names and folders below it are those of the masks.
        style: palette (8-bit indexed), plain (8-bit grey class numbers) or colour (RGB).

    Returns:
        The number of files.

    Raises:
        DataError: an unknown style, two classes have one colour, `out` is the masks' own folder or inside
            it, or files there would be replaced that no export wrote.
    """
    if style not in STYLES:
        raise DataError(f"There is no style `{style}`. {nearest(style, STYLES)}")
    _check_place(source, out)
    palette = class_palette(source)
    used = {tuple(row) for row in [*source.colours.tolist(), palette[IGNORE].tolist()]}
    if style == "colour" and len(used) <= len(source.colours):
        raise DataError(
            "Two classes have the same colour, so colours would not tell them apart. Use `palette`."
        )
    classes = [
        {"value": value, "name": name, "colour": colour}
        for value, (name, colour) in enumerate(zip(source.class_names, source.colours.tolist(), strict=True))
    ]
    write_atomically(out / CLASSES, (json.dumps(classes, indent=1, ensure_ascii=False) + "\n").encode())
    for name in source.names:
        mask, path = source.read(name), out / name
        if style == "palette":
            write_indexed(path, mask, palette)
        else:
            with atomic_path(path) as temporary:
                picture = Image.fromarray(mask if style == "plain" else palette[mask])
                picture.save(temporary, format="PNG")
    return len(source.names)


def _check_place(source: MaskSource, out: Path) -> None:
    """Make sure that nothing is replaced but an earlier export."""
    if out.resolve().is_relative_to(source.folder.resolve()):
        raise DataError(f"{out} is the folder of the masks themselves, or inside it. Give another one.")
    if _is_export(out / CLASSES):
        return
    taken = next((name for name in (CLASSES, *source.names) if (out / name).exists()), None)
    if taken is not None:
        raise DataError(f"{out / taken} is there already, and of no export. Give another folder.")


def _is_export(path: Path) -> bool:
    """Whether the file is a `classes.json` as `write_pngs` writes it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    keys = {"value", "name", "colour"}
    return isinstance(found, list) and all(isinstance(c, dict) and c.keys() == keys for c in found)


def class_palette(source: MaskSource) -> Pixels:
    """Colours of the values 0-255; (256, 3)."""
    palette: Pixels = voc_palette().copy()
    palette[: len(source.colours)] = source.colours
    return palette


def read_colours(path: Path, palette: Pixels) -> Pixels:
    """The mask, (H, W), uint8, of a PNG file of colours.

    Args:
        path: RGB file.
        palette: colours of the values 0-255; (256, 3).

    Raises:
        DataError: the file can't be read, or holds a colour that is not in the palette.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            pixels = np.asarray(image.convert("RGB")).astype(np.int64)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} is no readable PNG file. Replace it.") from error
    weights = np.array([65536, 256, 1])
    codes = palette.astype(np.int64) @ weights
    found = pixels @ weights
    order = np.argsort(codes, kind="stable")
    places = np.searchsorted(codes[order], found).clip(max=IGNORE)
    mask: Pixels = order[places].astype(np.uint8)
    if (codes[mask] != found).any():
        raise DataError(f"{path} holds a colour that no class has. Give the palette that it was made with.")
    return mask
