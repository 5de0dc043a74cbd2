"""Curves: mIoU over the background score, and losses over the steps of training."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from wsss.report.chosen_score import RULES, Choice, choice
from wsss.report.figures import INK, Line, Mark, Plot, legend, mark_key, plot, swatch
from wsss.report.gallery import fewer
from wsss.report.markup import Html, element, together
from wsss.report.passports import SOURCE_NOTES, stage_title
from wsss.report.runs import RecipeRuns, Reported, StageFolder
from wsss.training.journal import read_journal

SOURCE_WORDS: Final = {
    "fixed": "fixed",
    "automatic": "automatic, without masks",
    "oracle": "oracle, on the true masks",
}
"""Who chose a background score, for legends."""

LOSS_COLOURS: Final = (2, 3, 4, 5, 6, 1, 0, 7)  # of the terms; the total has the colour of text


def score_curves(reported: Reported) -> Html | None:
    """MIoU at every background score, one plot per scored stage that has maps."""
    plots = [_score_plot(reported, stage) for stage in reported.score_stages]
    shown = [figure for figure in plots if figure is not None]
    if not shown:
        return None
    note = (
        "A pixel is background where no class's score reaches the background score: a high one gives small "
        "masks, a low one large masks. A flat, wide top means that the choice matters little."
    )
    keys = [
        *(swatch(entry.colour, entry.label) for entry in reported.entries if _has_curve(entry)),
        *(
            mark_key(source, SOURCE_WORDS[source])
            for source in SOURCE_WORDS
            if any(source in reported.sources(s) for s in reported.score_stages)
        ),
    ]
    return together([element("p", note, class_="note"), legend(keys), *shown])


def _has_curve(entry: RecipeRuns) -> bool:
    return any((stage.scores or {}).get("curve") for run in entry.runs for stage in run.stages)


def _score_plot(reported: Reported, score_stage: str) -> Html | None:
    lines, marks, told = [], [], []
    for entry in reported.entries:
        for run in entry.runs:
            stage = run.scored(score_stage)
            curve = stage.scores.get("curve") if stage and stage.scores else None
            if stage is None or not curve:
                continue
            points = [
                (float(x), 100 * float(y))
                for x, y in zip(curve["background_scores"], curve["miou"], strict=True)
                if y is not None
            ]
            lines.append(Line(points, entry.colour, is_faint=len(entry.runs) > 1))
            for scored in (stage.entry(source) for source in ("fixed", "oracle", "automatic")):
                if scored is None or scored["background_score"] is None:
                    continue
                source, level = scored["background_score_source"], float(scored["background_score"])
                who = f"{source}: {SOURCE_NOTES[source]}"
                note = f"{entry.label}, seed {run.seed}: {100 * scored['miou']:.1f} at {level:.2f} ({who})"
                marks.append(Mark(level, 100 * scored["miou"], source, entry.colour, note))
                told.append(note)
    if not lines:
        return None
    description = f"mIoU of {stage_title(score_stage).lower()} over the background score. {'; '.join(told)}."
    drawn = plot(
        Plot(lines, "background score", "mIoU, per cent", description, marks, x_limits=(0.0, 1.0), y_from=0.0)
    )
    caption = element("figcaption", f"{stage_title(score_stage)} on {reported.split(score_stage)}")
    return element("figure", caption, drawn, class_="wide over-score")


def choice_curves(reported: Reported) -> Html | None:
    """What chose the automatic scores, over all background scores; nothing where nothing was chosen."""
    by_folder: dict[Path, tuple[RecipeRuns, StageFolder, Choice]] = {}  # recipes may share maps
    for entry in fewer(reported.weak):
        for stage in entry.first.stages:
            is_maps = stage.name == "activate" or stage.name.startswith("refine-")
            chosen = choice(entry.first, stage) if is_maps else None
            if chosen is not None and chosen.rule in RULES:
                by_folder.setdefault(stage.folder, (entry, stage, chosen))
    found = list(by_folder.values())
    if not found:
        return None
    lines, marks, told = [], [], []
    for entry, stage, chosen in found:
        lines.append(Line(chosen.curve, entry.colour, is_faint=stage.name != "activate"))
        best = max((y for _, y in chosen.curve), default=0.0)
        title = stage_title(stage.score_stage or "maps").lower()
        told.append(f"{entry.label}{'' if title == 'maps' else f', {title}'} {chosen.value:.2f}")
        marks.append(Mark(chosen.value, best, "automatic", entry.colour, told[-1]))
    first = found[0][2]
    note = f"Without any mask, the automatic score is {RULES[first.rule]}, over {first.images:,} images: "
    note += f"{'; '.join(told)}."
    content = Plot(
        lines,
        "background score",
        f"{first.rule}, of the best possible",
        note,
        marks,
        x_limits=(0.0, 1.0),
        y_from=0.0,
        is_small=True,
    )
    caption = element("figcaption", "How the automatic score was chosen")
    entries = {entry.label: entry for entry, _, _ in found}.values()
    keys = legend([swatch(entry.colour, entry.label) for entry in entries]) if len(entries) > 1 else None
    figure = element("figure", caption, keys, plot(content), class_="wide small over-score")
    return together([element("p", note, class_="note"), figure])


def loss_curves(reported: Reported) -> Html | None:
    """One small plot per training of each recipe's first seed; shared trainings are shown once."""
    seen: set[Path] = set()
    figures = []
    for entry in reported.entries:
        for stage in entry.first.stages:
            log = stage.folder / "log.jsonl"
            if log in seen or not log.is_file():
                continue
            seen.add(log)
            drawn = _loss_plot(log, f"{stage.title}, {entry.label}")
            if drawn is not None:
                figures.append(drawn)
    if not figures:
        return None
    note = (
        "Mean losses between two lines of the log, already weighted; the darkest line is their total. "
        "Trainings that recipes share are shown once."
    )
    return together([element("p", note, class_="note"), element("div", *figures, class_="multiples")])


def _loss_plot(log: Path, title: str) -> Html | None:
    entries = [line for line in read_journal(log) if line.get("loss") is not None]
    if not entries:
        return None
    names = list(dict.fromkeys(name for line in entries for name in line.get("losses", {})))
    terms = {"total": [(float(line["step"]), float(line["loss"])) for line in entries]}
    if len(names) > 1:
        for name in names:
            terms[name] = [
                (float(line["step"]), float(line["losses"][name]))
                for line in entries
                if line["losses"].get(name) is not None
            ]
    else:
        terms = {names[0] if names else "loss": terms["total"]}
    colours = [INK, *(LOSS_COLOURS[index % len(LOSS_COLOURS)] for index in range(len(terms) - 1))]
    lines = [
        Line(points, colour, is_faint=colour != INK)
        for colour, points in zip(colours, terms.values(), strict=True)
    ]
    last = ", ".join(f"{name} {points[-1][1]:.3g}" for name, points in terms.items() if points)
    description = f"Losses of: {title}. At the end: {last}."
    limits = (0.0, max(1.0, float(entries[-1]["step"])))
    drawn = plot(Plot(lines, "step", "loss", description, x_limits=limits, is_small=True))
    keys = [swatch(colour, name) for colour, name in zip(colours, terms, strict=True)]
    return element("figure", element("figcaption", title), drawn, legend(keys), class_="small")
