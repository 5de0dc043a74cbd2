"""A trained segmentation network with all that is needed to use it: classes, colours, normalisation, tests.

A model folder holds `model.safetensors` (the weights), `config.json` (everything else) and `README.md` (a
card for people). No pickle is written or read.
"""

from __future__ import annotations

import functools
import hashlib
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveFloat, ValidationError
from torch import Tensor
from typing_extensions import Self

from wsss.crf import PRESETS as CRF_PRESETS
from wsss.data.images import decode
from wsss.data.masks_png import voc_palette
from wsss.errors import ShapeError, WeightsError, WsssError
from wsss.segmentation import build, without_weights
from wsss.segmentation.base import SegmentationNet
from wsss.segmentation.config import SegmentationConfig
from wsss.segmentation.predict import crf_marginals, probabilities
from wsss.segmentation.tiles import ALIGNMENT, LEAST_TILE, tiled_rows
from wsss.training.checkpoint import atomic_folder, load_state, save_state

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
CARD: Final = "README.md"
MODEL_TYPE: Final = "wsss-segmentation"
TILE: Final = 2048  # pixels; larger images than its square are cut up
CRF: Final = "deeplab_v2"  # parameters of the dense CRF after a network (deeplab-pytorch)

Mask = npt.NDArray[np.uint8]
Picture = Mask | str | Path
"""RGB, 0-255, (H, W, 3), uint8; or an image file."""

_Level = Annotated[int, Field(ge=0, le=255)]
_Scale = Annotated[float, Field(gt=0, le=16)]


class _Saved(BaseModel):
    """`config.json` of a model folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: Literal["wsss-segmentation"]
    format_version: Literal[1]
    class_names: tuple[str, ...] = Field(min_length=2, max_length=255)
    colours: tuple[tuple[_Level, _Level, _Level], ...]
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    segmentation: SegmentationConfig
    about: dict[str, Any]


class PredictionSettings(BaseModel):
    """How masks are predicted.

    Args:
        scales: image scales whose probabilities are averaged; None: those that the model was tested at.
        flip: also average with the mirrored image; None: as the model was tested.
        crf: let a dense CRF follow, with the model's own parameters or else those of DeepLab V2; of an image
            in tiles, in each tile.
        tile: images of more than `tile` times `tile` pixels are predicted in tiles of at most that side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scales: Annotated[tuple[_Scale, ...], Field(min_length=1)] | None = None
    flip: bool | None = None
    crf: bool = False
    tile: int = Field(TILE, ge=LEAST_TILE)


class SegmentationModel:
    """A network that gives each pixel of a photograph its class; needs no tags.

    Args:
        net: trained; put into evaluation mode.
        config: what `net` was built from; gives scales and flip of the prediction.
        class_names: K + 1 names, the first "background".
        colours: RGB, 0-255, of each class; (K + 1, 3); None: the first of the VOC palette.
        card: text of the model's `README.md`; empty: a short one is written.
        about: where the model comes from; plain data, kept in `config.json`.

    Raises:
        ShapeError: the numbers of classes differ.
    """

    def __init__(
        self,
        net: SegmentationNet,
        config: SegmentationConfig,
        class_names: Sequence[str],
        *,
        colours: npt.ArrayLike | None = None,
        card: str = "",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.net = net.eval()
        self.config = config
        self.class_names = tuple(class_names)
        chosen = voc_palette()[: len(self.class_names)] if colours is None else colours
        self.colours = np.asarray(chosen, np.uint8)
        self.card = card
        self.about = dict(about or {})
        if net.num_classes != len(self.class_names) or self.colours.shape != (net.num_classes, 3):
            raise ShapeError(
                f"`class_names` and `colours` must fit the network's {net.num_classes} classes; got "
                f"{len(self.class_names)} names and colours of shape {self.colours.shape}. "
                "Name the background too."
            )

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        values: list[Tensor] = list(self.net.state_dict().values())
        return values[0].device if values else torch.device("cpu")

    def to(self, device: torch.device | str) -> Self:
        """The same model, its network moved to `device`."""
        self.net.to(device)
        return self

    @property
    def palette(self) -> Mask:
        """Colours of the values 0-255 in mask files; (256, 3): the classes' own, then those of VOC."""
        palette: Mask = voc_palette().copy()
        palette[: len(self.colours)] = self.colours
        return palette

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of weights, classes, colours and test settings; the same in every folder and run."""
        saved = self._saved().model_dump(mode="json", exclude={"about": True, "segmentation": {"training"}})
        found = hashlib.sha256(json.dumps(saved, sort_keys=True).encode())
        for name, value in sorted(self.net.state_dict().items()):
            found.update(f"\0{name} {value.dtype} {tuple(value.shape)}\0".encode())
            found.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
        return found.hexdigest()

    def predict(self, image: Picture, settings: PredictionSettings | None = None) -> Mask:
        """The class of each pixel.

        Args:
            image: any size; larger than `settings.tile` squared, it is predicted in tiles.
            settings: None: as the model was tested.

        Returns:
            Values 0…K; (H, W), uint8.
        """
        parts = self._rows(image, settings or PredictionSettings())
        return np.concatenate([part.argmax(dim=0).to(torch.uint8).cpu().numpy() for part in parts])

    def probabilities(
        self, image: Picture, settings: PredictionSettings | None = None
    ) -> npt.NDArray[np.float32]:
        """The probability of each class at each pixel; (C, H, W), in [0, 1]; arguments as of `predict`."""
        parts = self._rows(image, settings or PredictionSettings())
        return np.concatenate([part.cpu().numpy() for part in parts], axis=1)

    def _rows(self, image: Picture, settings: PredictionSettings) -> Iterator[Tensor]:
        """Probabilities of the rows of an image, (C, rows, W) each; all at once where it fits a tile."""
        pixels = _checked(image)
        height, width = pixels.shape[:2]
        most = settings.tile**2
        if height * width <= most:
            yield self._part(pixels, settings, most)
            return
        scales = settings.scales or self.config.test_scales
        fitting = int(settings.tile / max(1.0, *scales)) // ALIGNMENT * ALIGNMENT
        side = max(LEAST_TILE, fitting)  # the largest scale of a tile has no more pixels than a whole image
        yield from tiled_rows(
            lambda rows, columns: self._part(pixels[rows, columns], settings, most),
            (height, width),
            side,
            side // 4,
        )

    @torch.no_grad()
    def _part(self, pixels: Mask, settings: PredictionSettings, most: int) -> Tensor:
        """Probabilities (C, h, w) of a part (h, w, 3) of an image."""
        mean, std = (
            torch.tensor(values, device=self.device)[:, None, None]
            for values in (self.net.mean, self.net.std)
        )
        whole = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).permute(2, 0, 1)
        scores = probabilities(
            self.net,
            ((whole.float() / 255 - mean) / std)[None],
            scales=settings.scales or self.config.test_scales,
            flip=self.config.test_flip if settings.flip is None else settings.flip,
            max_pixels=most,
        )  # (1, C, h, w)
        if settings.crf:
            scores = crf_marginals(scores, pixels[None], self.config.dense_crf or CRF_PRESETS[CRF])
        return scores[0]

    def save_pretrained(self, folder: Path | str) -> Path:
        """Write the model folder, complete or not at all; an older model there is replaced.

        Raises:
            WeightsError: `folder` holds something else, alone or beside a model.
        """
        folder = Path(folder)
        check_target(folder)
        with atomic_folder(folder) as unfinished:
            save_state(unfinished / WEIGHTS, self.net.state_dict())
            text = json.dumps(self._saved().model_dump(mode="json"), indent=1, ensure_ascii=False)
            (unfinished / CONFIG).write_text(text + "\n", encoding="utf-8")
            (unfinished / CARD).write_text(self.card or _short_card(self), encoding="utf-8")
        return folder

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, device: torch.device | str = "cpu") -> Self:
        """Read a model folder.

        Raises:
            WeightsError: the folder holds no such model, or a damaged one.
        """
        folder = Path(folder)
        if not is_model_folder(folder):
            raise WeightsError(
                f"{folder} holds no segmentation model (a {CONFIG} with `model_type` `{MODEL_TYPE}`). "
                "Make one with `wsss export model RUN --out DIR`."
            )
        try:
            saved = _Saved.model_validate_json((folder / CONFIG).read_text(encoding="utf-8"))
            net = build(saved.segmentation, saved.class_names)
            net.mean, net.std = saved.mean, saved.std
            net.load_state_dict(load_state(folder / WEIGHTS)[0])
            card = folder / CARD
            text = card.read_text(encoding="utf-8") if card.is_file() else ""
            options: dict[str, Any] = {"colours": saved.colours, "card": text, "about": saved.about}
            model = cls(net, saved.segmentation, saved.class_names, **options)
        except (ValidationError, WsssError, RuntimeError, ValueError, OSError) as error:
            raise WeightsError(
                f"The model in {folder} is damaged or of another version of wsss ({_first_line(error)}). "
                "Export it again, or get it again from where it came from."
            ) from error
        return model.to(device)

    def _saved(self) -> _Saved:
        return _Saved(
            model_type=MODEL_TYPE,
            format_version=1,
            class_names=self.class_names,
            colours=tuple(map(tuple, self.colours.tolist())),
            mean=self.net.mean,
            std=self.net.std,
            segmentation=without_weights(self.config, self.net),  # all weights are in the folder
            about=self.about,
        )

    def __repr__(self) -> str:
        return f"SegmentationModel({', '.join(f'{name}={value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        """What notebooks show: the facts, and the classes in their colours."""
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in self._facts().items()
        )
        classes = " ".join(
            f'<span style="border-left:1em solid rgb({red},{green},{blue});padding:0 .4em">'
            f"{html.escape(name)}</span>"
            for name, (red, green, blue) in zip(self.class_names, self.colours.tolist(), strict=True)
        )
        return f"<table><caption>SegmentationModel</caption>{rows}</table><p>{classes}</p>"

    def _facts(self) -> dict[str, Any]:
        return {
            "network": f"{self.config.network} ({self.config.backbone})",
            "classes": len(self.class_names),
            "parameters": f"{sum(p.numel() for p in self.net.parameters()):,}",
            "scales": " ".join(f"{scale:g}" for scale in self.config.test_scales),
            "flip": self.config.test_flip,
            "device": str(self.device),
            "fingerprint": self.fingerprint[:12],
        }


def is_model_folder(folder: Path) -> bool:
    """Whether the folder's `config.json` says that it is a segmentation model of this library."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("model_type") == MODEL_TYPE


def check_target(folder: Path) -> None:
    """Make sure that a model can be written to `folder` without loss.

    The whole folder is replaced, so a model with anything beside it (masks, a graph for ONNX) is refused too.
    Hidden files, as systems and downloads leave them, don't count; a repository of git does.

    Raises:
        WeightsError: it is a file, or a folder that holds anything but a model.
    """
    if not folder.exists():
        return
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    others = {name for name in found if name == ".git" or not name.startswith(".")}
    if is_model_folder(folder):
        others -= {CONFIG, WEIGHTS, CARD}
    if others:
        raise WeightsError(
            f"{folder} is to become a model folder, but holds something else ({sorted(others)[0]}). "
            "Give a folder that does not exist yet."
        )


def _checked(image: Picture) -> Mask:
    if isinstance(image, str | Path):
        return decode(Path(image))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ShapeError(
            f"`image` must be (H, W, 3) uint8 RGB; got {image.shape} {image.dtype}. "
            "Read it with `wsss.data.images.decode`, or pass its path."
        )
    return image


def _short_card(model: SegmentationModel) -> str:
    names = ", ".join(model.class_names[1:])
    return f"# Segmentation model\n\nClasses: {names}. Load it with `SegmentationModel.from_pretrained`.\n"


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or CONFIG}: {first['msg']}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip(" .:")
