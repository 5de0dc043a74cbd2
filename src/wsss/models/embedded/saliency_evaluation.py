"""Measures a saliency detector on unseen generated scenes: mean absolute error and F-measure.

Two kinds of scenes: reserved ones, whose shapes and backgrounds the embedded detector was trained on in other
pictures; and ones as the benchmark's, none of whose shapes and backgrounds it has ever seen. There,
unlabelled things (rock, flower, post) stand out as much as objects do but belong to no class, so the scores
are given with and without their pixels. Worlds 0 (the benchmark) and 100 (tuning) are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from wsss.data.scenes.drawing import Scene, draw_scene
from wsss.data.scenes.vocabulary import context_names, vocabulary
from wsss.data.scenes.world import plan_scene
from wsss.metrics.saliency import SaliencyCounts
from wsss.models.saliency import SaliencyDetector, load_detector

SPLIT: Final = "saliency-evaluation"
FIRST_WORLD: Final = 1000
AT_ONCE: Final = 32

Scores = dict[str, float]


def evaluate_saliency(folder: str | Path, *, images: int = 500, seed: int = 1) -> dict[str, Scores]:
    """Score a detector.

    Args:
        folder: what `load_detector` understands, such as "embedded".
        images: number of scenes of either kind.
        seed: which scenes: world `seed` of reserved ones, world 1000 + `seed` of the benchmark's kind.

    Returns:
        Scores in [0, 1] (`mean_absolute_error`, `best_f`, `half_f`, and the `best_threshold` of `best_f`) on
        `reserved` scenes, on scenes of the `benchmark` kind, and on the latter `without_distractors`.
    """
    detector = load_detector(str(folder), device=torch.device("cpu"))
    reserved = [draw_scene(plan_scene(seed, SPLIT, index, reserved=True)) for index in range(images)]
    usual = [draw_scene(plan_scene(FIRST_WORLD + seed, "val", index)) for index in range(images)]
    benchmark, without = scores_on(detector, usual)
    return {
        "reserved": scores_on(detector, reserved)[0],
        "benchmark": benchmark,
        "without_distractors": without,
    }


def scores_on(detector: SaliencyDetector, scenes: Sequence[Scene]) -> tuple[Scores, Scores]:
    """Scores against the objects of all classes: over all pixels, and without those of distractors."""
    distractors = [context_names(reserved=True).index(name) for name in vocabulary().distractors]
    everywhere, without = SaliencyCounts(), SaliencyCounts()
    for start in range(0, len(scenes), AT_ONCE):
        group = scenes[start : start + AT_ONCE]
        for scene, saliency in zip(group, detector.detect([scene.image for scene in group]), strict=True):
            covered = scene.mask > 0
            everywhere.add(saliency, covered)
            without.add(saliency, covered, counted=covered | ~np.isin(scene.context, distractors))
    return _plain(everywhere), _plain(without)


def _plain(counts: SaliencyCounts) -> Scores:
    return {name: round(value, 4) for name, value in vars(counts.scores()).items()}
