"""Ranks a run's pseudo masks by suspicion and writes what a person needs to go through them.

The page shows the first ones; `ranking.csv` and `ranking.json` hold all. docs/review.md says how to correct
masks and give them back.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from wsss.errors import DataError
from wsss.review.inputs import ReviewedRun, open_runs
from wsss.review.measure import Measured, all_signals, measure
from wsss.review.page import render
from wsss.review.ranking import Ranked, rank
from wsss.review.reasons import Seen, action, reasons
from wsss.review.signals import SIGNALS
from wsss.training.checkpoint import write_atomically
from wsss.training.journal import Progress

JOURNAL: Final = "signals.jsonl"
PAGE, *RANKINGS = ("index.html", "ranking.json", "ranking.csv")
_START: Final = b'{"runs": '  # of a journal


@dataclass(frozen=True)
class Suspect:
    """One ranked image with everything that is said about it.

    Args:
        place: 1 for the most suspicious.
        ranked: its suspicion and signals.
        tags: names of the classes that it is tagged with.
        reasons: in words, the loudest first.
        action: what to do, in words.
        file: name of the mask to correct.
    """

    place: int
    ranked: Ranked
    tags: tuple[str, ...]
    reasons: tuple[str, ...]
    action: str
    file: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "place": self.place,
            "image_id": self.ranked.image_id,
            "suspicion": round(self.ranked.suspicion, 6),
            "tags": list(self.tags),
            "reasons": list(self.reasons),
            "action": self.action,
            "file": self.file,
            "signals": _rounded(self.ranked.signals),
            "ranks": _rounded(self.ranked.ranks),
        }


@dataclass(frozen=True)
class Review:
    """A finished review.

    Args:
        page: the page to open.
        suspects: all images, the most suspicious first.
        shown: how many of them the page shows.
    """

    page: Path
    suspects: tuple[Suspect, ...]
    shown: int


def review(
    runs: Sequence[Path | str],
    *,
    top: int = 100,
    out: Path | str = "review",
    progress: Progress | None = None,
) -> Review:
    """Rank the pseudo masks of a run; no true mask is read, even where there are some.

    Args:
        runs: folders of finished runs of the same data; the first one's masks are ranked, the others are
            second opinions.
        top: most images on the page; fewer where it would become too large.
        out: folder for `index.html`, `ranking.csv` and `ranking.json`, replaced where an earlier review wrote
            them, and `signals.jsonl`, which an interrupted review goes on from.
        progress: told after each image.

    Raises:
        StageError: a folder holds no finished run with maps.
        DataError: runs of different data, nothing to review, files that can't be read, or a folder `out` with
            files of the same names that no review wrote.
    """
    if top < 1:
        raise DataError(f"`top` must be at least 1; got {top}. Say how many images the page shall show.")
    opened, out = open_runs(runs), Path(out)
    run = opened[0]
    ids = [image_id for image_id in run.tagged if image_id not in run.corrected]
    if not ids:
        raise DataError(f"All masks of {run.folder} were corrected already. There is nothing to review.")
    _check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    measured = measure(opened, ids, out / JOURNAL, progress)
    suspects = _suspects(run, measured)
    page, shown = render(opened, suspects[:top], len(suspects))
    for name, text in zip((*RANKINGS, PAGE), (_json(opened, suspects), _csv(suspects), page), strict=True):
        write_atomically(out / name, text.encode())
    return Review(out / PAGE, suspects, shown)


def _check_out(out: Path) -> None:
    """Refuse a folder whose files are to be replaced and are not of a review: that has its journal there."""
    journal = out / JOURNAL
    if journal.is_file():
        with journal.open("rb") as file:
            start = file.read(len(_START))
        others = [] if _START.startswith(start) else [journal]  # perhaps cut short by a killed process
    else:
        others = [path for path in (journal, *(out / name for name in (PAGE, *RANKINGS))) if path.exists()]
    if others:
        raise DataError(
            f"{others[0]} was not written by `wsss review` and would be replaced. Name another output folder."
        )


def _suspects(run: ReviewedRun, measured: dict[str, Measured]) -> tuple[Suspect, ...]:
    usual = median(image.foreground for image in measured.values())
    found = []
    for place, ranked in enumerate(rank(all_signals(measured)), start=1):
        image = measured[ranked.image_id]
        shares = {run.class_names[tag]: share for tag, share in image.shares.items()}
        seen = Seen(shares, image.foreground, usual)
        words = reasons(ranked, seen), action(ranked, seen)
        found.append(Suspect(place, ranked, tuple(shares), *words, f"{ranked.image_id}.png"))
    return tuple(found)


def _json(runs: Sequence[ReviewedRun], suspects: Sequence[Suspect]) -> str:
    run = runs[0]
    document = {
        "run": run.folder.name,
        "second_opinions": [other.folder.name for other in runs[1:]],
        "masks": None if run.masks is None else str(run.masks),
        "images": len(suspects),
        "corrected": len(run.corrected),
        "signals": list(SIGNALS),
        "ranking": [suspect.as_dict() for suspect in suspects],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _csv(suspects: Sequence[Suspect]) -> str:
    text = io.StringIO()
    columns = ("place", "image_id", "suspicion", "tags", "reasons", "action", "file", *SIGNALS)
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for suspect in suspects:
        row = suspect.as_dict()
        signals = row.pop("signals")
        del row["ranks"]
        row |= {"tags": "; ".join(suspect.tags), "reasons": " ".join(suspect.reasons)}
        writer.writerow({**row, **{name: signals.get(name) for name in SIGNALS}})
    return text.getvalue()


def _rounded(values: Any) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 6) for name, value in values.items()}
