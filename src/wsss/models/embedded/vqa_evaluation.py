"""Measures an embedded VQA on unseen generated images: how often each kind of question is answered right.

An answer is right when it is the generator's own, word for word. Beside it stand what the same model says of
a grey picture, and what the most frequent answer for each class and question would reach: the share that
needs no eyes. Images are free scenes from a split of their own, so nothing can be guessed from habits; scenes
of the world on which settings are tuned, with all their habits, are measured too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from wsss.data.scenes.drawing import Scene, draw_scene
from wsss.data.scenes.relations import answer
from wsss.data.scenes.vocabulary import vocabulary
from wsss.data.scenes.world import plan_scene
from wsss.models.embedded.vqa_pictures import TOPICS
from wsss.models.vqa import QuestionAnswerer, load_vqa

SPLIT: Final = "vqa-evaluation"
TUNING_WORLD: Final = 100
GREY: Final = 128

Scores = dict[str, float]
Asked = list[tuple[int, str, str]]  # image, class, topic


def evaluate_vqa(folder: str | Path, *, images: int = 500, seed: int = 1) -> dict[str, Scores]:
    """Score a VQA on every question about every class of unseen images.

    Args:
        folder: a Hugging Face BLIP folder, or "embedded".
        images: number of scenes of either kind.
        seed: which free scenes; the training uses another split, so every seed is unseen.

    Returns:
        Percent right for each topic: `seeing`; `grey`, the same questions about a grey picture;
        `guessing`, the most frequent answer for each class and topic among the scenes themselves; and
        `benchmark`, on validation scenes of world 100.
    """
    model = load_vqa(folder)
    free = [draw_scene(plan_scene(seed, SPLIT, index, free=True)) for index in range(images)]
    usual = [draw_scene(plan_scene(TUNING_WORLD, "val", index)) for index in range(images)]
    asked, truths = questions_about(free)
    usual_asked, usual_truths = questions_about(usual)
    grey = [np.full_like(scene.image, GREY) for scene in free]
    said = answers_to(model, [scene.image for scene in free], asked)
    usual_said = answers_to(model, [scene.image for scene in usual], usual_asked)
    return {
        "seeing": _right(asked, said, truths),
        "grey": _right(asked, answers_to(model, grey, asked), truths),
        "guessing": _right(asked, _guesses(asked, truths), truths),
        "benchmark": _right(usual_asked, usual_said, usual_truths),
    }


def questions_about(scenes: Sequence[Scene]) -> tuple[Asked, list[str]]:
    """Every topic about every class of each scene, and the generator's own answers."""
    asked = [
        (number, label, topic)
        for number, scene in enumerate(scenes)
        for label in scene.metadata["labels"]
        for topic in TOPICS
    ]
    return asked, [answer(scenes[number].metadata, label, topic) for number, label, topic in asked]


def answers_to(model: QuestionAnswerer, images: Sequence[np.ndarray], asked: Asked) -> list[str]:
    """What a model answers, in the order of `asked`."""
    templates = {topic: template for template, topic in vocabulary().questions}
    texts: list[list[str]] = [[] for _ in images]
    for number, label, topic in asked:
        texts[number].append(templates[topic].format(label))
    found = [iter(answers) for answers in model.answer(images, texts)]
    return [next(found[number]) for number, _, _ in asked]


def _guesses(asked: Asked, truths: Sequence[str]) -> list[str]:
    counts: dict[tuple[str, str], Counter[str]] = {}
    for (_, label, topic), truth in zip(asked, truths, strict=True):
        counts.setdefault((label, topic), Counter())[truth] += 1
    return [counts[label, topic].most_common(1)[0][0] for _, label, topic in asked]


def _right(asked: Asked, said: Sequence[str], truths: Sequence[str]) -> Scores:
    hits: dict[str, list[bool]] = {topic: [] for topic in TOPICS}
    for (_, _, topic), word, truth in zip(asked, said, truths, strict=True):
        hits[topic].append(word == truth)
    return {topic: round(100.0 * float(np.mean(values)), 2) for topic, values in hits.items()}
