"""Words for signals."""

from __future__ import annotations

import pytest

from wsss.review.ranking import Ranked
from wsss.review.reasons import Seen, action, leading, reasons
from wsss.review.signals import SIGNALS

SEEN = Seen({"cat": 0.0, "dog": 0.5}, 0.5, 0.2)


def test_every_signal_has_words_and_an_action():
    for name in SIGNALS:
        image = Ranked("a", 1.0, {name: 0.3}, {name: 1.0})
        (reason,) = reasons(image, SEEN)
        assert reason.endswith(".")
        assert action(image, SEEN).endswith(".")


def test_the_loudest_come_first_and_at_most_three():
    ranks = {"size": 0.85, "colour": 0.95, "mixed": 0.9, "outline": 0.81, "missing": 0.1}
    image = Ranked("a", 0.8, {}, ranks)
    assert leading(image) == ("colour", "mixed", "size")


def test_faint_signals_are_no_reasons():
    for ranks in ({"size": 0.1, "mixed": 0.79}, {}):
        image = Ranked("a", 0.2, {}, ranks)
        assert leading(image) == ()
        assert reasons(image, SEEN) == ("Nothing stands out.",)
        assert action(image, SEEN) == "Compare the mask with the photograph."


@pytest.mark.parametrize(
    ("name", "seen", "words"),
    [
        ("missing", SEEN, "No pixel is cat, though the image has that tag."),
        ("missing", Seen({"cat": 0.004, "dog": 0.5}, 0.5, 0.2), "Only 0.4% of the image is cat."),
        ("size", SEEN, "50% of the image is foreground, far more than usual (20%)."),
        ("size", Seen({"cat": 0.05}, 0.05, 0.2), "5% of the image is foreground, far less than usual (20%)."),
        ("size", Seen({"cat": 0.0}, 0.0, 0.2), "The mask is empty: everything is background."),
        ("mixed", SEEN, "The same pixels are claimed by cat and dog."),
    ],
)
def test_words_name_what_was_seen(name, seen, words):
    assert reasons(Ranked("a", 1.0, {name: 0.0}, {name: 1.0}), seen) == (words,)
