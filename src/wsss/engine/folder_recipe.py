"""A recipe for a folder of one's own: a shipped template, fitted to the images that are there.

Both `wsss doctor`, which proposes a recipe, and `wsss label`, which runs one, take it from here. Lengths
and sizes of the templates were tried on `TRIED_IMAGES` photographs of `TRIED_LONG_SIDE` pixels (longer side);
other folders get about as many presentations of images, which networks see at about that size.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any, Final

import yaml

from wsss.checks import nearest
from wsss.engine.recipe_files import find_recipe, read_yaml
from wsss.errors import RecipeError, WeightsError
from wsss.layers.class_texts import published_texts, spelling
from wsss.models.weights import find_weights
from wsss.refiners.base import find_refiner

METHODS: Final = ("smvwe", "cam", "clims", "qa_clims")
DEFAULT_METHOD: Final = "smvwe"  # needs tags alone, and gains most on photographs (docs/quickstart.md)
LANGUAGE_METHODS: Final = ("clims", "qa_clims")
PUBLIC_TEACHER: Final = "openai/clip-vit-base-patch32"

TRIED_IMAGES: Final = 276
TRIED_LONG_SIDE: Final = 320
LARGEST_UNSCALED: Final = 400  # longer sides above this are shrunk to about the size that was tried
MOST_SURROUNDINGS: Final = 6  # background texts of one class


@dataclass(frozen=True)
class FolderFacts:
    """What the fit depends on.

    Args:
        tagged: images that are trained on.
        sizes: (height, width) of some of them, in pixels; at least one.
    """

    tagged: int
    sizes: tuple[tuple[int, int], ...]

    @property
    def long_side(self) -> float:
        """Median of the longer sides, in pixels."""
        return median(max(size) for size in self.sizes)

    @property
    def short_side(self) -> float:
        """Median of the shorter sides, in pixels."""
        return median(min(size) for size in self.sizes)


@dataclass(frozen=True)
class Surroundings:
    """Background texts class by class, and where they come from.

    Args:
        texts: words by class name; a class of which nothing is known is left out.
        source: "scene words", "tags", "general" (a published list, of other images) or "none".
    """

    texts: dict[str, tuple[str, ...]]
    source: str


def check_method(method: str) -> str:
    """`method`, if there is a template for it.

    Raises:
        RecipeError: there is none.
    """
    if method not in METHODS:
        raise RecipeError(f"There is no template for the method `{method}`. {nearest(method, METHODS)}")
    return method


def data_name(folder: Path) -> str:
    """A short name for a data set: that of its folder, or of the one above where it is only called `images`.

    Example:
        >>> data_name(Path("/data/my farm/images"))
        'my-farm'
    """
    whole = folder.resolve()
    name = whole.parent.name if whole.name in ("images", "JPEGImages") else whole.name
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "data"


def public_teacher(method: str) -> str | None:
    """The public CLIP, where the method wants a teacher and the local cache holds it; downloads nothing."""
    if method not in LANGUAGE_METHODS:
        return None
    try:
        find_weights(PUBLIC_TEACHER)
    except WeightsError:
        return None
    return PUBLIC_TEACHER


def folder_recipe(
    data: Mapping[str, Any],
    method: str,
    facts: FolderFacts,
    *,
    name: str,
    teacher: str | None = None,
    background_texts: Mapping[str, Sequence[str]] | None = None,
    refine: Sequence[str] = (),
    background_score: float | None = None,
    quick: bool = False,
) -> dict[str, Any]:
    """The template of a method for this folder, as plain data that `parse_recipe` takes.

    Args:
        data: the section `data`, with a `name`.
        method: one of `METHODS`.
        facts: counts and sizes of the images.
        name: of the recipe, for tables and the run's folder.
        teacher: public CLIP in place of a teacher trained from the tags.
        background_texts: for `clims`, where the classes bring none: by class name.
        refine: names of refiners, in order.
        background_score: score of class 0 in [0, 1]; None: chosen without masks.
        quick: a few steps only, to see that everything works; nothing can be learnt from that.

    Raises:
        RecipeError: an unknown method, or a background score that nothing would use.
    """
    raw = read_yaml(find_recipe(f"folder/{check_method(method)}"))
    about = {
        "title": f"{method.upper().replace('_', '-')} on the tagged images of {data['name']}",
        "paper": raw["about"]["paper"],
        "command": "wsss run recipe.yaml",
        "notes": _notes(facts),
    }
    recipe: dict[str, Any] = {"name": name, **raw, "about": about, "data": dict(data)}
    if teacher is not None and method in LANGUAGE_METHODS:
        _use_public_teacher(recipe, method, teacher)
    if method == "clims" and background_texts:
        recipe["method"]["background_texts"] = {key: list(words) for key, words in background_texts.items()}
    _fit(recipe, facts)
    if refine:
        recipe["refine"] = [{"name": refiner} for refiner in refine]
    if background_score is not None:
        _set_background(recipe, background_score)
    if quick:
        _shorten(recipe)
    return recipe


def recipe_text(recipe: Mapping[str, Any], heading: Sequence[str]) -> str:
    """The recipe as YAML behind comment lines."""
    comments = "".join(f"# {line}\n" for line in heading)
    body = yaml.safe_dump(
        dict(recipe), sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )
    return comments + str(body)


def surroundings(
    labels: Mapping[str, Collection[str]], scenes: Mapping[str, Sequence[str]], *, general: bool
) -> Surroundings:
    """Propose what tends to surround each class, from what the tags know.

    Words of the column `scene` of a class's images come first, the most frequent ones. Without any such
    word, other classes that are tagged in at least half of a class's images stand in for them.

    Args:
        labels: class names by image id.
        scenes: scene words by image id.
        general: whether a published list may be used where neither is known (a public CLIP knows its words).
    """
    names = sorted({name for found in labels.values() for name in found})
    taken = {spelling(name) for name in names}
    everywhere = _frequent(word for words in scenes.values() for word in words if spelling(word) not in taken)
    if everywhere:
        texts = {}
        for name in names:
            own = [scenes.get(image_id, ()) for image_id, found in labels.items() if name in found]
            words = _frequent(word for each in own for word in each if spelling(word) not in taken)
            texts[name] = words or everywhere
        return Surroundings(texts, "scene words")
    beside = {name: _companions(name, labels) for name in names}
    if any(beside.values()):
        return Surroundings({name: words for name, words in beside.items() if words}, "tags")
    if general:
        listed = published_texts("voc_improved").background_texts
        return Surroundings(dict.fromkeys(names, tuple(listed)), "general")
    return Surroundings({}, "none")


def _companions(name: str, labels: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Other classes that are tagged in at least half of a class's images."""
    own = [found for found in labels.values() if name in found]
    counts = Counter(other for found in own for other in found if other != name)
    return tuple(word for word, count in counts.most_common(MOST_SURROUNDINGS) if 2 * count >= len(own))


def _frequent(words: Any) -> tuple[str, ...]:
    counts = Counter(words)
    return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:MOST_SURROUNDINGS])


def _use_public_teacher(recipe: dict[str, Any], method: str, teacher: str) -> None:
    recipe.pop("train_teacher", None)
    recipe["method"]["teacher"] = teacher
    if method == "clims":
        recipe["method"]["similarity"] = "clamp"


def _trainings(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sections of all trainings but the teacher's, which has its own length."""
    owners = (recipe, recipe.get("initialise"), recipe.get("segmentation"))
    return [owner["training"] for owner in owners if owner and "training" in owner]


def _fit(recipe: dict[str, Any], facts: FolderFacts) -> None:
    """Lengths, batches and sizes."""
    shrink = _shrink(facts)
    for training in _trainings(recipe):
        training["epochs"] = _epochs(training["epochs"], facts.tagged)
        training["batch_size"] = max(1, min(training.get("batch_size", 16), facts.tagged))
        augmentation = dict(training["augmentation"])
        crop = round(0.75 * facts.short_side * shrink / 16) * 16
        augmentation["crop_size"] = min(augmentation["crop_size"], max(32, crop))
        if shrink < 1:
            low, high = augmentation.pop("scale")
            augmentation["long_side"] = [round(low * TRIED_LONG_SIDE), round(high * TRIED_LONG_SIDE)]
        training["augmentation"] = augmentation
    if shrink < 1:
        activation = recipe["activation"]
        activation["scales"] = [round(scale * shrink, 4) for scale in activation["scales"]]
        recipe["segmentation"]["test_scales"] = [round(shrink, 4)]


def _shrink(facts: FolderFacts) -> float:
    """Factor from the images' size to the one that networks see."""
    return 1.0 if facts.long_side <= LARGEST_UNSCALED else TRIED_LONG_SIDE / facts.long_side


def _epochs(tried: int, images: int) -> int:
    """As many presentations as were tried; a quarter to four times as many epochs at most."""
    wanted = tried * TRIED_IMAGES / max(1, images)
    return max(1, ceil(min(max(wanted, tried / 4), tried * 4)))


def _notes(facts: FolderFacts) -> str:
    text = f"Fitted to {facts.tagged:,} images to train on, median longer side {facts.long_side:.0f} pixels."
    if _shrink(facts) < 1:
        text += f" Networks see them at about {TRIED_LONG_SIDE} pixels, masks have the images' own size."
    return text


def _set_background(recipe: dict[str, Any], score: float) -> None:
    """Put a constant background score where maps become masks: the first refiner that wants it, or last."""
    if not 0 <= score <= 1:
        raise RecipeError(
            f"A background score must lie in [0, 1]; got {score:g}. Or let it be chosen: `auto`."
        )
    classes = [find_refiner(refiner["name"]) for refiner in recipe.get("refine", [])]
    if not classes or classes[-1].background != "set":
        recipe["pseudo_masks"] = {"background_score": score}
        return
    for refiner, cls in zip(recipe["refine"], classes, strict=True):
        if "background_score" in cls.Config.model_fields:
            refiner["background_score"] = score
            return
    names = ", ".join(f"`{refiner['name']}`" for refiner in recipe["refine"])
    raise RecipeError(
        f"A background score was given, but the refiners {names} make a background of their own. "
        "Leave it out, or choose `dense_crf`."
    )


def _shorten(recipe: dict[str, Any]) -> None:
    """A few steps of everything, on small crops."""
    for training in _trainings(recipe):
        training["epochs"] = 1
        training["batch_size"] = min(training["batch_size"], 8)
        training["augmentation"]["crop_size"] = min(training["augmentation"]["crop_size"], 64)
    if "train_teacher" in recipe:
        recipe["train_teacher"] = {"training": {"steps": 10}}
    recipe["activation"] = {
        **recipe["activation"],
        "scales": recipe["activation"]["scales"][:1],
        "flip": False,
    }
