"""What the embedded teacher can name: one concept for each thing of the generated world, and its texts.

A concept is a class, a kind of a class, a background, a distractor, an empty picture, or the absence of a
class. Several texts may speak of one concept ("boat", "ship"); a caption names one concept or two.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np

from wsss.data.scenes.vocabulary import vocabulary

PROMPT: Final = "a photo of {}"

SINGLE_TEMPLATES: Final = (
    PROMPT,
    PROMPT,
    "a photo of {}.",
    "a photo of {}.",
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of {}.",
    "{}",
)
PAIR_TEMPLATES: Final = (
    "a photo of {} and {}",
    "a photo of {} and {}.",
    "a photo of {} with {}.",
    "a photo of the {} and the {}.",
)


@dataclass(frozen=True)
class Concepts:
    """All concepts, as rows of tables.

    Args:
        names: one for each concept.
        texts: the words for each concept; the first is its usual name.
        classes: rows of the foreground classes, in label order.
        kinds: rows of the kinds, all kinds of the first class first.
        backgrounds: rows of the backgrounds, in context order.
        distractors: rows of the distractors, in context order.
        nothing: row of the empty picture.
        absent: rows of "no {class}", in label order.
    """

    names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    classes: range
    kinds: range
    backgrounds: range
    distractors: range
    nothing: int
    absent: range

    def __len__(self) -> int:
        return len(self.names)

    @property
    def kind_classes(self) -> np.ndarray:
        """Row of the class of each kind; (number of kinds,), int64."""
        counts = [len(words.kinds) for words in vocabulary().classes]
        return np.repeat(np.arange(len(counts)), counts)


@functools.cache
def concepts() -> Concepts:
    """The concepts of the world's vocabulary.

    Example:
        >>> concepts().texts[concepts().classes[0]][:2]
        ('aeroplane', 'plane')
    """
    words = vocabulary()
    texts: list[tuple[str, ...]] = []
    texts += [(word.name, *word.aliases) for word in words.classes]
    for word in words.classes:
        for kind, other in word.kinds:
            texts.append((f"{kind} {word.name}", kind, f"{other} {word.name}", other))
    listed = {
        background.name: [
            text
            for word in words.classes
            if word.home == background.name
            for text in word.background_texts
            if text not in (background.name, background.scene, background.environment, background.place)
        ]
        for background in words.backgrounds
    }
    texts += [
        (place.name, place.name, place.scene, place.environment, place.place, *listed[place.name])
        for place in words.backgrounds
    ]
    texts += [(name,) for name in words.distractors]
    texts += [(words.nothing,)]
    texts += [(f"no {word.name}",) for word in words.classes]
    bounds = np.cumsum(
        [
            0,
            len(words.classes),
            sum(len(word.kinds) for word in words.classes),
            len(words.backgrounds),
            len(words.distractors),
            1,
            len(words.classes),
        ]
    ).tolist()
    return Concepts(
        names=tuple(choices[0] for choices in texts),
        texts=tuple(texts),
        classes=range(bounds[0], bounds[1]),
        kinds=range(bounds[1], bounds[2]),
        backgrounds=range(bounds[2], bounds[3]),
        distractors=range(bounds[3], bounds[4]),
        nothing=bounds[4],
        absent=range(bounds[5], bounds[6]),
    )


def caption_words() -> tuple[str, ...]:
    """Every word that a caption can hold, in alphabetical order; the tokenizer's vocabulary."""
    found = {word for texts in concepts().texts for text in texts for word in text.split()}
    for template in (*SINGLE_TEMPLATES, *PAIR_TEMPLATES):
        found.update(template.replace("{}", " ").replace(".", " ").split())
    found.update(("an", "in", "of", "on", "under", "."))
    return tuple(sorted(found))


def caption(rng: np.random.Generator, rows: tuple[int, ...]) -> str:
    """A caption that names the concepts in `rows` (one or two), in random words and order."""
    texts = [concepts().texts[row] for row in rng.permutation(rows).tolist()]
    words = [choices[int(rng.integers(len(choices)))] for choices in texts]
    templates = SINGLE_TEMPLATES if len(words) == 1 else PAIR_TEMPLATES
    return templates[int(rng.integers(len(templates)))].format(*words)


def choose_captions(state: np.ndarray, rng: np.random.Generator) -> tuple[list[tuple[int, ...]], list[str]]:
    """A caption for each image, and one for each concept.

    Args:
        state: which concepts each image shows, as from `visible_concepts`; (B, number of concepts), int64.
        rng: source of randomness.

    Returns:
        The concepts that each caption names (empty where nothing can be said), and the captions: B for the
        images, then one for each concept up to `nothing`.
    """
    table = concepts()
    shown = state == 1
    rows: list[tuple[int, ...]] = []
    for image in shown:
        kinds = [row for row in table.kinds if image[row]]
        classes = [row for row in table.classes if image[row]]
        grounds = [row for row in table.backgrounds if image[row]]
        things = [row for row in table.distractors if image[row]]
        draw, second = rng.random(3), rng.random()
        objects = classes if draw[0] < 0.65 else kinds
        others = things if things and (draw[1] < 0.25 or not grounds) else grounds
        if image[table.nothing]:
            rows.append((table.nothing,))
        elif draw[2] < 0.03 and any(image[row] for row in table.absent):
            rows.append((_pick(rng, [row for row in table.absent if image[row]]),))
        elif objects and others and second < 0.25:
            rows.append((_pick(rng, objects), _pick(rng, others)))
        elif len(objects) > 1 and second < 0.4:
            picked = rng.permutation(objects)[:2].tolist()
            rows.append((picked[0], picked[1]))
        elif objects and (not others or second < 0.8):
            rows.append((_pick(rng, objects),))
        else:
            rows.append((_pick(rng, others),) if others else ())
    rows += [(row,) for row in range(table.nothing + 1)]
    return rows, [caption(rng, named or (table.nothing,)) for named in rows]


def _pick(rng: np.random.Generator, rows: list[int]) -> int:
    return rows[int(rng.integers(len(rows)))]
