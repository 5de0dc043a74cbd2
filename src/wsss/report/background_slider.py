"""A slider for the background score: it redraws, in the page, the masks that embedded maps give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wsss.activation.store import MapStore
from wsss.data.dataset import Dataset
from wsss.errors import WsssError
from wsss.report.chosen_score import choice
from wsss.report.embedded_maps import EmbeddedMaps
from wsss.report.figures import swatch
from wsss.report.gallery import (
    Gallery,
    available,
    choose,
    entry_image_scores,
    example,
    training_gallery,
)
from wsss.report.images import data_uri, mask_picture, pale_picture, thumbnail
from wsss.report.markup import Html, element, table, together
from wsss.report.passports import SOURCE_NOTES, stage_title
from wsss.report.runs import RecipeRuns, Reported, StageFolder
from wsss.report.tiles import tile

STEPS: Final = tuple(step / 100 for step in range(100))
"""Background scores that the slider can be set to."""

MOST_SOURCES: Final = 6  # pictures of each image beside photograph and truth
PER_GROUP: Final = 2  # enough to see both what a low and what a high score costs
USUAL: Final = 0.15  # the papers' constant, where nothing was chosen

ABOUT: Final = (
    "Move the score, with the mouse or the arrow keys, and see what becomes of the masks. They are drawn "
    "from small copies of the maps, so their edges are coarser than those of the masks on disk."
)
WITHOUT_SCRIPT: Final = (
    "Moving the score needs a browser that runs the page's script; the masks below are those of score {}."
)
RUN: Final = "wsss run RECIPE --set pseudo_masks.background_score="
LABEL: Final = "wsss label … --background-score "


@dataclass(frozen=True)
class MapSource:
    """Maps that a background score turns into masks, of the first seed of an entry.

    Args:
        entry: whose.
        stage: `activate` or `refine-*`.
        chosen: background scores by who chose them: fixed, automatic, oracle.
        miou: mIoU in per cent by background score; empty where nothing was scored.
    """

    entry: RecipeRuns
    stage: StageFolder
    chosen: Mapping[str, float]
    miou: Mapping[float, float]

    @property
    def label(self) -> str:
        """Recipe and maps, in a few words."""
        title = stage_title(self.stage.score_stage or "maps").lower()
        return f"{self.entry.label} {'map' if title == 'maps' else title}"

    @property
    def store(self) -> MapStore:
        """The maps."""
        return MapStore(self.stage.folder / "maps")


def background_slider(reported: Reported, per_group: int) -> Html | None:
    """The slider, what each of its values scores, and the masks of a few images.

    Args:
        reported: what the page speaks of.
        per_group: images under each heading: best, median, worst of the last recipe.

    Returns:
        Nothing where no images can be shown or all maps have a background of their own.
    """
    shown = training_gallery(reported)
    dataset = reported.dataset
    if shown is None or dataset is None or not per_group:
        return None
    sources = map_sources(shown.entries)
    if not sources:
        return None
    start = next((s.chosen["automatic"] for s in reversed(sources) if "automatic" in s.chosen), USUAL)
    groups = _groups(shown, dataset, min(per_group, PER_GROUP))
    images = [_image(shown, dataset, sources, image_id, start) for _, ids in groups for image_id in ids]
    return element(
        "div",
        element("h3", "Try a background score"),
        element("p", ABOUT, class_="note"),
        element("noscript", element("p", WITHOUT_SCRIPT.format(f"{start:.2f}"), class_="note")),
        _control(start),
        _scores(sources, start),
        _own_score(start),
        element("p", _which(shown, groups), class_="note"),
        *images,
        id="try",
    )


def map_sources(entries: Sequence[RecipeRuns]) -> tuple[MapSource, ...]:
    """Maps of the entries that have no background of their own; maps that entries share come once.

    Where there are more than `MOST_SOURCES`, only the last ones of each entry: those behind its masks.
    """
    found: dict[Path, MapSource] = {}
    for entry in entries:
        for source in _of_entry(entry):
            found.setdefault(source.stage.folder, source)
    if len(found) > MOST_SOURCES:
        last = {source.entry.label: source for source in found.values()}
        return tuple(last.values())[-MOST_SOURCES:]
    return tuple(found.values())


def _of_entry(entry: RecipeRuns) -> Iterator[MapSource]:
    for stage in entry.first.stages:
        if stage.name != "activate" and not stage.name.startswith("refine-"):
            continue
        store = MapStore(stage.folder / "maps")
        try:
            some_id = next(iter(store.ids()), None)
            if some_id is None or store.read(some_id, full_size=False).background is not None:
                continue
        except WsssError:
            continue
        yield MapSource(entry, stage, _chosen(entry, stage), _miou(stage))


def _chosen(entry: RecipeRuns, stage: StageFolder) -> dict[str, float]:
    scored = {source: stage.entry(source) for source in ("fixed", "automatic", "oracle")}
    found = {source: float(item["background_score"]) for source, item in scored.items() if item}
    if "automatic" not in found and (chosen := choice(entry.first, stage)) is not None:
        found["automatic"] = chosen.value
    return found


def _miou(stage: StageFolder) -> dict[float, float]:
    curve: Mapping[str, Any] = (stage.scores or {}).get("curve") or {}
    pairs = zip(curve.get("background_scores", ()), curve.get("miou", ()), strict=True)
    return {round(float(score), 2): 100 * float(miou) for score, miou in pairs if miou is not None}


def _control(start: float) -> Html:
    """Hidden until the script says that it works."""
    slider = element(
        "input",
        type="range",
        id="level",
        min=f"{STEPS[0]:.2f}",
        max=f"{STEPS[-1]:.2f}",
        step="0.01",
        value=f"{start:.2f}",
        aria_label="Background score",
    )
    return element(
        "div",
        element("label", "Background score", for_="level"),
        slider,
        element("output", f"{start:.2f}", for_="level", class_="level"),
        class_="control",
        hidden=True,
    )


def _scores(sources: Sequence[MapSource], start: float) -> Html:
    """What each source scores at the slider's value, and the values that were chosen for it."""
    is_scored = any(source.miou for source in sources)
    rows = []
    for source in sources:
        cells: list[object] = [swatch(source.entry.colour, source.label)]
        if is_scored:
            values = [source.miou.get(round(step, 2)) for step in STEPS]
            words = ["–" if value is None else f"{value:.1f}" for value in values]
            shown = words[min(range(len(STEPS)), key=lambda step: abs(STEPS[step] - start))]
            cells.append(element("td", shown, class_="number miou", data_miou=" ".join(words)))
        cells.append(element("td", together(_jumps(source), " ")))
        rows.append(cells)
    miou = element("th", "mIoU at ", element("span", f"{start:.2f}", class_="level"), scope="col")
    head = ("maps", *([miou] if is_scored else []), "scores that were chosen")
    caption = "mIoU in per cent, of all scored images of the first seed" if is_scored else None
    return table(head, rows, caption=caption, class_="levels")


def _jumps(source: MapSource) -> Iterator[Html]:
    for who, score in source.chosen.items():
        yield element(
            "button",
            f"{who} {score:.2f}",
            type="button",
            class_="jump",
            value=f"{score:.2f}",
            title=SOURCE_NOTES[who],
            disabled=True,
            aria_label=f"{source.label}: {who}, {score:.2f}",
        )


def _own_score(start: float) -> Html:
    """How to make masks at a score that was found by eye."""
    level = element("span", f"{start:.2f}", class_="level")
    commands = [element("code", command, level) for command in (RUN, LABEL)]
    words = ("A better one? Make masks with it: ", " or, for a folder of images, ", ".")
    return element("p", words[0], commands[0], words[1], commands[1], words[2], class_="note")


def _groups(shown: Gallery, dataset: Dataset, per_group: int) -> list[tuple[str, tuple[str, ...]]]:
    """Best, median and worst images of the last entry; without true masks, some at even distances."""
    scores = entry_image_scores(shown.judged[-1], shown.score_stage)
    return choose(available(shown, dataset), [scores], per_group)


def _which(shown: Gallery, groups: Sequence[tuple[str, Sequence[str]]]) -> str:
    if len(groups) < 2:
        return f"Images of {shown.split}, at even distances."
    counts = [f"{heading} {len(ids)}" for heading, ids in groups if ids]
    return f"Images of {shown.split} by the IoU of {shown.judged[-1].label}: {', '.join(counts)}."


def _image(
    shown: Gallery, dataset: Dataset, sources: Sequence[MapSource], image_id: str, start: float
) -> Html:
    try:
        sample = dataset.sample(image_id, with_mask=dataset.has_masks(shown.split))
    except WsssError as error:
        return element("p", f"{image_id} can't be shown: {error}", class_="note")
    base = pale_picture(sample.image)
    height, width = base.shape[:2]
    photograph = element(
        "img", src=data_uri(base), width=width, height=height, alt="the photograph in grey", loading="lazy"
    )
    tiles = [tile("input", thumbnail(sample.image), "photograph")]
    for number, source in enumerate(sources):
        try:
            maps = EmbeddedMaps.of(source.store.read(image_id))
        except WsssError:
            continue
        layer = maps.layer(start, f"mask of {source.label}", number)
        layered = element("div", photograph, layer, class_="layered")
        tiles.append(element("figure", layered, element("figcaption", source.label)))
    if sample.mask is not None:
        tiles.append(tile("truth", mask_picture(sample.image, sample.mask), "true mask"))
    return example(shown.reported, sample, tiles)
