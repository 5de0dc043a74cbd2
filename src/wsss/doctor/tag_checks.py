"""Looks at the tags: do they fit the images, and are their words what they seem to be."""

from __future__ import annotations

from collections import Counter, defaultdict

from wsss.checks import nearest
from wsss.data.tags import TagRow
from wsss.doctor.findings import Finding, about
from wsss.doctor.spellings import lookalikes, variants
from wsss.doctor.survey import Survey


def check_tags(found: Survey) -> list[Finding]:
    """Compare tags, images and class names."""
    if found.images is None or not found.rows:
        return []
    return [*_rows_without_image(found), *_images_without_row(found), *_tagged_twice(found), *_words(found)]


def _rows_without_image(found: Survey) -> list[Finding]:
    names = [
        f"{row.image} (line {row.line})"
        for row, image_id in zip(found.rows, found.row_ids, strict=True)
        if image_id is None
    ]
    is_error = found.inputs.missing_images == "error"
    return about(
        "error" if is_error else "warning",
        "tag-without-image",
        "Tags name images that are not there.",
        "Add the images, delete the lines, or set `missing_images: skip` in the data section."
        if is_error
        else "They are left out, as the recipe says. Delete the lines if that is meant.",
        names,
    )


def _images_without_row(found: Survey) -> list[Finding]:
    assert found.images is not None
    names = [image_id for image_id in found.images.ids if image_id not in found.labels]
    return about(
        "warning",
        "image-without-tag",
        "Images have no line in the tags, so nothing is learnt from them.",
        "Add their lines; where no class is present, leave the cell `labels` empty but keep its comma.",
        names,
    )


def _tagged_twice(found: Survey) -> list[Finding]:
    rows: dict[str, list[TagRow]] = defaultdict(list)
    for row, image_id in zip(found.rows, found.row_ids, strict=True):
        if image_id is not None:
            rows[image_id].append(row)
    names = [
        f"{image_id} (lines {own[0].line} and {own[-1].line})"
        for image_id, own in rows.items()
        if any((set(row.labels), row.scene) != (set(own[0].labels), own[0].scene) for row in own)
    ]
    return about(
        "error",
        "tagged-twice",
        "Images have several lines that disagree.",
        "Write one line with all labels, separated by `|`.",
        names,
    )


def _words(found: Survey) -> list[Finding]:
    counts = Counter(label for row in found.rows for label in row.labels)
    if found.listed:
        return _unknown(found, counts)
    groups = variants(counts)
    findings = about(
        "error",
        "spelling-variants",
        "Labels differ in case, spaces, hyphens or underscores only.",
        "Write them alike, or use the proposed classes file, which takes them as synonyms.",
        [" = ".join((name, *others)) for name, others in groups.items()],
    )
    other = {spelling: name for name, group in groups.items() for spelling in group}
    totals: Counter[str] = Counter()
    for label, count in counts.items():
        totals[other.get(label, label)] += count
    return findings + about(
        "warning",
        "similar-labels",
        "Labels look like plurals or misspellings of others, and are classes of their own.",
        "Correct them, or use the proposed classes file, which takes them as synonyms. Names that are meant "
        "so can stay.",
        [
            f"{label} ({totals[label]:,}) = {meant} ({totals[meant]:,})"
            for label, meant in lookalikes(totals).items()
        ],
    )


def _unknown(found: Survey, counts: Counter[str]) -> list[Finding]:
    assert found.classes is not None
    names = [info.name for info in found.classes.infos]
    unknown = sorted(label for label in counts if found.classes.index(label) is None)
    first = f" {nearest(unknown[0], names)}" if unknown else ""
    return about(
        "error",
        "unknown-label",
        f"Labels are no classes of {found.classes.source}.{first}",
        "Correct them, or add the class or a synonym to the classes file.",
        [f"{label} ({counts[label]:,})" for label in unknown],
    )
