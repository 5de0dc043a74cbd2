from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from wsss.data.scenes import context_names, draw_scene, plan_scene, vocabulary
from wsss.models.embedded.saliency_evaluation import evaluate_saliency, scores_on


class Oracle:
    """Looks the truth up by the image's bytes; may be told to call other pixels salient too."""

    name, sha256 = "oracle", "0" * 64

    def __init__(self, truths: dict[bytes, np.ndarray]) -> None:
        self._truths = truths

    def detect(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._truths[image.tobytes()].astype(np.float32) for image in images]


@pytest.fixture(scope="module")
def scores() -> dict[str, dict[str, float]]:
    return evaluate_saliency("embedded", images=60, seed=7)


def test_an_oracle_is_perfect() -> None:
    scenes = [draw_scene(plan_scene(1007, "val", index)) for index in range(40)]
    perfect = {"mean_absolute_error": 0.0, "best_f": 1.0, "best_threshold": 0.0, "half_f": 1.0}
    oracle = Oracle({scene.image.tobytes(): scene.mask > 0 for scene in scenes})
    assert scores_on(oracle, scenes) == (perfect, perfect)


def test_distractors_are_false_alarms_that_can_be_left_out() -> None:
    scenes = [draw_scene(plan_scene(1007, "val", index)) for index in range(40)]
    numbers = [context_names().index(name) for name in vocabulary().distractors]
    eager = Oracle(
        {scene.image.tobytes(): (scene.mask > 0) | np.isin(scene.context, numbers) for scene in scenes}
    )
    everywhere, without = scores_on(eager, scenes)
    assert without["half_f"] == 1.0 > everywhere["half_f"]
    things = sum(int((scene.mask > 0).sum()) for scene in scenes)
    others = sum(int(np.isin(scene.context, numbers).sum()) for scene in scenes)
    precision = things / (things + others)
    assert everywhere["half_f"] == pytest.approx(1.3 * precision / (0.3 * precision + 1), abs=1e-4)


def test_the_shipped_detector_finds_things_it_has_never_seen(scores: dict[str, dict[str, float]]) -> None:
    assert list(scores) == ["reserved", "benchmark", "without_distractors"]
    assert scores["reserved"]["best_f"] >= 0.93
    assert scores["benchmark"]["best_f"] >= 0.8
    assert scores["benchmark"]["mean_absolute_error"] <= 0.09
    assert scores["without_distractors"]["best_f"] >= scores["benchmark"]["best_f"]
    for found in scores.values():
        assert found["half_f"] <= found["best_f"] <= 1
