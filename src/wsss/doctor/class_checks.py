"""Looks at the classes: is there enough of each, and can tags alone tell it from what comes with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from wsss.doctor.findings import Finding, about
from wsss.doctor.survey import Survey
from wsss.layers.class_texts import published_texts, spelling

FEW_IMAGES: Final = 20  # of a class
IMBALANCE: Final = 20.0  # images of the most frequent class for one of the rarest
SURE_IMAGES: Final = 5  # below that, what always comes together may be chance
STRONG_SHARE: Final = 0.8  # of a class's images that have the scene word
LIFT: Final = 2.0  # times as often as in the other images


def check_classes(found: Survey) -> list[Finding]:
    """Count, compare and look for what always comes together."""
    if found.classes is None or not found.labels:
        return []
    images = {name: set(ids) for name, ids in found.images_of().items()}
    findings = _counts(images)
    present = {name: ids for name, ids in images.items() if ids}
    findings += _together(present)
    findings += _everywhere(present, len(found.labels))
    findings += _scenes(present, found)
    return findings


def advise_other_tools(found: Survey, masks: int) -> list[Finding]:
    """Say where another kind of tool would serve better.

    Args:
        found: tags and classes.
        masks: true masks that are there.
    """
    if found.classes is None or not found.labels:
        return []
    names = [info.name for info in found.classes.infos]
    findings = []
    if _are_everyday(names):
        findings.append(
            Finding(
                "note",
                "everyday-classes",
                "All classes have everyday names (of PASCAL VOC or MS COCO).",
                "A foundation model that is asked for masks by name may serve better, if its licence and "
                "size suit you. wsss is for classes without such names, and for a small model of your own.",
            )
        )
    if masks >= max(FEW_IMAGES, len(found.labels) // 4):
        findings.append(
            Finding(
                "note",
                "many-masks",
                f"True masks of {masks:,} images are there, for {len(found.labels):,} tagged ones.",
                "Training on masks beats training on tags: `segmentation: {target: masks}` without `method`. "
                "Here they are used for scoring only.",
            )
        )
    if len(names) > 1 and all(len(labels) == 1 for labels in found.labels.values()):
        findings.append(
            Finding(
                "note",
                "one-class-per-image",
                "Every tagged image has exactly one class.",
                "Where a class is the whole image (a scene, a texture, a diagnosis), masks say nothing: use "
                "an image classifier. Where it is a thing in the image, add images without any class, and "
                "with several.",
            )
        )
    return findings


def _are_everyday(names: list[str]) -> bool:
    known = {spelling(name) for key in ("voc_qa", "coco_qa") for name in published_texts(key).prompts}
    return all(spelling(name) in known for name in names)


def _counts(images: Mapping[str, set[str]]) -> list[Finding]:
    findings = about(
        "warning",
        "unused-class",
        "Classes are listed that no tag names.",
        "Nothing can be learnt about them. Tag some images with them, or remove them from the list.",
        [name for name, ids in images.items() if not ids],
    )
    few = sorted((len(ids), name) for name, ids in images.items() if 0 < len(ids) < FEW_IMAGES)
    findings += about(
        "warning",
        "few-images",
        f"Classes have fewer than {FEW_IMAGES} tagged images.",
        "Expect poor masks of them. Tag more images, or draw these few masks by hand.",
        [f"{name} ({count})" for count, name in few],
    )
    counts = {name: len(ids) for name, ids in images.items() if ids}
    if counts and max(counts.values()) >= IMBALANCE * min(counts.values()):
        top, low = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        findings.append(
            Finding(
                "warning",
                "imbalance",
                f"`{top}` has {counts[top]:,} tagged images, `{low}` {counts[low]:,}.",
                "Rare classes are learnt last. Tag more images of them, or leave out some of the others.",
            )
        )
    return findings


def _together(images: Mapping[str, set[str]]) -> list[Finding]:
    """Classes of exactly the same images, and classes that never come without another one."""
    groups: dict[frozenset[str], list[str]] = defaultdict(list)
    for name, ids in images.items():
        groups[frozenset(ids)].append(name)
    same = [names for ids, names in groups.items() if len(names) > 1 and len(ids) > 1]
    findings = about(
        "warning",
        "always-together",
        "Classes have exactly the same images: nothing tells them apart.",
        "They can't be separated from tags. Add images of one without the other, or make them one class.",
        [" + ".join(names) for names in same],
    )
    pairs = [
        f"{name} only with {other}"
        for name, ids in images.items()
        for other, others in images.items()
        if len(ids) >= SURE_IMAGES and ids < others and len(others) < _all_images(images)
    ]
    return findings + about(
        "warning",
        "never-alone",
        "Classes are never seen without another one.",
        "Their masks will spread over it. Add images that show the first without the second.",
        pairs,
    )


def _all_images(images: Mapping[str, set[str]]) -> int:
    return len(set().union(*images.values()))


def _everywhere(images: Mapping[str, set[str]], tagged: int) -> list[Finding]:
    return about(
        "warning",
        "in-every-image",
        "Classes are in every tagged image: nothing shows what an image without them looks like.",
        "Add images without them; leave the cell `labels` empty where no class is present.",
        [name for name, ids in images.items() if len(ids) == tagged],
    )


def _scenes(images: Mapping[str, set[str]], found: Survey) -> list[Finding]:
    by_word: dict[str, set[str]] = defaultdict(set)
    for image_id, words in found.scenes.items():
        for word in words:
            by_word[word].add(image_id)
    tagged = set(found.labels)
    pairs = []
    for name, ids in images.items():
        rest = tagged - ids
        if len(ids) < SURE_IMAGES:
            continue
        for word, shown in sorted(by_word.items()):
            share = len(ids & shown) / len(ids)
            other = len(rest & shown) / len(rest) if rest else 1.0
            if share >= STRONG_SHARE and share >= LIFT * other:
                pairs.append(f"{name} with {word} ({share:.0%}, else {other:.0%})")
    return about(
        "warning",
        "cooccurring-background",
        "Surroundings come with a class and seldom without it, so its masks may spread over them.",
        "Add images that show them apart. CLIMS takes such words as background texts; SMVWE's saliency helps "
        "where they do not stand out.",
        pairs,
    )
