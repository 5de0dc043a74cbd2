"""One self-contained page to step through suspicious masks: pictures, reasons, what to do, which file to fix.

The page loads nothing and says so to the browser. Without its script it shows all images below each other;
with it, one at a time, by keyboard or buttons.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from wsss.report.class_colours import class_colour
from wsss.report.images import Picture, data_uri
from wsss.report.markup import Html, element, together
from wsss.review.inputs import ReviewedRun
from wsss.review.pictures import flat, overlay, photograph

if TYPE_CHECKING:
    from wsss.review.review import Suspect

MAX_BYTES: Final = 14_000_000
MOST_OPINIONS: Final = 3  # masks of other runs beside the run's own


def render(runs: Sequence[ReviewedRun], suspects: Sequence[Suspect], total: int) -> tuple[str, int]:
    """The page's text, and how many images it shows: as many as it has room for.

    Args:
        runs: the reviewed run, then its second opinions.
        suspects: images for the page, the most suspicious first.
        total: how many were ranked.
    """
    articles: list[Html] = []
    room = MAX_BYTES - len(_page(runs[0], [], total).encode())
    for suspect in suspects:
        article = _article(runs, suspect)
        room -= len(article.encode())
        if room < 0:
            break
        articles.append(article)
    return _page(runs[0], articles, total), len(articles)


def _page(run: ReviewedRun, articles: Sequence[Html], total: int) -> str:
    heading = f"Review of {run.folder.name}"
    body = element(
        "body",
        element("h1", heading),
        element(
            "p",
            f"The {len(articles):,} most suspicious of {total:,} masks, the worst first. Suspicion is "
            "worked out without a true mask: it says where to look, not what is wrong. ranking.csv has all.",
        ),
        _how_to_correct(run),
        _bar(),
        element("main", *articles),
        element("footer", "Colour names the class; white is unsure. Pictures are resized, files are not."),
        element("script", Html(_inside("page.js"))),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy()),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", heading),
        element("style", Html(_inside("style.css"))),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _how_to_correct(run: ReviewedRun) -> Html:
    """Where the files are, and what becomes of those that are corrected."""
    if run.masks is None:
        command = element("code", "wsss pseudo-masks")
        words = ("This run has written no pseudo masks yet; these are what its maps give. Run ", command)
        return element("p", *words, " to have files that can be corrected.")
    words = ("To correct a mask, copy its file from ", element("code", str(run.masks)))
    option = element("code", "--corrections FOLDER")
    return element("p", *words, " into a folder of its own, redraw it, and train again with ", option, ".")


def _bar() -> Html:
    """Buttons and keys; hidden until the script works."""
    keys = ("j", "→", "k", "←", "Home", "End")
    return element(
        "div",
        element("button", "Back", type="button", id="back"),
        element("span", id="place", role="status"),
        element("button", "Next", type="button", id="on"),
        element("button", "Show all", type="button", id="all", aria_pressed="false"),
        element("span", "Keys: ", together([element("kbd", key) for key in keys], " "), class_="soft"),
        class_="bar",
        hidden=True,
    )


def _article(runs: Sequence[ReviewedRun], suspect: Suspect) -> Html:
    run, image_id = runs[0], suspect.ranked.image_id
    image, mask = run.dataset.sample(image_id).image, run.mask(image_id)
    pictures = [
        _figure("photograph", photograph(image), f"photograph of {', '.join(suspect.tags)}"),
        _figure("mask over it", overlay(image, mask), "pseudo mask over the photograph"),
        _figure("mask", flat(image, mask), "pseudo mask"),
    ]
    for other in runs[1 : 1 + MOST_OPINIONS]:
        name = other.folder.name
        pictures.append(_figure(name, overlay(image, other.mask(image_id)), f"pseudo mask of {name}"))
    tags = [
        element("li", element("i", style=f"background:{class_colour(run.class_names.index(name))}"), name)
        for name in suspect.tags
    ]
    return element(
        "article",
        element(
            "header",
            element("h2", f"{suspect.place}. {image_id}"),
            element("ul", *tags, class_="tags", aria_label="Tags"),
        ),
        element("div", *pictures, class_="pictures"),
        element("ul", *(element("li", reason) for reason in suspect.reasons), aria_label="Reasons"),
        element("p", suspect.action, class_="action"),
        element("p", "File: ", element("code", suspect.file), class_="soft"),
        id=f"image-{suspect.place}",
        tabindex="-1",
    )


def _figure(caption: str, picture: Picture, description: str) -> Html:
    height, width = picture.shape[:2]
    image = element(
        *("img",),
        src=data_uri(picture, quality=75),
        width=width,
        height=height,
        alt=description,
        loading="lazy",
        decoding="async",
    )
    return element("figure", image, element("figcaption", caption))


@cache
def _inside(name: str) -> str:
    return files("wsss.review").joinpath(name).read_text(encoding="utf-8")


def _policy() -> str:
    """Keeps the browser from loading anything and from running any script but the page's own."""
    digest = base64.b64encode(hashlib.sha256(_inside("page.js").encode()).digest()).decode("ascii")
    own = f"img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"default-src 'none'; {own}; base-uri 'none'"
