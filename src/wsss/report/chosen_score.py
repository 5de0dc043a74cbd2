"""The background score that was chosen without any mask, also where nothing was scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wsss.report.passports import background_scores
from wsss.report.runs import RecipeRuns, ReportedRun, StageFolder

CHOSEN: Final = "chosen_score.json"
RULES: Final = {"colour separation": "the score whose masks separate the colours of the images best"}


@dataclass(frozen=True)
class Choice:
    """What a stage `choose-score-*` found.

    Args:
        value: the background score, in [0, 1].
        rule: name of the rule that chose it.
        images: how many images it looked at.
        curve: (background score, what the rule looked at); the chosen score is where it is highest.
    """

    value: float
    rule: str
    images: int
    curve: tuple[tuple[float, float], ...]


def choice(run: ReportedRun, maps: StageFolder) -> Choice | None:
    """How the score of the maps of one stage was chosen; None where none was, or nothing tells.

    Choosing has a stage folder beside that of the maps; run.json does not list it.

    Args:
        run: whose maps.
        maps: its stage `activate` or `refine-*`.
    """
    split = run.record["data"].get("maps_split") or run.record["data"]["train_split"]
    for path in sorted(maps.folder.parent.glob(f"choose-score-*/{CHOSEN}")):
        stage = _read(path.with_name("stage.json"))
        inputs = stage.get("inputs") or [""]
        if inputs[0] == maps.folder.name and stage.get("settings", {}).get("split", split) == split:
            return _choice(_read(path))
    return None


def background_choice(entry: RecipeRuns) -> str:
    """The background scores of an entry's maps, one per seed and repeated ones once; a dash for none."""
    chosen = background_scores(entry, "maps", "automatic") or sorted(set(_chosen(entry)))
    parts = [f"automatic {', '.join(chosen)}"] if chosen else []
    given = sorted(set(_given(entry)))
    return "; ".join([*parts, f"given {', '.join(given)}"] if given else parts) or "–"


def _chosen(entry: RecipeRuns) -> Iterator[str]:
    for run in entry.runs:
        maps = run.stage("activate")
        found = choice(run, maps) if maps else None
        if found is not None:
            yield f"{found.value:.2f}"


def _given(entry: RecipeRuns) -> Iterator[str]:
    """Scores that a recipe gives for its pseudo masks, in place of a choice."""
    for run in entry.runs:
        masks = run.stage("pseudo-masks")
        found = _read(masks.folder / CHOSEN) if masks else {}
        if found.get("source") == "fixed" and isinstance(found.get("value"), (int, float)):
            yield f"{found['value']:.2f}"


def _choice(document: Mapping[str, Any]) -> Choice | None:
    details = document.get("details") or {}
    try:
        scores, agreement = details["background_scores"], details["agreement"]
        curve = tuple((float(x), float(y)) for x, y in zip(scores, agreement, strict=True))
        return Choice(float(document["value"]), str(details["rule"]), int(details["images"]), curve)
    except (KeyError, TypeError, ValueError):  # maps with a background of their own: nothing was chosen
        return None


def _read(path: Path) -> dict[str, Any]:
    """A JSON document; empty where it is missing or broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
