"""What stands behind a number: split, supervision, background score, test settings, weights, commit."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wsss.engine.passport import Passport, passports_of
from wsss.engine.protocol import run_differences
from wsss.report.markup import Html, details, element, table, together
from wsss.report.runs import RecipeRuns, Reported, ReportedRun

STAGE_TITLES = {
    "maps": "Maps",
    "words": "Word labels",
    "pseudo_masks": "Pseudo masks",
    "segmentation": "Segmentation",
    "segmentation_crf": "Segmentation + CRF",
}

SOURCE_NOTES = {
    "fixed": "constant, from the papers",
    "automatic": "chosen without any mask",
    "oracle": "best on the true masks, for comparison only",
    "none": "no background score",
}


def stage_title(score_stage: str) -> str:
    """A scored stage for readers: `refined-irn` becomes Refined (irn)."""
    if score_stage.startswith("refined-"):
        return f"Refined ({score_stage.removeprefix('refined-')})"
    return STAGE_TITLES.get(score_stage, score_stage)


def passport(entry: RecipeRuns, score_stage: str, source: str) -> str:
    """Where a number comes from, in one paragraph."""
    source = entry.source(score_stage, source)
    title = f"{entry.label}: {stage_title(score_stage)}, mIoU"
    found = _passport(entry.first, score_stage, source)
    if found is None:
        return title
    scores = ", ".join(background_scores(entry, score_stage, source))
    score = f" {scores}" if scores else ""
    parts = [
        title,
        f"split {found.split} of {found.data} ({found.data_version}), {found.images:,} images",
        SOURCE_NOTES["none"]
        if source == "none"
        else f"background score{score}, {source}: {SOURCE_NOTES[source]}",
        f"supervision {found.supervision}",
        f"scales {_scales(found)}, flip {_yes(found.flip)}, CRF {_crf(found)}",
        "seeds " + ", ".join(str(item.seed) for item in entry.runs),
        f"weights {short_weights(found.weights)}",
        f"commit {found.commit}",
        f"{found.minutes:.1f} minutes on {found.hardware}",
    ]
    return " · ".join(parts)


def background_scores(entry: RecipeRuns, score_stage: str, source: str) -> list[str]:
    """The background scores behind a number, one per seed, repeated ones once."""
    found: dict[str, None] = {}
    for run in entry.runs:
        stage = run.scored(score_stage)
        scored = stage.entry(source) if stage else None
        level = scored.get("background_score") if scored else None
        if level is not None:
            found[f"{level:.2f}"] = None
    return sorted(found)


def passports(reported: Reported) -> Html:
    """All mIoU numbers of all runs with everything that stands behind them, to unfold."""
    head = (
        *(
            "run",
            "stage",
            "split",
            "images",
            "background score",
            "mIoU",
            "supervision",
            "CRF",
            "scales",
            "flip",
        ),
        *("weights", "data", "commit", "minutes", "hardware"),
    )
    rows = [
        _passport_row(run, found)
        for entry in reported.entries
        for run in entry.runs
        for found in passports_of(run.finished)
    ]
    return details(
        "Number passports: what stands behind each number",
        element(
            "p",
            "One row per number and seed. Weights and data are given by the first digits of their sha256. "
            "CRF: a dense CRF had a hand in maps or labels, or refined what a network found.",
            class_="note",
        ),
        table(head, rows, class_="fine"),
    )


def mixing_note(reported: Reported) -> Html | None:
    """How the runs were not measured alike, for a place above their numbers; None where they were."""
    found = run_differences([run.finished for entry in reported.entries for run in entry.runs])
    if not found:
        return None
    return together(
        [
            element(
                "p",
                element("b", "These runs were not measured alike, so their numbers mean different things. "),
                "A difference between two of them may come from how they were tested. They differ in:",
            ),
            element("ul", *(element("li", str(difference)) for difference in found)),
        ]
    )


def short_weights(weights: str | Mapping[str, str]) -> str:
    """Each weight file by its role and the first eight digits of its sha256, also from `role:<sha256> …`."""
    if isinstance(weights, str):
        weights = dict(re.findall(r"([^\s:][^:]*):(\S+)", weights))  # roles may be several words
    return ", ".join(f"{name} {digest[:8]}" for name, digest in weights.items()) or "none"


def _passport_row(run: ReportedRun, found: Passport) -> list[object]:
    stage = run.scored(found.stage)
    scored = stage.entry(found.background_score_source) if stage else None
    level = found.background_score
    source = found.background_score_source + ("" if level is None else f" {level:.2f}")
    value = f"{100 * scored['miou']:.2f}" if scored else "–"
    return [
        *(found.run, stage_title(found.stage), found.split, f"{found.images:,}", source, value),
        *(found.supervision, _crf(found), _scales(found), _yes(found.flip), short_weights(found.weights)),
        *(found.data_version, found.commit, f"{found.minutes:.1f}", found.hardware),
    ]


def _passport(run: ReportedRun, score_stage: str, source: str) -> Passport | None:
    wanted = (score_stage, source)
    found = (p for p in passports_of(run.finished) if (p.stage, p.background_score_source) == wanted)
    return next(found, None)


def _crf(found: Passport) -> str:
    if found.test_crf:
        return "yes, labels and predictions" if found.crf else "yes, predictions"
    return "yes" if found.crf else "no"


def _scales(found: Passport) -> str:
    return " ".join(f"{scale:g}" for scale in found.scales)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
