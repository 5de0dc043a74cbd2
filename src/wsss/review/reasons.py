"""Why an image is suspicious and what to do about it, in words for somebody who never saw a signal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from wsss.review.ranking import Ranked

LOUD: Final = 0.8  # rank from which a signal is given as a reason
NOTHING: Final = "Nothing stands out."
MOST_REASONS: Final = 3


@dataclass(frozen=True)
class Seen:
    """What the words speak of besides the signals.

    Args:
        shares: share of the image that each tag takes in the mask, by class name.
        foreground: share of all of them.
        usual: share of foreground of the median image.
    """

    shares: Mapping[str, float]
    foreground: float
    usual: float


def reasons(image: Ranked, seen: Seen) -> tuple[str, ...]:
    """The loud signals of an image in words, at most three; that there is none, where there is none.

    Example:
        >>> image = Ranked("a", 1.0, {"missing": 0.0}, {"missing": 1.0})
        >>> reasons(image, Seen({"cat": 0.0}, 0.0, 0.2))
        ('No pixel is cat, though the image has that tag.',)
    """
    return tuple(_WORDS[name](image, seen) for name in leading(image)) or (NOTHING,)


def action(image: Ranked, seen: Seen) -> str:
    """What to do about the loudest signal, or where there is none."""
    names = leading(image)
    return _ACTIONS[names[0]](seen) if names else "Compare the mask with the photograph."


def leading(image: Ranked) -> tuple[str, ...]:
    """Names of the loud signals, the loudest first, at most three; none where all are faint."""
    ordered = sorted(image.ranks, key=lambda name: -image.ranks[name])
    return tuple(name for name in ordered if image.ranks[name] >= LOUD)[:MOST_REASONS]


def _missing(image: Ranked, seen: Seen) -> str:
    name, share = min(seen.shares.items(), key=lambda item: item[1])
    if share == 0:
        return f"No pixel is {name}, though the image has that tag."
    return f"Only {_percent(share)} of the image is {name}."


def _size(image: Ranked, seen: Seen) -> str:
    if seen.foreground == 0:
        return "The mask is empty: everything is background."
    than = "more" if seen.foreground > seen.usual else "less"
    share, usual = _percent(seen.foreground), _percent(seen.usual)
    return f"{share} of the image is foreground, far {than} than usual ({usual})."


def _mixed(image: Ranked, seen: Seen) -> str:
    return f"The same pixels are claimed by {_names(seen)}."


def _colour(image: Ranked, seen: Seen) -> str:
    return "Foreground and background have much the same colours."


def _edge(image: Ranked, seen: Seen) -> str:
    return "The outline follows no edge of the photograph."


def _scales(image: Ranked, seen: Seen) -> str:
    return f"Each image scale finds another mask: they share {_shared(image, 'scales')} of this one."


def _refinement(image: Ranked, seen: Seen) -> str:
    return f"Refining changed much: the mask before shares {_shared(image, 'refinement')} with this one."


def _methods(image: Ranked, seen: Seen) -> str:
    return f"The other runs disagree: their masks share {_shared(image, 'methods')} with this one."


_WORDS: Final[Mapping[str, Callable[[Ranked, Seen], str]]] = {
    "missing": _missing,
    "size": _size,
    "mixed": _mixed,
    "colour": _colour,
    "outline": _edge,
    "scales": _scales,
    "refinement": _refinement,
    "methods": _methods,
}


def _draw(seen: Seen) -> str:
    name = min(seen.shares, key=lambda tag: seen.shares[tag])
    return f"Draw the {name}, or remove the tag if the image shows none."


def _resize(seen: Seen) -> str:
    if seen.foreground > seen.usual:
        return "Cut away the background that the mask covers."
    return f"Draw the whole {_names(seen)}."


def _always(words: str) -> Callable[[Seen], str]:
    return lambda seen: words


_OUTLINE: Final = "Compare the outline with the photograph, and correct it."

_ACTIONS: Final[Mapping[str, Callable[[Seen], str]]] = {
    "missing": _draw,
    "size": _resize,
    "mixed": lambda seen: f"Give each pixel to the right class: {_names(seen)}.",
    "colour": _always("See whether the mask covers the object or its surroundings."),
    "outline": _always(_OUTLINE),
    "scales": _always(_OUTLINE),
    "refinement": _always("See whether refining lost a part of the object or took in the background."),
    "methods": _always("Compare the masks of the runs, and keep the best or draw a better one."),
}


def _names(seen: Seen) -> str:
    return _listed(list(seen.shares))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _shared(image: Ranked, name: str) -> str:
    return _percent(1 - (image.signals.get(name) or 0.0))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if 0 < share < 0.01 else f"{100 * share:.0f}%"
