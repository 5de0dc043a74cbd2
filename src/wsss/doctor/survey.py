"""Reads images, tags and classes leniently: what a data set would refuse becomes a finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from wsss.data.classes import ClassList, classes_of_tags, named_classes, read_classes
from wsss.data.image_folder import ImageFolder
from wsss.data.tags import TagRow, labels_of_rows, read_tag_rows
from wsss.data.voc import VOC_CLASSES
from wsss.doctor.findings import Finding, about
from wsss.doctor.inputs import Inputs
from wsss.doctor.spellings import merged_classes
from wsss.errors import DataError

MEND_TAGS: Final = "Correct the file; docs/quickstart.md shows its form."


@dataclass(frozen=True)
class Survey:
    """What was found.

    Args:
        inputs: where it was looked for.
        images: the images; None where there is no usable folder of them.
        rows: of the tags file, images and labels as written.
        classes: the classes; None where they are unknown.
        listed: whether the classes come from a file or recipe, and not from the tags.
        row_ids: for each row, the id of its image; None where there is none.
        labels: class names by id of each tagged image; unknown labels left out.
        scenes: scene words by id.
    """

    inputs: Inputs
    images: ImageFolder | None
    rows: tuple[TagRow, ...] = ()
    classes: ClassList | None = None
    listed: bool = False
    row_ids: tuple[str | None, ...] = ()
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    scenes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def images_of(self) -> dict[str, tuple[str, ...]]:
        """Ids of the images of each class, in class order; classes without any too."""
        names = [info.name for info in self.classes.infos] if self.classes else []
        found: dict[str, list[str]] = {name: [] for name in names}
        for image_id, labels in self.labels.items():
            for name in labels:
                found[name].append(image_id)
        return {name: tuple(ids) for name, ids in found.items()}


def survey(inputs: Inputs) -> tuple[Survey, list[Finding]]:
    """Read everything but pixels."""
    findings: list[Finding] = []
    images = _images(inputs, findings)
    rows = _rows(inputs, images, findings)
    classes, listed = _classes(inputs, rows, findings)
    row_ids = _row_ids(inputs, rows, images, findings)
    labels: dict[str, tuple[str, ...]] = {}
    scenes: dict[str, tuple[str, ...]] = {}
    for row, image_id in zip(rows, row_ids, strict=True):
        if image_id is not None:
            indices = {classes.index(label) for label in row.labels} if classes else set()
            known = sorted(index for index in indices if index is not None)
            labels[image_id] = tuple(classes.infos[index].name for index in known) if classes else ()
            scenes[image_id] = row.scene
    return Survey(inputs, images, rows, classes, listed, row_ids, labels, scenes), findings


def _images(inputs: Inputs, findings: list[Finding]) -> ImageFolder | None:
    if inputs.refused:
        advice = "Mend that first: nothing else of the data can be looked at before. All else was checked."
        findings.append(Finding("error", "no-data", inputs.refused, advice))
    if inputs.images is None:
        return None
    try:
        return ImageFolder(inputs.images, without=[inputs.masks] if inputs.masks else [])
    except DataError as error:
        findings.append(
            _refused("unusable-images", error, "Mend that first: no image can be looked at before.")
        )
        return None


def _rows(inputs: Inputs, images: ImageFolder | None, findings: list[Finding]) -> tuple[TagRow, ...]:
    if inputs.tags is not None:
        try:
            return read_tag_rows(inputs.tags)
        except DataError as error:
            findings.append(_refused("unreadable-tags", error, MEND_TAGS))
            return ()
    if inputs.annotations is not None and images is not None:
        return _annotated(inputs.annotations, images.ids, findings)
    if inputs.images is not None:
        findings.append(
            Finding(
                "error",
                "no-tags",
                f"No file in {inputs.root} says which classes the images show.",
                "Write tags.csv with the first line `image,labels` or `image,labels,scene` and a line for "
                "each image; several labels are separated by `|`.",
            )
        )
    return ()


def _annotated(folder: Path, ids: Iterable[str], findings: list[Finding]) -> tuple[TagRow, ...]:
    """The objects of VOC's annotations as rows; an image without an annotation has none."""
    rows, damaged = [], []
    for line, image_id in enumerate(ids, start=1):
        path = folder / f"{image_id}.xml"
        if not path.is_file():
            continue
        try:
            document = ElementTree.fromstring(path.read_bytes())
        except (ElementTree.ParseError, OSError, ValueError):
            damaged.append(path.name)
            continue
        names = [(item.findtext("name") or "").strip() for item in document.findall("object")]
        rows.append(TagRow(line, image_id, tuple(dict.fromkeys(filter(None, names))), ()))
    findings += about(
        "error", "unreadable-tags", "Annotations can't be read.", "Replace these files.", damaged
    )
    return tuple(rows)


def _classes(
    inputs: Inputs, rows: Sequence[TagRow], findings: list[Finding]
) -> tuple[ClassList | None, bool]:
    """The classes, and whether somebody listed them."""
    try:
        if inputs.classes is not None:
            return read_classes(inputs.classes), True
        if inputs.class_names is not None:
            return named_classes(inputs.class_names, "`class_names`"), True
        if inputs.annotations is not None:
            return named_classes(VOC_CLASSES, "the classes of PASCAL VOC"), True
    except DataError as error:
        findings.append(_refused("unreadable-classes", error, "Correct the classes file."))
        return None, False
    if not rows:
        return None, False
    labels, source = labels_of_rows(rows), str(inputs.tags)
    try:
        return classes_of_tags(labels, source), False
    except DataError as error:
        counts = Counter(label for row in rows for label in row.labels)
        merged = merged_classes(counts, source)
        if merged is None:
            findings.append(_refused("no-classes", error, "Correct the column `labels`."))
        return merged, False  # spellings that vary are a finding of their own


def _row_ids(
    inputs: Inputs, rows: Sequence[TagRow], images: ImageFolder | None, findings: list[Finding]
) -> tuple[str | None, ...]:
    if images is None:
        return (None,) * len(rows)
    ids: list[str | None] = []
    ambiguous: list[str] = []
    for row in rows:
        try:
            ids.append(images.find(row.image, f"{inputs.tags}, line {row.line}"))
        except DataError:  # noqa: PERF203  (each row fails on its own)
            ids.append(None)
            ambiguous.append(f"{row.image} (line {row.line})")
    findings += about(
        "error",
        "ambiguous-image",
        "Tags name images that can't be told apart, or that lie outside the folder.",
        f"Write each image's path below {images.folder}.",
        ambiguous,
    )
    return tuple(ids)


def _refused(code: str, error: DataError, advice: str) -> Finding:
    return Finding("error", code, str(error), advice)
