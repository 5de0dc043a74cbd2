"""Malformed images and masks."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from export.small_model import noise
from fuzz.case import Case, contents
from fuzz.hostile import arrays, chunk, pickled, png
from fuzz.mutations import changed_bytes
from wsss.data.masks_png import voc_palette

SIDE = (40, 48)
PREDICT = ("predict", "{originals}/model", "{given}", "--out", "{out}", "--scales", "0.5")
SCORE = (
    "evaluate",
    "--predictions",
    "{given}",
    "--masks",
    "{originals}/one",
    "--classes",
    "{originals}/classes.json",
)
HUGE = (2**31 - 1, 2**31 - 1)


def cases() -> Iterator[Case]:
    """All of them; several bad files stand in one folder, and each must be named."""
    for start, group in enumerate(_in_groups(broken_images(), 8)):
        yield Case(f"images {start}", contents(group), PREDICT, says=tuple(group), inputs=len(group))
        if start % 2 == 0:
            yield Case(
                f"saliency of images {start}", contents(group), ("saliency", "{given}", "--out", "{out}")
            )
    for number, group in enumerate(_in_groups(changed_images(56), 8)):
        yield Case(f"changed images {number}", contents(group), PREDICT, is_broken=False, inputs=len(group))
    for place, (name, data) in enumerate(broken_masks().items()):
        files = contents({"i0.png": data})
        yield Case(f"mask {name}", files, SCORE, says=("i0.png",))
        kind = ("coco", "cvat", "label-studio", "png")[place % 4]
        export = ("export", kind, "{given}", "--out", "{out}/x.json", "--classes", "{originals}/classes.json")
        yield Case(f"{kind} export of mask {name}", files, export, says=("i0.png",))
    values = np.arange(SIDE[0] * SIDE[1], dtype=np.uint8).reshape(SIDE) % 4
    for number, data in enumerate(changed_bytes(encoded(values, "PNG", palette=True), 28, seed=5)):
        yield Case(f"changed mask {number}", contents({"i0.png": data}), SCORE, is_broken=False)
    other = contents({"i0.png": encoded(values[1:], "PNG", palette=True)})
    yield Case("mask of another size", other, SCORE, says=("i0.png",))


def broken_images() -> dict[str, bytes]:
    """Files that no image can be read from."""
    whole = {suffix: encoded(noise(*SIDE), kind) for suffix, kind in KINDS.items()}
    found = {f"half {suffix}.{suffix}": data[: len(data) // 2] for suffix, data in whole.items()}
    del found["half webp.webp"]  # can still be read
    found |= {f"head {suffix}.{suffix}": data[:20] for suffix, data in whole.items()}
    found |= {f"empty {suffix}.{suffix}": b"" for suffix in whole}
    found |= {f"zeros {suffix}.{suffix}": bytes(500) for suffix in whole}
    found |= {f"noise {suffix}.{suffix}": np.random.default_rng(1).bytes(500) for suffix in whole}
    gif, tiff = (encoded(noise(*SIDE), kind) for kind in ("GIF", "TIFF"))
    rows = bytes(SIDE[0] * (SIDE[1] + 1))
    return found | {
        "gif.png": gif,
        "tiff.jpg": tiff,
        "text.jpg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "page.png": b"<!DOCTYPE html><html>not found</html>",
        "pickle.png": pickled(),
        "archive.png": arrays(a=np.zeros(3)),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(code-ran) (w) file closefile\n",
        "huge.png": png(*HUGE, rows),
        "wide.png": png(100_000, 100_000, rows),
        "large.png": png(9_000, 9_000, rows),
        "none.png": png(0, 48, rows),
        "sparse.png": png(8_000, 8_000, rows),
        "depth.png": png(*SIDE[::-1], rows, depth=7),
        "colours.png": png(*SIDE[::-1], rows, colour=9),
        "checksum.png": whole["png"][:40] + b"\0\0\0\0" + whole["png"][44:],
        "huge bmp.bmp": whole["bmp"][:18] + struct.pack("<ii", *HUGE) + whole["bmp"][26:],
        "minus.bmp": whole["bmp"][:18] + struct.pack("<ii", -48, 40) + whole["bmp"][26:],
        "palette.bmp": whole["bmp"][:28] + struct.pack("<H", 8) + whole["bmp"][30:54],
        "huge webp.webp": whole["webp"][:24] + b"\xff" * 6 + whole["webp"][30:],
        "soi.jpg": b"\xff\xd8\xff\xd9",
        "huge jpg.jpg": _jpeg_of(65_535, 65_535, whole["jpg"]),
    }


KINDS = {"jpg": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WEBP"}


def changed_images(count: int) -> dict[str, bytes]:
    """Valid images with changed bytes: some can still be read."""
    found = {}
    for place, (suffix, kind) in enumerate(KINDS.items()):
        data = encoded(noise(*SIDE), kind)
        changed = changed_bytes(data, count // len(KINDS), seed=place)
        found |= {f"{number:02}.{suffix}": content for number, content in enumerate(changed)}
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(50_000_000)))
    rows = bytes(SIDE[0] * (SIDE[1] + 1))
    exif = chunk(b"eXIf", b"II*\0" + b"\xff" * 60)
    for name, extra in (("text", bomb), ("profile", profile), ("exif", exif)):
        found[f"{name}.png"] = png(*SIDE[::-1], rows, extra=extra)
    return found


def broken_masks() -> dict[str, bytes]:
    """Masks of three classes that can be neither scored nor exported."""
    rows = bytes(SIDE[0] * (SIDE[1] + 1))
    grey, half = np.zeros(SIDE, np.uint8), encoded(noise(*SIDE)[..., 0], "PNG")
    return {
        "rgb": encoded(noise(*SIDE), "PNG"),
        "sixteen": encoded(np.zeros(SIDE, np.uint16), "PNG"),
        "alpha": encoded(np.zeros((*SIDE, 4), np.uint8), "PNG"),
        "jpeg": encoded(grey, "JPEG"),
        "empty": b"",
        "noise": np.random.default_rng(2).bytes(300),
        "half": half[: len(half) // 2],
        "huge": png(*HUGE, rows),
        "wide": png(30_000, 30_000, rows),
        "pickle": pickled(),
        "values": encoded(grey + 254, "PNG"),
    }


def encoded(values: np.ndarray, kind: str, *, palette: bool = False) -> bytes:
    image = Image.fromarray(values)
    if palette:
        image.putpalette(voc_palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _jpeg_of(width: int, height: int, data: bytes) -> bytes:
    """A JPEG file with another size in its header."""
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def _in_groups(files: dict[str, bytes], size: int) -> Iterator[dict[str, bytes]]:
    names = list(files)
    for start in range(0, len(names), size):
        yield {name: files[name] for name in names[start : start + size]}
