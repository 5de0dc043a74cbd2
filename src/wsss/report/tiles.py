"""The pictures of one image: what each recipe made of it, beside the photograph and the truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from wsss.activation.store import MapStore
from wsss.activation.words import read_words, word_file
from wsss.data.masks_png import read_mask
from wsss.errors import WsssError
from wsss.models.saliency import saliency_file
from wsss.report.images import (
    Picture,
    data_uri,
    map_picture,
    mask_picture,
    saliency_picture,
    words_picture,
)
from wsss.report.markup import Html, element
from wsss.report.passports import stage_title
from wsss.report.runs import RecipeRuns

KINDS = ("saliency", "words", "maps", "refined", "pseudo_masks", "predictions")
"""What a recipe may have read or made of an image."""


def entry_tiles(entry: RecipeRuns, kind: str, image_id: str, image: Picture) -> Iterator[Html]:
    """One recipe's pictures of one kind; a result that is not there leaves an empty place.

    Args:
        entry: whose; pictures are of its first seed.
        kind: one of `KINDS`.
        image_id: which image.
        image: its photograph.
    """
    if kind == "maps":
        yield from _map_tiles(entry, "activate", "map", image_id, image)
    elif kind == "saliency":
        yield from _saliency_tiles(entry, image_id)
    elif kind == "words":
        yield from _word_tiles(entry, image_id)
    elif kind == "refined":
        for stage in entry.first.stages:
            if stage.name.startswith("refine-"):
                word = stage_title(stage.score_stage).lower() if stage.score_stage else "refined map"
                yield from _map_tiles(entry, stage.name, word, image_id, image)
    elif kind == "pseudo_masks":
        yield from _mask_tiles(entry, kind, "pseudo mask", image_id, image)
    else:
        yield from _mask_tiles(entry, kind, "prediction", image_id, image)


def has_result(entry: RecipeRuns, kind: str, image_id: str) -> bool:
    """Whether the recipe made masks (or, for `maps`, maps) of the image."""
    if kind == "maps":
        stage = entry.first.stage("activate")
        return stage is not None and image_id in MapStore(stage.folder / "maps")
    path = _mask_path(entry, kind, image_id)
    return path is not None and path.is_file()


def tile(caption: str, picture: Picture, description: str) -> Html:
    """A picture with its caption.

    Args:
        caption: short, below the picture.
        picture: at the size in which it is shown.
        description: for those who don't see it.
    """
    height, width = picture.shape[:2]
    image = element(
        "img",
        src=data_uri(picture),
        width=width,
        height=height,
        alt=description,
        loading="lazy",
        decoding="async",
    )
    return element("figure", image, element("figcaption", caption))


def _map_tiles(
    entry: RecipeRuns, stage_name: str, word: str, image_id: str, image: Picture
) -> Iterator[Html]:
    stage = entry.first.stage(stage_name)
    if stage is None:
        return
    caption = f"{entry.label} {word}"
    try:
        maps = MapStore(stage.folder / "maps").read(image_id)
    except WsssError:
        yield _empty(caption)
        return
    picture = map_picture(image, maps.class_ids.tolist(), maps.scores.numpy())
    yield tile(caption, picture, f"activation map of {entry.label}")


def _saliency_tiles(entry: RecipeRuns, image_id: str) -> Iterator[Html]:
    stage = entry.first.stage("detect-saliency")
    if stage is None:
        return
    path = saliency_file(stage.folder / "maps", image_id)
    if path.is_file():  # images that are scored and not trained on have none
        with Image.open(path) as image:
            picture = saliency_picture(np.asarray(image.convert("L")))
        yield tile(f"{entry.label} saliency", picture, f"saliency that {entry.label} trained on")


def _word_tiles(entry: RecipeRuns, image_id: str) -> Iterator[Html]:
    stage = entry.first.stage("write-words")
    if stage is None:
        return
    try:
        words = read_words(word_file(stage.folder / "words", image_id))
    except WsssError:
        yield _empty(f"{entry.label} words")
        return
    yield tile(f"{entry.label} words", words_picture(words), f"visual words of {entry.label}, each a colour")


def _mask_tiles(entry: RecipeRuns, kind: str, word: str, image_id: str, image: Picture) -> Iterator[Html]:
    path = _mask_path(entry, kind, image_id)
    if path is None:
        return
    caption = f"{entry.label} {word}"
    try:
        mask = read_mask(path)
    except WsssError:
        yield _empty(caption)
        return
    if mask.shape != image.shape[:2]:
        yield _empty(f"{caption} (other size)")
        return
    yield tile(caption, mask_picture(image, mask), f"{word} of {entry.label}")


def _mask_path(entry: RecipeRuns, kind: str, image_id: str) -> Path | None:
    stage = entry.first.stage({"pseudo_masks": "pseudo-masks", "predictions": "predict"}[kind])
    return None if stage is None else stage.folder / kind / f"{image_id}.png"


def _empty(caption: str) -> Html:
    return element("figure", element("div", "missing", class_="missing"), element("figcaption", caption))
