"""Decodes photographs of any kind into 8-bit RGB, or says in one line why that is impossible.

The only place that opens image files for their colours. Orientation is taken from EXIF by one function for
both `decode` and `image_size`, so sizes known from headers always agree with decoded images.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from wsss.errors import DataError

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
FORMATS: Final = ("JPEG", "PNG", "BMP", "WEBP")
MAX_PIXELS: Final = 80_000_000  # a larger image is more likely an accident than a photograph

_TRANSPOSES: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_SIGNATURE_BYTES: Final = 8


def decode(path: Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode one image as it should be seen: rotated by EXIF, 8-bit RGB.

    Grey, palette, CMYK and 16-bit images are converted; transparent parts become white; of an animation, the
    first frame is taken. Colour profiles are ignored.

    Args:
        path: a JPEG, PNG, BMP or WebP file.
        max_pixels: largest number of pixels that is decoded.

    Returns:
        RGB, 0-255; (H, W, 3), uint8.

    Raises:
        DataError: the file is missing, empty, damaged, of another format, or too large.
    """
    with _opened(path, max_pixels) as image:
        orientation = _orientation(image, path)
        try:
            image.load()
            upright = image.transpose(_TRANSPOSES[orientation]) if orientation in _TRANSPOSES else image
            return np.array(_as_rgb(upright))
        except Exception as error:  # decoders raise almost anything on damaged files
            raise DataError(
                f"Image {path} is damaged or cut short ({_reason(error)}). "
                "Replace the file, or remove it and its line in the lists."
            ) from error


def image_size(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) in pixels as `decode` gives them, from the file's header alone.

    Raises:
        DataError: as `decode`, as far as the header shows it.
    """
    with _opened(path, max_pixels) as image:
        width, height = image.size
        is_lying = _orientation(image, path) >= 5  # 5-8 exchange rows and columns
        return (width, height) if is_lying else (height, width)


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow's own limit stands in the way of what was asked for
    try:
        image = Image.open(path, formats=FORMATS)
    except FileNotFoundError:
        raise DataError(
            f"There is no image {path}. Put it there, or remove its lines from lists and tags that name it."
        ) from None
    except Image.DecompressionBombError:
        raise _too_large(path, None, max_pixels) from None
    except Exception as error:  # a damaged header can make a decoder raise almost anything
        raise _unreadable(path, error) from error
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise _too_large(path, (height, width), max_pixels)
        yield image


def _too_large(path: Path, size: tuple[int, int] | None, max_pixels: int) -> DataError:
    found = f"{size[0]} x {size[1]} pixels" if size else "far more pixels than that"
    return DataError(
        f"Image {path} must have at most {max_pixels:,} pixels; got {found}. "
        "Make it smaller, or raise `max_pixels` of the data section if it is meant to be so large."
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    if path.is_dir():
        return DataError(f"Expected an image file; {path} is a folder. Correct the path.")
    if isinstance(error, PermissionError):
        return DataError(f"Image {path} may not be read by this user. Change its permissions.")
    if path.stat().st_size == 0:
        return DataError(
            f"Image {path} is empty (0 bytes). Replace the file, or remove it and its line in the lists."
        )
    return DataError(
        f"Image {path} is no readable JPEG, PNG, BMP or WebP file ({_reason(error)}). "
        "Replace or convert it, or remove it and its line in the lists."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "unknown content"
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__


def _orientation(image: Image.Image, path: Path) -> int:
    """EXIF orientation 1-8, read without decoding pixels; 1 when there is none or it is damaged."""
    data = image.info.get("exif")
    if data is None and image.format == "PNG":
        data = _png_exif(path)
    if not data:
        return 1
    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damaged EXIF
            exif.load(data)
        value = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF says nothing; the pixels may be fine
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _png_exif(path: Path) -> bytes | None:
    """The eXIf chunk of a PNG file wherever it stands: some programs write it behind the pixels."""
    with path.open("rb") as file:
        file.seek(_PNG_SIGNATURE_BYTES)
        while len(header := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", header)
            if name == b"eXIf":
                return b"Exif\x00\x00" + file.read(length)
            file.seek(length + 4, 1)  # its data and checksum
    return None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scaling
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        visible = image.convert("RGBA")
        white = Image.new("RGBA", visible.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, visible).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
