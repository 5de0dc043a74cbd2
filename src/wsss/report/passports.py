"""What stands behind a number: split, supervision, background score, test settings, weights, commit."""

from __future__ import annotations

from collections.abc import Mapping

from wsss.engine.publish import rows_of
from wsss.report.markup import Html, details, element, table
from wsss.report.runs import RecipeRuns, Reported, ReportedRun

STAGE_TITLES = {
    "maps": "Maps",
    "words": "Word labels",
    "pseudo_masks": "Pseudo masks",
    "segmentation": "Segmentation",
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
    run = entry.first
    source = entry.source(score_stage, source)
    row = _row(run, score_stage, source)
    scores = ", ".join(score for score in background_scores(entry, score_stage, source) if score)
    score = f" {scores}" if scores else ""
    parts = [
        f"{entry.label}: {stage_title(score_stage)}, mIoU",
        f"split {row.get('split', '')} of {run.record['data']['name']} ({row.get('data_version', '')})",
        SOURCE_NOTES["none"]
        if source == "none"
        else f"background score{score}, {source}: {SOURCE_NOTES[source]}",
        f"supervision {row.get('supervision', '')}",
        f"scales {row.get('scales', '') or '–'}, flip {row.get('flip', '')}, CRF {row.get('crf', '')}",
        "seeds " + ", ".join(str(item.seed) for item in entry.runs),
        f"weights {short_weights(row.get('weights_sha256', ''))}",
        f"commit {row.get('commit', '')}",
        f"{row.get('minutes', '')} minutes on {row.get('hardware', '')}",
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
        *("run", "stage", "split", "background score", "mIoU", "supervision", "CRF", "scales", "flip"),
        *("weights", "data", "commit", "minutes", "hardware"),
    )
    rows = [
        _passport_row(run, row)
        for entry in reported.entries
        for run in entry.runs
        for row in rows_of(run.finished)
        if row["metric"] == "miou"
    ]
    return details(
        "Number passports: what stands behind each number",
        element(
            "p",
            "One row per number and seed. Weights and data are given by the first digits of their sha256.",
            class_="note",
        ),
        table(head, rows, class_="fine"),
    )


def short_weights(weights: str) -> str:
    """`teacher:<sha256>` with the digest's first eight digits."""
    pairs = [word.partition(":") for word in weights.split()]
    return ", ".join(f"{name} {digest[:8]}" for name, _, digest in pairs) or "none"


def _passport_row(run: ReportedRun, row: Mapping[str, str]) -> list[object]:
    stage = run.scored(row["stage"])
    scored = stage.entry(row["background_score_source"]) if stage else None
    level = scored.get("background_score") if scored else None
    source = row["background_score_source"] + ("" if level is None else f" {level:.2f}")
    return [
        *(row["run"], stage_title(row["stage"]), row["split"], source, row["value"], row["supervision"]),
        *(row["crf"], row["scales"], row["flip"], short_weights(row["weights_sha256"]), row["data_version"]),
        *(row["commit"], row["minutes"], row["hardware"]),
    ]


def _row(run: ReportedRun, score_stage: str, source: str) -> Mapping[str, str]:
    wanted = (score_stage, "miou", source)
    rows = rows_of(run.finished)
    return next(
        (row for row in rows if (row["stage"], row["metric"], row["background_score_source"]) == wanted), {}
    )
