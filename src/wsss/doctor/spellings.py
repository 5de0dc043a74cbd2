"""Labels that are probably the same word: other case or hyphens, plurals, single slips of the pen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from wsss.data.classes import ClassList
from wsss.errors import DataError
from wsss.types import ClassInfo

SHORTEST_SLIP: Final = 5  # letters; shorter words that differ by one letter are often different words
RARE_SHARE: Final = 5  # a slip is at least this many times rarer than the word that was meant


def relaxed(word: str) -> str:
    """A label without case, spaces, hyphens and underscores: what data sets overlook."""
    return "".join(letter for letter in word.casefold() if letter not in " _-")


def variants(counts: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Labels that differ in case, spaces, hyphens or underscores only.

    Args:
        counts: how often each label occurs.

    Returns:
        The most frequent spelling (the first of equals), with the others.

    Example:
        >>> variants({"cow": 3, "Cow": 1, "cat": 2})
        {'cow': ('Cow',)}
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for label in sorted(counts):
        groups[relaxed(label)].append(label)
    ordered = (sorted(group, key=lambda label: -counts[label]) for group in groups.values())
    return {group[0]: tuple(group[1:]) for group in ordered if len(group) > 1}


def lookalikes(counts: Mapping[str, int]) -> dict[str, str]:
    """Labels that are probably a plural or a slip of the pen of another one: label -> the one that is meant.

    The rarer of two is the one that is mapped. A slip is one letter more, less or other in a word of five
    letters or more, or two neighbours exchanged, where the other word is at least five times as frequent.

    Args:
        counts: how often each label occurs; spellings that `variants` joins count as one.

    Example:
        >>> lookalikes({"cow": 9, "cows": 2, "tractor": 10, "tracter": 1, "horse": 7, "house": 6})
        {'cows': 'cow', 'tracter': 'tractor'}
    """
    found: dict[str, str] = {}
    by_frequency = sorted(counts, key=lambda label: (-counts[label], label))
    for place, label in enumerate(by_frequency):
        for meant in by_frequency[:place]:
            if meant not in found and _is_lookalike(label, meant, counts):
                found[label] = meant
                break
    return dict(sorted(found.items()))


def _is_lookalike(label: str, meant: str, counts: Mapping[str, int]) -> bool:
    one, other = relaxed(label), relaxed(meant)
    if one == other:
        return False
    if other in _plurals(one) or one in _plurals(other):
        return True
    is_rare = counts[label] * RARE_SHARE <= counts[meant]
    return is_rare and min(len(one), len(other)) >= SHORTEST_SLIP and is_one_slip(one, other)


def _plurals(word: str) -> tuple[str, ...]:
    return (f"{word}s", f"{word}es", *([f"{word[:-1]}ies"] if word.endswith("y") else []))


def is_one_slip(one: str, other: str) -> bool:
    """Whether one letter more, less or other, or two exchanged neighbours, make one word the other.

    Example:
        >>> is_one_slip("tractor", "tarctor"), is_one_slip("tractor", "tract")
        (True, False)
    """
    if len(one) > len(other):
        one, other = other, one
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    if len(other) == len(one) + 1:
        return one[start:] == other[start + 1 :]
    if len(other) != len(one):
        return False
    rest, other_rest = one[start:], other[start:]
    is_exchange = rest[:2] == other_rest[:2][::-1] and rest[2:] == other_rest[2:]
    return rest[1:] == other_rest[1:] or is_exchange


def merged_classes(counts: Mapping[str, int], source: str, *, similar: bool = False) -> ClassList | None:
    """A class for each label, other spellings as its synonyms; None where the labels make no class list.

    Args:
        counts: how often each label occurs.
        source: the tags file, for messages.
        similar: also take lookalikes as synonyms.
    """
    other = {spelling: name for name, group in variants(counts).items() for spelling in group}
    totals: dict[str, int] = defaultdict(int)
    for label, count in counts.items():
        totals[other.get(label, label)] += count
    meant = lookalikes(totals) if similar else {}
    synonyms: dict[str, list[str]] = {name: [] for name in sorted(totals) if name not in meant}
    for label in sorted(counts):
        name = other.get(label, label)
        name = meant.get(name, name)
        if name != label:
            synonyms[name].append(label)
    try:
        return ClassList(
            tuple(ClassInfo(name, synonyms=tuple(words)) for name, words in synonyms.items()), source
        )
    except DataError:
        return None
