"""Random geometry and colour of training images, and the same geometry for what lies on their pixels.

The order is the reference code's: resize, colour jitter, normalise, mirror, crop. The image is mirrored and
cropped before it is normalised, which gives the same numbers for less work; padding is 0 after normalisation,
the mean colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torchvision.transforms.v2 import functional as TF
from typing_extensions import Self

from wsss.errors import ShapeError
from wsss.types import IGNORE

_RESAMPLING: Final = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_SIZE_FIELDS: Final = ("long_side", "scale", "scale_choices")


class Jitter(BaseModel):
    """Random changes of colour, in random order as in torchvision (PSA, EPS: 0.3, 0.3, 0.3, 0.1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    brightness: float = Field(0.3, ge=0, description="Factor drawn from 1 ± this, at least 0.")
    contrast: float = Field(0.3, ge=0, description="Factor drawn from 1 ± this, at least 0.")
    saturation: float = Field(0.3, ge=0, description="Factor drawn from 1 ± this, at least 0.")
    hue: float = Field(
        0.1, ge=0, le=0.5, description="Shift drawn from ± this, in turns of the colour circle."
    )


class Augmentation(BaseModel):
    """How a training image is resized, mirrored and cropped; the defaults are those of IRN and CLIMS.

    At most one of `long_side`, `scale` and `scale_choices` is set; giving a scale switches `long_side` off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop_size: int = Field(512, ge=1, description="Side of the square crop in pixels (IRN, CLIMS: 512).")
    long_side: tuple[int, int] | None = Field(
        (320, 640),
        description="Limits of the longer side's length in pixels, both included (IRN, CLIMS: 320, 640).",
    )
    scale: tuple[float, float] | None = Field(
        None, description="Limits of a factor for both sides (IRN's affinity network: 0.5, 1.5)."
    )
    scale_choices: tuple[float, ...] | None = Field(
        None, min_length=1, description="Factors to choose from (DeepLab: 0.5, 0.75, 1, 1.25, 1.5)."
    )
    interpolation: Literal["bicubic", "bilinear"] = Field(
        "bicubic", description="Resizing of the image by Pillow (IRN, CLIMS: bicubic; DeepLab: bilinear)."
    )
    flip: float = Field(
        0.5, ge=0, le=1, description="Probability of mirroring left and right (published: 0.5)."
    )
    jitter: Jitter | None = Field(None, description="Colour jitter (IRN, CLIMS: none).")
    pad: Literal["mean", "black"] = Field(
        "mean", description="Colour around images smaller than the crop (PSA's AffinityNet: black)."
    )
    pad_position: Literal["random", "end"] = Field(
        "random", description="Where a smaller image lies in the crop: anywhere, or top left (DeepLab: end)."
    )

    @model_validator(mode="before")
    @classmethod
    def _scale_instead_of_long_side(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and (values.get("scale") or values.get("scale_choices")):
            return {"long_side": None, **values}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [name for name in _SIZE_FIELDS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"at most one of {', '.join(_SIZE_FIELDS)} can be set; got {' and '.join(given)}"
            )
        for name in ("long_side", "scale"):
            limits = getattr(self, name)
            if limits is not None and not 0 < limits[0] <= limits[1]:
                raise ValueError(f"`{name}` must be two positive numbers in ascending order; got {limits}")
        if self.scale_choices is not None and min(self.scale_choices) <= 0:
            raise ValueError(f"`scale_choices` must be positive; got {self.scale_choices}")
        return self


@dataclass(frozen=True)
class CropBox:
    """A crop of side `side`: `height` x `width` pixels go from `source` in the image to `target` in the crop.

    Args:
        source: (top, left) in the resized image.
        target: (top, left) in the crop; everything outside is padding.
        height: of the part that is taken.
        width: of the part that is taken.
        side: of the crop.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    height: int
    width: int
    side: int

    def cut(self, values: np.ndarray) -> np.ndarray:
        """A copy of the part that is taken from `values` (…, H, W)."""
        top, left = self.source
        part: np.ndarray = values[..., top : top + self.height, left : left + self.width].copy()
        return part

    def lay(self, part: Tensor, canvas: Tensor) -> Tensor:
        """Put `part` (…, height, width) into `canvas` (…, side, side); returns the canvas."""
        top, left = self.target
        canvas[..., top : top + self.height, left : left + self.width] = part
        return canvas


def augment(
    image: np.ndarray,
    aligned: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    mean: Sequence[float],
    std: Sequence[float],
    config: Augmentation,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Resize, jitter, mirror, crop and normalise an image; resize, mirror and crop what belongs to it.

    Args:
        image: RGB, 0-255; (H, W, 3), uint8.
        aligned: per-pixel inputs of the image's height and width. uint8 (H, W) are masks: nearest neighbour,
            padded with 255 (ignore). Floats (H, W) or (C, H, W): bilinear, padded with 0.
        rng: decides everything; it is drawn from equally often whatever `aligned` holds.
        mean: of normalised images, RGB in [0, 1].
        std: of normalised images, RGB in [0, 1].
        config: what is done.

    Returns:
        The image (3, S, S), the aligned inputs (…, S, S), and which pixels are not padding: (S, S), bool.
        S is the crop's side.

    Raises:
        ShapeError: an aligned input has another size than the image, or a type without a rule.

    Source:
        Ahn et al., IRN, CVPR 2019 (voc12/dataloader.py, misc/imutils.py at a2ece00), as in CLIMS.
        Differs: none in geometry; mirroring and cropping come before normalising, with the same result.
    """
    size = _drawn_size((image.shape[0], image.shape[1]), rng, config)
    picture = Image.fromarray(image)
    if size != image.shape[:2]:
        picture = picture.resize(size[::-1], _RESAMPLING[config.interpolation])
    if config.jitter is not None:
        picture = _jittered(picture, rng, config.jitter)
    is_mirrored = rng.random() < config.flip
    box = _drawn_box(size, rng, config)

    pixels = np.asarray(picture).transpose(2, 0, 1)  # (3, h, w)
    part = torch.from_numpy(box.cut(pixels[:, :, ::-1] if is_mirrored else pixels))
    part = TF.normalize(TF.to_dtype(part, torch.float32, scale=True), list(mean), list(std), inplace=True)
    canvas = torch.zeros(3, box.side, box.side)
    if config.pad == "black":
        canvas -= (torch.tensor(mean) / torch.tensor(std))[:, None, None]
    valid = torch.zeros(box.side, box.side, dtype=torch.bool)
    moved = {
        name: _moved(name, values, image.shape[:2], size, is_mirrored, box)
        for name, values in aligned.items()
    }
    return box.lay(part, canvas), moved, box.lay(torch.ones((), dtype=torch.bool), valid)


def _drawn_size(size: tuple[int, int], rng: np.random.Generator, config: Augmentation) -> tuple[int, int]:
    """(height, width) to resize to; halves round to even, as NumPy's rounding in the reference.

    With `scale_choices` fractions are cut off instead, as deeplab-pytorch does.
    """
    if config.long_side is not None:
        factor = int(rng.integers(config.long_side[0], config.long_side[1], endpoint=True)) / max(size)
    elif config.scale is not None:
        factor = float(rng.uniform(*config.scale))
    elif config.scale_choices is not None:
        factor = config.scale_choices[int(rng.integers(len(config.scale_choices)))]
        return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
    else:
        return size
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _drawn_box(size: tuple[int, int], rng: np.random.Generator, config: Augmentation) -> CropBox:
    """Along each axis: a random offset into a longer image, or a random place for a shorter one."""
    side = config.crop_size
    source, target = [0, 0], [0, 0]
    for axis in (0, 1):
        spare = size[axis] - side
        drawn = int(rng.integers(abs(spare), endpoint=True))
        if spare > 0:
            source[axis] = drawn
        elif config.pad_position == "random":
            target[axis] = drawn
    return CropBox(
        (source[0], source[1]), (target[0], target[1]), min(side, size[0]), min(side, size[1]), side
    )


def _jittered(picture: Image.Image, rng: np.random.Generator, jitter: Jitter) -> Image.Image:
    changes = (
        (TF.adjust_brightness, jitter.brightness, 1.0),
        (TF.adjust_contrast, jitter.contrast, 1.0),
        (TF.adjust_saturation, jitter.saturation, 1.0),
        (TF.adjust_hue, jitter.hue, 0.0),
    )
    for index in rng.permutation(len(changes)):
        change, strength, neutral = changes[index]
        value = neutral + float(rng.uniform(-strength, strength))
        if strength > 0:
            picture = change(picture, max(0.0, value) if neutral else value)
    return picture


def _moved(
    name: str,
    values: np.ndarray,
    expected: tuple[int, ...],
    size: tuple[int, int],
    is_mirrored: bool,
    box: CropBox,
) -> Tensor:
    """One aligned input after the image's resize, mirroring and crop."""
    is_mask = values.dtype == np.uint8 and values.ndim == 2
    if not is_mask and not (np.issubdtype(values.dtype, np.floating) and values.ndim in (2, 3)):
        raise ShapeError(
            f"Aligned input `{name}` must be a uint8 mask (H, W) or float planes (H, W) or (C, H, W); got "
            f"{values.dtype} {values.shape}. Convert it before training."
        )
    if values.shape[-2:] != expected:
        raise ShapeError(
            f"Aligned input `{name}` must be {expected} like its image; got {values.shape[-2:]}. "
            "Resize it to the image first."
        )
    resized = _resized_mask(values, size) if is_mask else _resized_planes(values, size)
    part = torch.from_numpy(box.cut(resized[..., ::-1] if is_mirrored else resized))
    fill = IGNORE if is_mask else 0
    canvas = torch.full((*part.shape[:-2], box.side, box.side), fill, dtype=part.dtype)
    return box.lay(part, canvas)


def _resized_mask(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if values.shape == size:
        return values
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.NEAREST))


def _resized_planes(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    values = values.astype(np.float32, copy=False)
    if values.shape[-2:] == size:
        return values
    if values.ndim == 3:
        planes = [_resized_planes(plane, size) for plane in values]
        return np.stack(planes) if planes else np.zeros((0, *size), dtype=np.float32)
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR))
