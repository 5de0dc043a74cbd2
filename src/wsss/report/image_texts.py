"""The texts that a method trained on, under an image: of the object in green, of its surroundings in red."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from wsss.questions.pair_texts import PairTexts, read_pair_texts
from wsss.report.class_tables import class_key
from wsss.report.markup import Html, element, together
from wsss.report.runs import RecipeRuns, Reported


@dataclass(frozen=True)
class ClassTexts:
    """What is said about one class in one image.

    Args:
        foreground: texts for the object, all different, the label first.
        background: texts for what surrounds it; none: the pair teaches nothing about regions.
    """

    foreground: tuple[str, ...]
    background: tuple[str, ...]

    @classmethod
    def of(cls, pair: PairTexts) -> ClassTexts:
        """The texts of a pair, each once.

        Raises:
            TypeError: something in it is not a text.
        """
        foreground = tuple(dict.fromkeys((pair.label, *pair.foreground)))
        background = tuple(dict.fromkeys(pair.background))
        strange = [word for word in (*foreground, *background) if not isinstance(word, str)]
        if strange:
            raise TypeError(f"{strange[0]!r} is no text")
        return cls(foreground, background)


ImageTexts: TypeAlias = Mapping[str, Mapping[str, ClassTexts]]
"""Texts by image id and class name."""


def entry_texts(entries: Sequence[RecipeRuns], image_ids: Collection[str]) -> dict[str, ImageTexts]:
    """The texts that entries trained on, by label; those that trained on none are left out.

    Entries that share a file (texts don't depend on how a method trains on them) share one reading of it.

    Args:
        entries: whose; texts are of the first seed.
        image_ids: images that are shown; a file holds many more.
    """
    read: dict[Path, ImageTexts] = {}
    found: dict[str, ImageTexts] = {}
    for entry in entries:
        stage = entry.first.stage("prepare")
        if stage is None:
            continue
        path = stage.folder / "cache" / "texts.jsonl"
        if path not in read:
            read[path] = _texts_in(path, frozenset(image_ids))
        if read[path]:
            found[entry.label] = read[path]
    return found


def text_blocks(
    reported: Reported, texts: Mapping[str, ImageTexts], image_id: str, class_names: Sequence[str]
) -> Html | None:
    """One block per entry with different texts of an image; nothing where no entry has any.

    Args:
        reported: what the page speaks of.
        texts: of entries by label, see `entry_texts`.
        image_id: which image.
        class_names: the classes it shows, in the order of the lines.
    """
    blocks: list[tuple[list[str], dict[str, ClassTexts]]] = []
    for label, images in texts.items():
        known = images.get(image_id, {})
        own = {name: known[name] for name in class_names if name in known}
        same = next((labels for labels, other in blocks if other == own), None)
        if same is not None:
            same.append(label)
        elif own:
            blocks.append(([label], own))
    if not blocks:
        return None
    return element("div", *(_block(reported, labels, own) for labels, own in blocks), class_="texts")


def _block(reported: Reported, labels: Sequence[str], own: Mapping[str, ClassTexts]) -> Html:
    lines = [
        element("li", class_key(reported, name), " ", _words("object", texts.foreground), " ", _around(texts))
        for name, texts in own.items()
    ]
    heading = f"Texts that {' and '.join(labels)} trained on"
    return together([element("p", heading), element("ul", *lines)])


def _around(texts: ClassTexts) -> Html:
    if texts.background:
        return _words("around", texts.background)
    return element("span", "no background text: the pair is skipped", class_="skipped")


def _words(kind: str, words: Sequence[str]) -> Html:
    return element("span", element("b", f"{kind}:"), " ", ", ".join(words), class_=kind)


def _texts_in(path: Path, image_ids: Collection[str]) -> ImageTexts:
    """The texts of some images; none where the file is missing or broken."""
    found: dict[str, dict[str, ClassTexts]] = {}
    try:
        for pair in read_pair_texts(path):
            if pair.image_id in image_ids:
                found.setdefault(pair.image_id, {})[pair.class_name] = ClassTexts.of(pair)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return found
