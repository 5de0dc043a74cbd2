"""The card of a model: where it comes from, how good it is and on what, and what may be done with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from wsss.engine.measurements import FinishedRun
from wsss.engine.publish import rows_of
from wsss.errors import WeightsError, WsssError
from wsss.models.public_models import PUBLIC_MODELS
from wsss.models.weights import find_weights

SUPERVISION: Final = {
    "F": "true masks of the training images (the fully supervised twin)",
    "I": "image tags",
    "I+L": "image tags and a language teacher",
    "I+S": "image tags and saliency maps",
    "I+L+S": "image tags, a language teacher and saliency maps",
}
EMBEDDED: Final = "Apache-2.0 (shipped with wsss, trained on generated pictures)"
MADE_HERE: Final = "made in this run from the training data"
UNKNOWN: Final = "unknown: see where the weights come from"
_GIVEN: Final = "+M("  # how the number of masks given by hand stands in a supervision
_ORACLE: Final = " (oracle)"
_MADE_HERE: Final = ("trained teacher", "tag classifier")
_PASSPORT: Final = (
    *("stage", "split", "value", "background_score_source", "supervision", "crf", "scales", "flip"),
    *("data_version", "commit", "minutes", "hardware"),
)

_CLASSES: Final = (
    "Every pixel gets one of the classes above; what belongs to none is background, or is mistaken for one."
)
_SCORED: Final = (
    "Scores hold for images like those of the split that they were measured on. On other images, "
    "measure anew."
)
_NOT_SCORED: Final = (
    "The network was not scored, so how good its masks are is not known. Measure it on images with true "
    "masks before you rely on it."
)
_WEAK: Final = (
    "{learned}, outlines are softer than those of a network trained on masks, and what always\n"
    "  stands beside a class (rails with trains, water with boats) may be taken for it."
)
_BY_CLASS: Final = (
    "Which class is harder than another is in the table above; a mean says nothing about one class."
)
_UNCALIBRATED: Final = "Probabilities are not calibrated."


def model_card(run: FinishedRun) -> str:
    """The text of `README.md`, in Markdown, for the segmentation network of a run."""
    record = run.record
    data, recipe = record["data"], record["recipe"]
    rows = rows_of(run)
    names = ", ".join(data["class_names"][1:])
    config = recipe["segmentation"]
    parts = [
        "---\nlibrary_name: wsss\npipeline_tag: image-segmentation\n---",
        f"# {run.recipe_name}, seed {run.seed}: a segmentation model",
        f"Gives each pixel of a photograph one of {len(data['class_names'])} classes: background, {names}.",
        _use(),
        "## How it was made\n\n"
        + _list(
            {
                "Data": f"{data['name']} ({data['data_version']}), split `{data['train_split']}`",
                "Supervision": supervision(str(record["supervision"])),
                "Method": _method(recipe, run.method),
                "Network": f"{config['network']} with {config['backbone']}",
                "Tested at": f"scales {config['test_scales']}, "
                f"{'with' if config['test_flip'] else 'without'} mirror images",
                "Program": f"wsss {record.get('version', 'unknown')}, commit {record['commit']}",
                "Recipe": f"`{run.recipe_name}`, seed {run.seed}",
            }
        ),
        "## Scores\n\n" + _scores(rows),
        "## Weights that had a part, and their licences\n\n" + _weights(record),
        "## Limits\n\n" + _limits(run, rows),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def supervision(word: str) -> str:
    """I, I+L, I+S or F in words, with masks given by hand (I+M(12) and the like) and an oracle's help.

    Example:
        >>> supervision("I+L+M(12)")
        'image tags and a language teacher, and 12 masks given by hand (I+L+M(12))'
    """
    learned = word.removesuffix(_ORACLE)
    kind, plus, rest = learned.partition(_GIVEN)
    count = rest.rstrip(")")
    given = f", and {count} {'mask' if count == '1' else 'masks'} given by hand" if plus else ""
    truth = "; true labels answered the questions" if learned != word else ""
    return f"{SUPERVISION.get(kind, 'see the method')}{given}{truth} ({word})"


def _limits(run: FinishedRun, rows: Sequence[Mapping[str, str]]) -> str:
    """What the network can't do, or what nobody knows of it."""
    word = str(run.record["supervision"])
    learned = "Learned mostly from tags" if _GIVEN in word else "Learned without true masks"
    lines = [_CLASSES]
    lines += [_SCORED] if any(row["metric"] == "miou" for row in rows) else []
    lines += [] if _of_classes(rows) else [_NOT_SCORED]
    if not run.is_supervised:
        lines.append(_WEAK.format(learned=learned))
        lines += [_BY_CLASS] if _of_classes(rows) else []
    return "\n".join(f"- {line}" for line in [*lines, _UNCALIBRATED])


def licences(record: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
    """By role: name, SHA-256 and licence of every weight file that a run read or made.

    Args:
        record: the run's `run.json`.
    """
    names = dict(_names(record["recipe"]))
    return {
        role: (names.get(role, ""), str(digest), _licence(role, names.get(role)))
        for role, digest in record["weights"].items()
    }


def _names(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Weights by role, as the recipe calls them."""
    initialise = recipe.get("initialise") or {}
    for section in filter(None, (initialise.get("method"), recipe.get("method"))):
        sources = {
            "teacher": section.get("teacher"),
            "backbone": section.get("backbone_weights"),
            "vqa": (section.get("vqa") or {}).get("model"),
            "saliency": (section.get("saliency") or {}).get("source"),
            "saliency maps": (section.get("saliency") or {}).get("folder"),
        }
        yield from ((role, str(name)) for role, name in sources.items() if name)
    for index, refiner in enumerate(recipe.get("refine") or ()):
        if refiner.get("backbone_weights"):
            yield f"refine {index}", str(refiner["backbone_weights"])
    if recipe["segmentation"].get("weights"):
        yield "segmentation", str(recipe["segmentation"]["weights"])


def _licence(role: str, name: str | None) -> str:
    if role in _MADE_HERE:
        return MADE_HERE
    if name is None or role == "saliency maps":
        return UNKNOWN
    if name == "embedded":
        return EMBEDDED
    known = {key: m.licence for m in PUBLIC_MODELS.values() for key in (m.name, m.identifier)}
    if name.partition("@")[0] in known:
        return known[name.partition("@")[0]]
    try:
        return _own_licence(find_weights(name)) or UNKNOWN
    except WeightsError:  # not on this machine any more
        return UNKNOWN


def _own_licence(place: Path) -> str | None:
    """What a checkpoint's own card says: `teacher.json`, or the head of its README."""
    folder = place if place.is_dir() else place.parent
    try:
        card = json.loads((folder / "teacher.json").read_text(encoding="utf-8"))
        words = " ".join(str(card[key]) for key in ("licence", "licence_note") if card.get(key))
        if words:
            return words
    except (OSError, ValueError, AttributeError, TypeError):
        pass
    try:
        _, head, _ = (folder / "README.md").read_text(encoding="utf-8").split("---", 2)
        found = yaml.safe_load(head).get("license")
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError, WsssError):
        return None
    return str(found) if found else None


def _method(recipe: Mapping[str, Any], name: str) -> str:
    refiners = [str(refiner["name"]) for refiner in recipe.get("refine") or ()]
    paper = recipe["about"].get("paper") or ""
    return (
        name + (f", refined by {', '.join(refiners)}" if refiners else "") + (f" ({paper})" if paper else "")
    )


def _scores(rows: Sequence[Mapping[str, str]]) -> str:
    """The mIoU of every stage with what stands behind it, and the network's classes one by one."""
    miou = [row for row in rows if row["metric"] == "miou"]
    if not miou:
        return "None: there were no true masks to score against."
    lines = [
        "mIoU in percent, and what stands behind each number:",
        "",
        _row(name.replace("_", " ") for name in _PASSPORT),
        _row("---" for _ in _PASSPORT),
        *(_row(row[name] for name in _PASSPORT) for row in miou),
    ]
    if classes := _of_classes(rows):
        lines += ["", f"IoU in percent of the network's classes, split `{classes[0]['split']}`:", ""]
        lines += [_row(("class", "IoU")), _row(("---", "---"))]
        lines += [_row((row["metric"].removeprefix("iou:"), row["value"])) for row in classes]
    return "\n".join(lines)


def _of_classes(rows: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The IoU of the network's classes."""
    return [row for row in rows if row["stage"] == "segmentation" and row["metric"].startswith("iou:")]


def _weights(record: Mapping[str, Any]) -> str:
    found = licences(record)
    if not found:
        return "None: all networks began with random weights."
    lines = [_row(("role", "name", "SHA-256", "licence")), _row(["---"] * 4)]
    lines += [
        _row((role, name or "–", digest[:16], licence)) for role, (name, digest, licence) in found.items()
    ]
    return (
        "\n".join(lines)
        + "\n\nThe licence of the training images is that of their owners and not known here."
    )


def _use() -> str:
    return (
        "```python\nfrom wsss.segmentation.model import SegmentationModel\n\n"
        'model = SegmentationModel.from_pretrained("this folder")\n'
        'mask = model.predict("photo.jpg")  # (H, W), uint8, values 0…K\n```\n\n'
        "Or, for many images: `wsss predict MODEL IMAGES --out DIR`."
    )


def _list(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _row(cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", r"\|") or "–" for cell in cells) + " |"
