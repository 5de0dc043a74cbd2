"""Confusion matrices: what the pixels of each class were taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wsss.metrics.confusion import ratio
from wsss.report.class_tables import class_key, score_name
from wsss.report.gallery import fewer
from wsss.report.markup import Html, details, element, table, together
from wsss.report.runs import OWN, RecipeRuns, Reported

STAGES: Final = ("maps", "segmentation")
MOST_CLASSES: Final = 32  # larger matrices can't be read; their largest cells are listed instead
TOLD: Final = 3
LISTED: Final = 25
SMALLEST: Final = 0.005  # shares that would be shown as 0 are left out

NOTE: Final = (
    "Of the true pixels of each class (row), the share in per cent that was found as each class (column); "
    "shares below half a per cent are left empty. The diagonal holds what is found. "
)


@dataclass(frozen=True)
class Confused:
    """The confusion of one entry's stage, its first seed.

    Args:
        label: whose.
        names: all classes, the first "background".
        shares: share of each true class's pixels (rows) that was found as each class; (C, C), NaN in rows
            of classes without true pixels.
    """

    label: str
    names: tuple[str, ...]
    shares: npt.NDArray[np.float64]

    @classmethod
    def of(cls, label: str, scored: Mapping[str, Any], names: Sequence[str]) -> Confused | None:
        """From an entry of `scores.json`; None where it holds no confusion of these classes."""
        counts = np.asarray(scored.get("confusion") or [], dtype=np.float64)
        if counts.shape != (len(names), len(names)):
            return None
        return cls(label, tuple(names), ratio(counts, counts.sum(axis=1, keepdims=True)))

    def largest(self, count: int, *, first: int = 0) -> list[tuple[str, str, float]]:
        """True class, what it was taken for and the share, the largest mistakes first.

        Args:
            count: at most so many.
            first: 1 looks at mistakes between objects alone.
        """
        own = self.shares[first:, first:]
        mistakes = np.nan_to_num(own * (1 - np.eye(len(own))))
        order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
        places = zip(*np.unravel_index(order, mistakes.shape), strict=True)
        names = self.names[first:]
        found = [(names[row], names[column], float(mistakes[row, column])) for row, column in places]
        return [mistake for mistake in found if mistake[2] >= SMALLEST]


def confusion_matrices(reported: Reported) -> Html | None:
    """Of maps at their automatic score and of the segmentation; nothing where neither was scored.

    The last recipe's stand open, the others unfold.
    """
    stages = [(stage, _source(reported, stage)) for stage in STAGES if stage in reported.score_stages]
    entries = fewer(reported.entries)
    main = (reported.weak or reported.entries)[-1]
    opened: list[Html] = []
    folded: list[Html] = []
    for stage, source in stages:
        for entry in entries:
            found = _confused(reported, entry, stage, source)
            if found is None:
                continue
            title = f"{entry.label}, {score_name(reported, stage, source)}"
            if entry is main:
                opened += [element("h4", title), _shown(reported, found, title)]
            else:
                folded.append(details(title, _shown(reported, found, title)))
    if not opened and not folded:
        return None
    several = any(len(entry.runs) > 1 for entry in entries)
    note = NOTE + ("Shown for the first seed of each recipe." if several else "")
    return together([element("h3", "Confusion"), element("p", note, class_="note"), *opened, *folded])


def _source(reported: Reported, stage: str) -> str:
    sources = reported.sources(stage)
    return "automatic" if "automatic" in sources else sources[-1]


def _confused(reported: Reported, entry: RecipeRuns, stage: str, source: str) -> Confused | None:
    scored = entry.scores(stage, source)
    if scored is None and source != OWN:  # maps with a background of their own
        scored = entry.scores(stage, "none")
    return None if scored is None else Confused.of(entry.label, scored, reported.class_names)


def _shown(reported: Reported, found: Confused, title: str) -> Html:
    if len(found.names) > MOST_CLASSES:
        rows = [
            [class_key(reported, true), taken, element("td", f"{100 * share:.1f}", class_="number")]
            for true, taken, share in found.largest(LISTED)
        ]
        head = ("pixels of", "found as", element("th", "per cent", scope="col", class_="number"))
        return table(head, rows, caption=f"Largest mistakes: {title}")
    names = [element("th", element("span", name), scope="col") for name in found.names]
    rows = [[class_key(reported, name), *_cells(found, row)] for row, name in enumerate(found.names)]
    matrix = table(("true ↓ found as →", *names), rows, class_="confusion")
    return together([element("p", _told(found), class_="tell"), matrix])


def _cells(found: Confused, row: int) -> list[Html]:
    cells = []
    for column, share in enumerate(found.shares[row].tolist()):
        if np.isnan(share):
            cells.append(element("td", "–", title=f"no true pixels of {found.names[row]}"))
            continue
        title = f"{100 * share:.1f}% of {found.names[row]} found as {found.names[column]}"
        style = f"--s:{share:.3f}" if share >= SMALLEST else None
        number = f"{100 * share:.0f}" if share >= SMALLEST else ""
        cells.append(element("td", number, class_="hit" if row == column else None, style=style, title=title))
    return cells


def _told(found: Confused) -> str:
    parts = []
    for words, first in (("Largest mistakes", 0), ("Between objects", 1)):
        mistakes = [
            f"{100 * share:.0f}% of {true} as {taken}"
            for true, taken, share in found.largest(TOLD, first=first)
        ]
        if mistakes:
            parts.append(f"{words}: {', '.join(mistakes)}.")
    return " ".join(parts) or "No class loses as much as half a per cent of its pixels to another."
