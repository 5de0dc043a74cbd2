"""One self-contained HTML page about runs: what was run, scores, curves, classes, pictures.

The page loads nothing, and says so to the browser: style, pictures and script are inside it. Only the slider
of the background score and the enlarging of pictures need the script. The page reads run folders and the
engine's comparison of them and scores nothing itself.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from wsss.engine.compare import compare_runs
from wsss.engine.papers import Exhibit
from wsss.report import class_tables, story
from wsss.report.background_slider import background_slider
from wsss.report.boundary_tables import boundary_scores
from wsss.report.confusion_matrix import confusion_matrices
from wsss.report.curves import choice_curves, loss_curves, score_curves
from wsss.report.gallery import gallery, prediction_gallery, training_gallery
from wsss.report.markup import Html, element, together
from wsss.report.paper_section import paper_section
from wsss.report.paper_tables import with_points
from wsss.report.passports import passports
from wsss.report.result_rows import Results
from wsss.report.runs import Reported, read_reported
from wsss.report.score_table import score_table
from wsss.report.setting_curve import setting_curve
from wsss.training.checkpoint import write_atomically

MAX_BYTES: Final = 14_000_000
IMAGES_PER_GROUP: Final = (3, 2, 1, 0)  # tried in turn until the page is small enough

BESIDE_PAPERS: Final = ("scores", "images", "runs")


def write_report(
    run_folders: Sequence[Path | str],
    out: Path | str,
    *,
    title: str | None = None,
    comparison: Mapping[str, Any] | None = None,
    exhibits: Sequence[Exhibit] = (),
    point_files: Sequence[Path] = (),
) -> Path:
    """Write `out/index.html`, one page about the runs that opens in any browser without a network.

    Args:
        run_folders: finished runs of the same data; runs of one recipe are its seeds, and the first recipe is
            what the others are compared with.
        out: folder, made if missing; an older page is replaced.
        title: heading; none: the recipes and the data set.
        comparison: `Comparison.to_dict()` of exactly these runs, where it is known already.
        exhibits: tables and figures of papers; with any, they stand first and what few readers want of so
            many runs (curves, classes, losses) is left out.
        point_files: `points.json` files for exhibits of points.

    Returns:
        The page's path.

    Raises:
        StageError: a folder holds no finished run, or its scores are missing.
        RecipeError: no folder is given, or the runs are of different data, classes or splits.
    """
    if exhibits and comparison is None:
        comparison = compare_runs(run_folders).to_dict()
    reported = read_reported(run_folders, comparison)
    papers = None
    if exhibits and comparison is not None:
        results = with_points(Results.of_comparison(comparison), point_files)
        papers = paper_section(reported, exhibits, results, point_files)
    page = ""
    for per_group in IMAGES_PER_GROUP:
        page = render(reported, title, per_group, papers)
        if len(page.encode()) <= MAX_BYTES:
            break
    path = Path(out) / "index.html"
    write_atomically(path, page.encode())
    return path


def render(reported: Reported, title: str | None, per_group: int, papers: Html | None = None) -> str:
    """The page's text, with `per_group` images under each heading of the galleries.

    Args:
        reported: what the page speaks of.
        title: heading; none: the recipes and the data set.
        per_group: images under each heading.
        papers: tables and figures of papers, which then stand first.
    """
    heading = title or story.heading(reported)
    found = _sections(reported, per_group)
    if papers:
        kept = [section for section in found if section[0] in BESIDE_PAPERS]
        found = [("papers", "Tables and figures of the papers", papers), *kept]
    sections = [(name, words, content) for name, words, content in found if content]
    contents = [element("a", words, href=f"#{name}") for name, words, _ in sections]
    body = element(
        "body",
        element("a", "Skip to the content", href="#content", class_="skip"),
        element(
            "header",
            element("p", story.kicker(reported), class_="kicker"),
            element("h1", heading),
            element("p", story.lead(reported), class_="lead"),
            story.key_numbers(reported),
            element("p", element("b", "How to read this. "), story.how_to_read(reported), class_="how"),
            element("nav", *contents, aria_label="Contents"),
        ),
        element("main", *(_section(*section) for section in sections), id="content"),
        element("footer", element("p", story.colophon(reported))),
        element("script", Html(_script())),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy()),
        element("meta", name="color-scheme", content="light dark"),
        element("title", heading),
        element("style", Html(_style())),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _sections(reported: Reported, per_group: int) -> list[tuple[str, str, Html | None]]:
    """Anchor, heading and content of each part; those without content are left out."""
    return [
        (
            "scores",
            "Scores",
            together([score_table(reported), passports(reported) if reported.score_stages else None]),
        ),
        ("images", "Images", _pictures(reported, per_group)),
        ("curves", "Background score", _background_score(reported, per_group)),
        ("setting", "One setting", setting_curve(reported)),
        ("classes", "Classes", _classes(reported)),
        ("boundaries", "Boundaries and co-occurring background", boundary_scores(reported)),
        ("training", "Training", loss_curves(reported)),
        ("runs", "What was run", story.what_was_run(reported)),
    ]


def _background_score(reported: Reported, per_group: int) -> Html | None:
    parts = [score_curves(reported), choice_curves(reported), background_slider(reported, per_group)]
    return together(parts) if any(parts) else None


def _classes(reported: Reported) -> Html | None:
    parts = [
        class_tables.class_scores(reported),
        confusion_matrices(reported),
        class_tables.diseases(reported),
        class_tables.cooccurrence(reported),
        class_tables.other_scores(reported),
    ]
    return together(parts) if any(parts) else None


def _pictures(reported: Reported, per_group: int) -> Html | None:
    if reported.dataset is None:
        return element("p", f"The images can't be shown: {reported.dataset_problem}", class_="note")
    parts: list[Html] = []
    shown = (
        ("On the training images", training_gallery(reported)),
        ("On images that no training saw", prediction_gallery(reported)),
    )
    for heading, content in shown:
        pictures = gallery(content, per_group) if content and per_group else None
        if content and pictures:
            words = f"{heading} ({content.split})"
            parts.append(element("section", element("h2", words, class_="sub"), pictures, class_="gallery"))
    if not parts:
        return None
    legend = [class_tables.class_key(reported, name) for name in reported.class_names[1:]]
    note = (
        "Colour names the class. A map shows each class's score as the strength of its colour; a mask shows "
        "the class that won each pixel, and white where it is unlabelled or unsure. Pictures are of the "
        "first seed."
    )
    if reported.score_stages:
        note += " Numbers are the IoU of the single image, averaged over the classes in its truth."
    key = element("div", together(legend, " "), class_="legend sticky", aria_label="Colours of the classes")
    return together([element("p", note, class_="note"), key, *parts])


def _section(name: str, words: str, content: Html) -> Html:
    return element("section", element("h2", words), content, id=name, tabindex="-1")


@cache
def _style() -> str:
    return files("wsss.report").joinpath("style.css").read_text(encoding="utf-8")


@cache
def _script() -> str:
    return files("wsss.report").joinpath("page.js").read_text(encoding="utf-8")


@cache
def _policy() -> str:
    """Keeps the browser from loading anything and from running any script but the page's own."""
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
