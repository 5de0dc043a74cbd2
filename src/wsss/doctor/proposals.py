"""Proposes a classes file and a recipe, to be read and edited: names, prompts, background texts, lengths."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from wsss.data.classes import ClassList, read_classes
from wsss.data.image_folder import ImageFolder
from wsss.data.splits import Splits, drawn_split, lists_in
from wsss.doctor.findings import Finding
from wsss.doctor.inputs import VAL_FRACTION
from wsss.doctor.spellings import merged_classes
from wsss.doctor.survey import Survey
from wsss.engine.folder_recipe import (
    LANGUAGE_METHODS,
    PUBLIC_TEACHER,
    FolderFacts,
    Surroundings,
    data_name,
    folder_recipe,
    public_teacher,
    recipe_text,
    surroundings,
)
from wsss.engine.recipe import Recipe, load_recipe, parse_recipe
from wsss.errors import DataError
from wsss.training.checkpoint import write_atomically
from wsss.types import ClassInfo

CLASSES_FILE: Final = "classes.yaml"
RECIPE_FILE: Final = "recipe.yaml"

_SOURCES: Final = {
    "scene words": "They are the words of the column `scene` that come with each class.",
    "tags": "They are other classes that come with each class; words for surroundings would be better.",
    "general": "They are a published list (CLIMS) that knows nothing of these images. Correct them.",
    "none": "None are known: the tags have neither scene words nor classes that come together. Add some.",
}


@dataclass(frozen=True)
class Proposal:
    """A classes file and a recipe.

    Args:
        classes: the K foreground classes with prompts and background texts.
        surroundings: where the background texts come from.
        recipe: plain data of the recipe, without a classes file.
        teacher: public CLIP that it uses; None: none, or one trained from the tags.
    """

    classes: tuple[ClassInfo, ...]
    surroundings: Surroundings
    recipe: dict[str, Any]
    teacher: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"classes": [_entry(info) for info in self.classes], "recipe": self.recipe}

    def parsed(self) -> Recipe:
        """The recipe, checked; class texts stand in it, so that no file is needed."""
        return parse_recipe(self.recipe, "the proposed recipe")


def propose(found: Survey, method: str, sizes: tuple[tuple[int, int], ...], masks: int) -> Proposal | None:
    """A proposal for a folder of tagged images; None where images or classes are unknown.

    Args:
        found: images, tags and classes.
        method: one of the templates' methods.
        sizes: (height, width) of the images.
        masks: true masks that are there.
    """
    classes = _classes(found)
    if classes is None or found.images is None or not found.labels or not sizes:
        return None
    teacher = public_teacher(method)
    labels = {image_id: _own_names(classes, names) for image_id, names in found.labels.items()}
    around = surroundings(labels, found.scenes, general=teacher is not None)
    infos = tuple(_with_texts(info, around) for info in classes.infos)
    data = found.inputs.data_section()
    if masks < len(found.images.ids):
        data.pop("masks", None)  # a run scores all images of a split, or none
    if found.inputs.class_names is not None:
        data["class_names"] = list(found.inputs.class_names)
    recipe = folder_recipe(
        data,
        method,
        FolderFacts(_trained_on(found, found.images), sizes),
        name=f"{data_name(found.inputs.root)}-{method}",
        teacher=teacher,
        background_texts={info.name: info.background_texts for info in infos if info.background_texts},
    )
    return Proposal(infos, around, recipe, teacher)


def check_language(proposal: Proposal, method: str) -> list[Finding]:
    """Whether a language method has words to work with, and whose teacher it uses."""
    if method not in LANGUAGE_METHODS:
        return []
    if proposal.teacher is not None:
        what = f"`{proposal.teacher}` is in the local cache, so `{method}` uses it as teacher."
        advice = (
            "It knows everyday English. Write `train_teacher` into the recipe where your words are others."
        )
        return [Finding("note", "public-teacher", what, advice)]
    has_words = any(info.background_texts for info in proposal.classes)
    if proposal.surroundings.source == "scene words" or (method == "clims" and has_words):
        return []
    return [
        Finding(
            "error",
            "no-background-words",
            f"`{method}` needs words for what surrounds the classes, and the tags have no column `scene`.",
            f"Add that column, run `wsss weights fetch {PUBLIC_TEACHER}` where your classes have everyday "
            "names, or choose `smvwe`, which needs tags alone.",
        )
    ]


def write_proposal(proposal: Proposal, out: Path, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Write `classes.yaml` and `recipe.yaml` into `out`, and read both back.

    Raises:
        DataError: one of them is there already, and may not be replaced.
    """
    classes, recipe = out / CLASSES_FILE, out / RECIPE_FILE
    for path in (classes, recipe):
        if path.exists() and not overwrite:
            raise DataError(
                f"{path} is there already and is not replaced. Name another folder as `--out`, or add "
                "`--overwrite`."
            )
    write_atomically(classes, classes_text(proposal).encode())
    read_classes(classes)
    write_atomically(recipe, _recipe_text(proposal, classes).encode())
    load_recipe(recipe)
    return classes, recipe


def classes_text(proposal: Proposal) -> str:
    """The classes file."""
    heading = (
        "# Proposed from the tags; edit it. The order is that of the mask values: the first class is 1.",
        "# prompt: noun for a language teacher. synonyms: other spellings in the tags; take out what is a",
        "# class of its own. background_texts: what tends to surround the class.",
        f"# {_SOURCES[proposal.surroundings.source]}",
    )
    document = {"classes": [_entry(info) for info in proposal.classes]}
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    return "\n".join(heading) + "\n" + str(body)


def _recipe_text(proposal: Proposal, classes: Path) -> str:
    """The recipe with the classes file in place of names and texts."""
    data = {key: value for key, value in proposal.recipe["data"].items() if key != "class_names"}
    method = {key: value for key, value in proposal.recipe["method"].items() if key != "background_texts"}
    recipe = {
        **proposal.recipe,
        "data": {**data, "classes": str(classes.resolve())},
        "method": method,
    }
    heading = (
        "Proposed from a shipped template and the images; edit it, then run `wsss run` with this file.",
        "`wsss show` prints it with all defaults filled in.",
    )
    return recipe_text(recipe, heading)


def _trained_on(found: Survey, images: ImageFolder) -> int:
    """Tagged images of the split `train` of the proposed recipe; at least 1."""
    tagged, splits = found.labels, found.inputs.splits
    is_voc = found.inputs.annotations is not None
    if splits is None and not is_voc:
        train, _ = drawn_split(tuple(tagged), VAL_FRACTION, 0)
        return max(1, len(train))
    if splits is None:
        return len(tagged)
    try:
        ids = Splits(images, lists=lists_in(splits), first_word_only=is_voc).ids("train")
    except DataError:  # a run says what is wrong with the list
        return len(tagged)
    return max(1, sum(image_id in tagged for image_id in ids))


def _classes(found: Survey) -> ClassList | None:
    """The listed classes, else those of the tags with similar spellings joined."""
    if found.listed or found.classes is None:
        return found.classes
    counts = Counter(label for row in found.rows for label in row.labels)
    return merged_classes(counts, str(found.inputs.tags), similar=True)


def _own_names(classes: ClassList, names: tuple[str, ...]) -> tuple[str, ...]:
    indices = (classes.index(name) for name in names)
    return tuple(dict.fromkeys(classes.infos[index].name for index in indices if index is not None))


def _with_texts(info: ClassInfo, around: Surroundings) -> ClassInfo:
    texts = info.background_texts or around.texts.get(info.name, ())
    return ClassInfo(info.name, info.display, info.prompt or readable(info.name), info.synonyms, tuple(texts))


def readable(name: str) -> str:
    """A class name as words: no underscores, hyphens or capitals in the middle.

    Example:
        >>> readable("leaf_spot"), readable("rustPatch"), readable("TV-set")
        ('leaf spot', 'rust patch', 'TV set')
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"[_\-]+", " ", name)).split()
    return " ".join(word if word.isupper() else word.lower() for word in parted)


def _entry(info: ClassInfo) -> dict[str, Any]:
    """A class as the file has it; what is empty or says nothing new is left out."""
    entry: dict[str, Any] = {"name": info.name}
    if info.display:
        entry["display"] = info.display
    if info.prompt and info.prompt != info.name:
        entry["prompt"] = info.prompt
    for key in ("synonyms", "background_texts"):
        if words := getattr(info, key):
            entry[key] = list(words)
    return entry
