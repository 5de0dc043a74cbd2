"""Which images the page shows, and how: input, maps, masks, predictions and truth side by side.

Images are chosen by the IoU of single images, which the scoring kept: where the last recipe gains and loses
most against the first, and its best, median and worst images. Without true masks, images are taken at even
distances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from wsss.data.dataset import Dataset
from wsss.errors import WsssError
from wsss.report.class_colours import class_colour
from wsss.report.image_texts import ImageTexts, entry_texts, text_blocks
from wsss.report.images import mask_picture, thumbnail
from wsss.report.markup import Html, element, together
from wsss.report.per_image import image_scores
from wsss.report.runs import RecipeRuns, Reported
from wsss.report.tiles import entry_tiles, has_result, tile
from wsss.types import Sample

MAX_ENTRIES: Final = 4  # more recipes than these would leave no room for pictures
TILES_SHOWN: Final = 320  # of one gallery; bounds the page's size

ImageScores = Mapping[str, Mapping[str, float]]
"""IoU of single images by entry label and image id."""


@dataclass(frozen=True)
class Gallery:
    """Images of one split, each with the same tiles.

    Args:
        reported: what the page speaks of.
        entries: recipes whose results are shown.
        score_stage: whose single-image IoU chooses the images.
        split: where the images come from.
        kinds: what is shown of each entry, in order; see `wsss.report.tiles.KINDS`.
    """

    reported: Reported
    entries: tuple[RecipeRuns, ...]
    score_stage: str
    split: str
    kinds: tuple[str, ...]

    @property
    def judged(self) -> tuple[RecipeRuns, ...]:
        """Whose IoU chooses the images: the first and the last entry trained without masks, if any is."""
        weak = tuple(entry for entry in self.entries if not entry.is_supervised) or self.entries
        return weak if len(weak) == 1 else (weak[0], weak[-1])

    @property
    def has_training_images(self) -> bool:
        """Whether methods trained on these images, and so on texts about them."""
        return "maps" in self.kinds


def training_gallery(reported: Reported) -> Gallery | None:
    """Maps and pseudo masks of training images."""
    entries = tuple(entry for entry in reported.weak if entry.first.stage("activate"))
    if not entries:
        return None
    has_masks = any(entry.first.stage("pseudo-masks") for entry in entries)
    kinds = ("saliency", "words", "maps", "refined", *(("pseudo_masks",) if has_masks else ()))
    split = str(reported.data.get("maps_split") or reported.data["train_split"])
    shown = fewer(entries)
    has_mask_scores = all(entry.first.scored("pseudo_masks") for entry in shown)
    return Gallery(reported, shown, "pseudo_masks" if has_mask_scores else "maps", split, kinds)


def prediction_gallery(reported: Reported) -> Gallery | None:
    """Predicted masks of images that no training saw."""
    entries = tuple(entry for entry in reported.entries if entry.first.stage("predict"))
    if not entries:
        return None
    return Gallery(
        reported, fewer(entries), "segmentation", str(reported.data["val_split"]), ("predictions",)
    )


def fewer(entries: Sequence[RecipeRuns]) -> tuple[RecipeRuns, ...]:
    """At most `MAX_ENTRIES` of them: the first and the last ones."""
    return tuple(entries) if len(entries) <= MAX_ENTRIES else (entries[0], *entries[1 - MAX_ENTRIES :])


def gallery(shown: Gallery, per_group: int) -> Html | None:
    """The gallery's images under their headings.

    Args:
        shown: what to show.
        per_group: images under each heading.
    """
    dataset = shown.reported.dataset
    if dataset is None:
        return None
    scores = {entry.label: entry_image_scores(entry, shown.score_stage) for entry in shown.entries}
    groups = choose(available(shown, dataset), [scores[entry.label] for entry in shown.judged], per_group)
    room = max(1, TILES_SHOWN // (2 + len(shown.entries) * len(shown.kinds)))
    chosen = [image_id for _, ids in groups for image_id in ids]
    texts = entry_texts(shown.entries, chosen) if shown.has_training_images else {}
    parts: list[Html] = []
    for heading, ids in groups:
        examples = [_example(shown, dataset, image_id, scores, texts) for image_id in ids[:room]]
        room -= len(examples)
        if examples:
            parts += [element("h3", _heading(shown, heading)), *examples]
    return together(parts) if parts else None


def choose(
    ids: Sequence[str], scores: Sequence[Mapping[str, float]], per_group: int
) -> list[tuple[str, tuple[str, ...]]]:
    """Choose images, each at most once.

    Args:
        ids: images that can be shown.
        scores: IoU of single images, of the first entry and of the last, or of one alone; empty where nothing
            was scored.
        per_group: images under each heading.

    Returns:
        Heading (gain, loss, best, median, worst, or examples) and images, in the order of the page.
    """
    scored = [image_id for image_id in ids if all(image_id in known for known in scores)]
    if not scored:
        places = np.linspace(0, len(ids) - 1, min(len(ids), 3 * per_group)).round().astype(int)
        return [("examples", tuple(ids[place] for place in dict.fromkeys(places.tolist())))]
    first, last = scores[0], scores[-1]
    by_score = sorted(scored, key=lambda image_id: (-last[image_id], image_id))
    wanted: list[tuple[str, list[str]]] = []
    if len(scores) > 1:
        by_gain = sorted(scored, key=lambda image_id: (first[image_id] - last[image_id], image_id))
        wanted.append(("gain", [image_id for image_id in by_gain if last[image_id] > first[image_id]]))
        wanted.append(("loss", [image_id for image_id in by_gain[::-1] if last[image_id] < first[image_id]]))
    wanted += [("best", by_score), ("median", from_the_middle(by_score)), ("worst", by_score[::-1])]
    taken: set[str] = set()
    groups = []
    for heading, order in wanted:
        chosen = tuple(image_id for image_id in order if image_id not in taken)[:per_group]
        taken.update(chosen)
        groups.append((heading, chosen))
    return groups


def from_the_middle(order: Sequence[str]) -> list[str]:
    """The same items, those nearest to the middle first.

    Example:
        >>> from_the_middle("abcde")
        ['c', 'b', 'd', 'a', 'e']
    """
    middle = (len(order) - 1) / 2
    return [order[place] for place in sorted(range(len(order)), key=lambda place: abs(place - middle))]


def available(shown: Gallery, dataset: Dataset) -> tuple[str, ...]:
    """Images of the split that have results; those without any class only where there are no others."""
    entry, kind = shown.judged[-1], "maps" if "maps" in shown.kinds else "predictions"
    found = tuple(image_id for image_id in dataset.ids(shown.split) if has_result(entry, kind, image_id))
    return tuple(image_id for image_id in found if dataset.image_labels(image_id).any()) or found


def entry_image_scores(entry: RecipeRuns, score_stage: str) -> Mapping[str, float]:
    """IoU of single images at the automatic background score, or the masks' own; empty if unscored."""
    stage = entry.first.scored(score_stage)
    if stage is None or stage.score_folder is None:
        return {}
    source = "automatic" if stage.entry("automatic") else stage.own_source
    return image_scores(stage.score_folder, source)


def _heading(shown: Gallery, heading: str) -> str:
    first, last = shown.judged[0].label, shown.judged[-1].label
    return {
        "gain": f"Largest gain of {last} over {first}",
        "loss": f"Largest loss of {last} against {first}",
        "best": f"Best of {last}",
        "median": f"Median of {last}",
        "worst": f"Worst of {last}",
        "examples": "Examples",
    }[heading]


def _example(
    shown: Gallery,
    dataset: Dataset,
    image_id: str,
    scores: ImageScores,
    texts: Mapping[str, ImageTexts],
) -> Html:
    try:
        sample = dataset.sample(image_id, with_mask=dataset.has_masks(shown.split))
    except WsssError as error:
        return element("p", f"{image_id} can't be shown: {error}", class_="note")
    names = [shown.reported.class_names[class_id] for class_id in _present(sample)]
    numbers = [
        element("li", f"{entry.label} ", element("b", f"{100 * scores[entry.label][image_id]:.0f}"))
        for entry in shown.entries
        if image_id in scores[entry.label]
    ]
    tiles = [tile("input", thumbnail(sample.image), f"photograph of {', '.join(names) or 'no class'}")]
    for entry in shown.entries:
        for kind in shown.kinds:
            tiles += entry_tiles(entry, kind, image_id, sample.image)
    if sample.mask is not None:
        tiles.append(tile("truth", mask_picture(sample.image, sample.mask), "true mask"))
    said = text_blocks(shown.reported, texts, image_id, names)
    return example(shown.reported, sample, tiles, numbers=numbers, below=said)


def example(
    reported: Reported,
    sample: Sample,
    tiles: Sequence[Html],
    *,
    numbers: Sequence[Html] = (),
    below: Html | None = None,
) -> Html:
    """One image on the page: its tags, its pictures side by side, and what is said about it.

    Args:
        reported: what the page speaks of.
        sample: the image.
        tiles: the pictures.
        numbers: list items with its scores.
        below: stands under the pictures.
    """
    tags = [
        element(
            "li",
            element("i", style=f"background:{class_colour(c)}"),
            reported.class_names[c],
            class_="key class",
        )
        for c in _present(sample)
    ]
    header = element(
        "header",
        element("ul", *(tags or [element("li", "no tag")]), aria_label="Tags"),
        element("ul", *numbers, class_="ious", aria_label="IoU of this image") if numbers else None,
        element("code", sample.image_id),
    )
    pictures = element("div", *tiles, class_="tiles")
    return element("article", header, pictures, below, class_="example", data_image=sample.image_id)


def _present(sample: Sample) -> list[int]:
    return [int(index) + 1 for index in np.flatnonzero(sample.image_labels)]
