"""The order, and the measure that judges it."""

from __future__ import annotations

import numpy as np
import pytest

from wsss.errors import DataError
from wsss.review.ranking import rank, share_of_worst


def slow_rank(values: list[float], value: float) -> float:
    below = sum(other < value for other in values)
    same = sum(other == value for other in values)
    return (below + (same - 1) / 2) / (len(values) - 1)


def test_suspicion_is_the_quadratic_mean_of_ranks():
    rng = np.random.default_rng(1)
    signals = {f"i{n}": {"a": float(rng.integers(0, 5)), "b": float(rng.random())} for n in range(20)}
    columns = {name: [values[name] for values in signals.values()] for name in ("a", "b")}
    for image in rank(signals):
        own = [slow_rank(columns[name], signals[image.image_id][name]) for name in ("a", "b")]
        assert image.suspicion == pytest.approx((sum(r * r for r in own) / 2) ** 0.5)


def test_the_most_suspicious_come_first_and_only_order_counts():
    rng = np.random.default_rng(2)
    signals = {f"i{n}": {"a": float(rng.random()), "b": float(rng.random())} for n in range(30)}
    bent = {name: {"a": 100 * s["a"] ** 3 - 7, "b": np.exp(s["b"])} for name, s in signals.items()}
    order = rank(signals)
    assert [image.image_id for image in order] == [image.image_id for image in rank(bent)]
    assert list(order) == sorted(order, key=lambda image: -image.suspicion)


def test_a_louder_signal_never_lowers_an_image():
    rng = np.random.default_rng(3)
    signals = {f"i{n}": {"a": float(rng.random()), "b": float(rng.random())} for n in range(30)}
    place = [image.image_id for image in rank(signals)].index("i7")
    signals["i7"]["a"] = 2.0
    assert [image.image_id for image in rank(signals)].index("i7") <= place


def test_signals_that_say_nothing_or_are_missing_are_left_out():
    signals = {
        "x": {"same": 1.0, "a": 0.0, "b": None},
        "y": {"same": 1.0, "a": 1.0, "b": 0.3},
        "z": {"same": 1.0, "a": 2.0, "b": 0.1},
    }
    by_id = {image.image_id: image for image in rank(signals)}
    assert by_id["x"].ranks == {"a": 0.0}
    assert by_id["y"].ranks == {"a": 0.5, "b": 1.0}
    assert rank({"only": {"a": 3.0}})[0].suspicion == 0


def test_share_of_worst_counts_what_both_fifths_hold():
    ious = {f"i{n:02}": n / 20 for n in range(20)}  # i00 to i03 are the worst
    worst_first = sorted(ious)
    assert share_of_worst(worst_first, ious) == 1
    assert share_of_worst(worst_first[::-1], ious) == 0
    mixed = ["i00", "i09", "i03", "i15", *(name for name in ious if name not in ("i00", "i09", "i03", "i15"))]
    assert share_of_worst(mixed, ious) == 0.5
    assert share_of_worst(mixed, ious, share=1.0) == 1


def test_chance_finds_a_fifth():
    rng = np.random.default_rng(4)
    ious = {f"i{n}": float(value) for n, value in enumerate(rng.random(500))}
    shares = [share_of_worst(list(rng.permutation(list(ious))), ious) for _ in range(100)]
    assert np.mean(shares) == pytest.approx(0.2, abs=0.02)


def test_an_image_without_iou_is_refused():
    with pytest.raises(DataError, match="1 of 2 have none"):
        share_of_worst(["a", "b"], {"a": 1.0})
