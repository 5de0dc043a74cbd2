import itertools
import math

import pytest

from wsss.training.config import TrainingConfig
from wsss.training.schedule import cosine, factor, poly


def test_poly_has_its_published_values():
    assert poly(0, 100) == 1
    assert poly(50, 100) == pytest.approx(0.5**0.9) == pytest.approx(0.53589, abs=1e-5)
    assert poly(99, 100) == pytest.approx(0.01**0.9)
    assert poly(100, 100) == poly(150, 100) == 0


def test_cosine_falls_from_one_to_zero():
    assert [cosine(t, 8) for t in (0, 4, 8, 9)] == pytest.approx([1, 0.5, 0, 0])
    assert cosine(1, 8) == pytest.approx((1 + math.cos(math.pi / 8)) / 2)


def test_deeplab_refreshes_the_rate_every_ten_steps():
    values = [factor(t, 20_000, hold=10) for t in range(40)]
    assert values == [poly(t // 10 * 10, 20_000) for t in range(40)]
    assert len(set(values)) == 4


def test_the_warm_up_rises_linearly_and_the_schedule_runs_over_the_rest():
    values = [factor(t, 12, warmup=4) for t in range(12)]
    assert values[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert values[4:] == pytest.approx([poly(t, 8) for t in range(8)])


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_every_schedule_starts_at_one_and_never_rises(schedule):
    values = [factor(t, 50, schedule=schedule, hold=3) for t in range(50)]
    assert values[0] == 1
    assert all(a >= b >= 0 for a, b in itertools.pairwise(values))
    assert schedule != "constant" or values[-1] == 1


def test_the_length_is_given_in_steps_or_in_epochs():
    assert TrainingConfig(steps=7).total_steps(100) == 7
    assert TrainingConfig(epochs=3, accumulate=2).total_steps(5) == 7
    assert TrainingConfig(epochs=1, accumulate=8).total_steps(5) == 1
    for lengths in ({}, {"steps": 1, "epochs": 1}):
        with pytest.raises(ValueError, match="exactly one"):
            TrainingConfig(**lengths)


def test_the_fingerprint_follows_what_changes_the_weights():
    base = TrainingConfig(steps=7)
    same = TrainingConfig(steps=7, workers=4, checkpoint_seconds=1, log_every=3, tensorboard=True)
    assert base.fingerprint(0) == same.fingerprint(0) != base.fingerprint(1)
    assert base.fingerprint(0) != TrainingConfig(steps=7, power=0.8).fingerprint(0)
    assert base.fingerprint(0) != TrainingConfig(steps=7, augmentation={"flip": 0.1}).fingerprint(0)


def test_the_default_momentum_is_the_published_weight_decay():
    config = TrainingConfig(steps=1)
    assert config.momentum == config.weight_decay == 1e-4


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "clip_norm", "checkpoint_seconds"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_of_a_training_are_finite(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        TrainingConfig(**{"steps": 1, "batch_size": 1, "learning_rate": 0.1, name: value})
