"""Which labels are taken for the same word, and which are not."""

from __future__ import annotations

from itertools import product

import pytest

from wsss.doctor.spellings import is_one_slip, lookalikes, merged_classes, variants


def slips_of(word: str, letters: str) -> set[str]:
    """Every word that one slip makes, written out."""
    places = range(len(word) + 1)
    lost = {word[:i] + word[i + 1 :] for i in range(len(word))}
    other = {word[:i] + c + word[i + 1 :] for i in range(len(word)) for c in letters}
    added = {word[:i] + c + word[i:] for i in places for c in letters}
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)}
    return lost | other | added | swapped


def test_one_slip_is_one_letter_or_one_exchange_of_neighbours():
    letters = "abc"
    words = ["".join(word) for length in range(1, 6) for word in product(letters, repeat=length)]
    for word in ("abca", "aab", "ccba"):
        near = slips_of(word, letters) | {word}
        for other in words:
            assert is_one_slip(word, other) == (other in near), (word, other)


@pytest.mark.parametrize(
    ("counts", "meant"),
    [
        ({"cow": 9, "cows": 2}, {"cows": "cow"}),
        ({"cow": 2, "cows": 9}, {"cow": "cows"}),
        ({"berry": 9, "berries": 9}, {"berry": "berries"}),
        ({"bus": 5, "buses": 1}, {"buses": "bus"}),
        ({"tractor": 10, "tracter": 2}, {"tracter": "tractor"}),
        ({"tractor": 10, "tracter": 3}, {}),  # too frequent for a slip
        ({"cat": 50, "car": 1}, {}),  # too short
        ({"horse": 9, "house": 8}, {}),
        ({"tractor": 20, "tracter": 1, "tracters": 1}, {"tracter": "tractor"}),
    ],
)
def test_plurals_and_rare_slips_look_alike(counts, meant):
    assert lookalikes(counts) == meant


def test_the_most_frequent_spelling_is_the_name():
    counts = {"dining table": 2, "dining-table": 5, "DiningTable": 1, "sofa": 1}
    assert variants(counts) == {"dining-table": ("dining table", "DiningTable")}
    classes = merged_classes(counts, "tags")
    assert classes is not None
    assert [info.name for info in classes.infos] == ["dining-table", "sofa"]
    assert set(classes.infos[0].synonyms) == {"dining table", "DiningTable"}


def test_merged_classes_take_every_label_to_one_class():
    counts = {"cow": 9, "Cow": 1, "cows": 2, "tractor": 10, "tracter": 1, "sheep": 3}
    classes = merged_classes(counts, "tags", similar=True)
    assert classes is not None
    assert [info.name for info in classes.infos] == ["cow", "sheep", "tractor"]
    places = {label: classes.index(label) for label in counts}
    assert places == {"cow": 0, "Cow": 0, "cows": 0, "tractor": 2, "tracter": 2, "sheep": 1}
    assert merged_classes({"background": 3}, "tags") is None
