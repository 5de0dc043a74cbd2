"""Final texts of every (image, class) pair, and one table of their features: each text once, then indices.

A folder of texts holds `texts.jsonl` (readable: what each pair was given), `texts.safetensors` (features of
the different texts, and indices into them) and `texts.json`, written last: what the table was made of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from wsss.errors import DataError
from wsss.layers.text_matching import full_precision, unit
from wsss.models.clip import ImageTextTeacher
from wsss.training.checkpoint import load_state, save_state, write_atomically
from wsss.training.journal import Progress

AT_ONCE: Final = 2048  # texts that are encoded and kept together; what an interruption can cost
PADDING: Final = -1
SAME: Final = 0.01  # features that differ by more come from another teacher; by less, from another device
VERSION: Final = 1


@dataclass(frozen=True)
class PairTexts:
    """What is said about one class in one image; names of things, not yet put into a prompt.

    Args:
        image_id: the image.
        class_name: the class, as the data set calls it.
        label: noun for the class.
        foreground: texts for the object, besides `label`; may repeat.
        background: texts for what surrounds it, all different; none: the pair teaches nothing about regions.
    """

    image_id: str
    class_name: str
    label: str
    foreground: tuple[str, ...]
    background: tuple[str, ...]


class TextTable(nn.Module):
    """Features of all texts and, for each pair, which of them are its own; moves with its owner.

    Args:
        features: unit features of the U different texts; (U, E).
        labels: of the N pairs' class nouns; (N,), int64 indices.
        foreground: (N, F), int64 indices, -1 is padding.
        background: (N, G), int64 indices, -1 is padding.
        rows: the pairs' rows, by image id and class name.
    """

    features: Tensor
    labels: Tensor
    foreground: Tensor
    background: Tensor

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        foreground: Tensor,
        background: Tensor,
        rows: Mapping[tuple[str, str], int],
    ) -> None:
        super().__init__()
        tensors = {"features": features, "labels": labels, "foreground": foreground, "background": background}
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)
        self.rows = rows

    def rows_of(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Rows of (image id, class name) pairs; (P,), int64, on the table's device.

        Raises:
            DataError: a pair has no texts.
        """
        unknown = next((pair for pair in pairs if pair not in self.rows), None)
        if unknown is not None:
            raise DataError(
                f"There are no texts for class `{unknown[1]}` of image {unknown[0]}. "
                "Prepare the method for this data set and split again."
            )
        return torch.tensor([self.rows[pair] for pair in pairs], dtype=torch.int64).to(self.features.device)

    def of(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Features (..., E) of indices (...), and which of those are no padding; padding gets zeros."""
        valid = indices >= 0
        return self.features[indices.clamp(min=0)] * valid[..., None], valid


def prepared_table(
    folder: Path,
    pairs: Sequence[PairTexts],
    teacher: ImageTextTeacher,
    template: str,
    *,
    progress: Progress | None = None,
) -> TextTable:
    """The table of these pairs: from `folder`, else made and kept there; goes on where it was interrupted.

    Args:
        folder: of this table; made if needed.
        pairs: all pairs that training will show.
        teacher: encodes the texts, without gradient.
        template: text with one `{}` for a name.
        progress: told how many texts are encoded.
    """
    nouns = sorted({noun for pair in pairs for noun in (pair.label, *pair.foreground, *pair.background)})
    about = {
        "version": VERSION,
        "template": template,
        "pairs": len(pairs),
        "texts": nouns,
        "digest": _digest(pairs),
    }
    place = folder / "texts.safetensors"
    if not _is_made_of(folder, about, teacher):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "texts.json").unlink(missing_ok=True)  # nothing is finished from here on
        lines = [json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs]
        write_atomically(folder / "texts.jsonl", "".join(lines).encode())
        features = _encoded(folder, nouns, teacher, about, progress)
        save_state(place, {"features": features, **_indices(pairs, nouns)})
        document = json.dumps(about, ensure_ascii=False, indent=1) + "\n"
        write_atomically(folder / "texts.json", document.encode(), durable=True)
        for part in folder.glob("part-*.safetensors"):
            part.unlink(missing_ok=True)
    state, _ = load_state(place)
    rows = {(pair.image_id, pair.class_name): row for row, pair in enumerate(pairs)}
    indices = {name: state[name].long() for name in ("labels", "foreground", "background")}
    return TextTable(state["features"], **indices, rows=rows)


def read_pair_texts(path: Path) -> Iterator[PairTexts]:
    """The pairs of a `texts.jsonl`, in order."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            entry.update({key: tuple(entry[key]) for key in ("foreground", "background")})
            yield PairTexts(**entry)


def _digest(pairs: Sequence[PairTexts]) -> str:
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps(asdict(pair), ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _is_made_of(folder: Path, about: Mapping[str, Any], teacher: ImageTextTeacher) -> bool:
    """Whether the finished table holds these texts, and this teacher's features of them."""
    path, table = folder / "texts.json", folder / "texts.safetensors"
    if not path.is_file() or not table.is_file():
        return False
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found != about:
        return False
    nouns = about["texts"]
    if not nouns:
        return True
    own = _unit_features(teacher, [_prompt(about, nouns[0])])[0]
    kept = load_state(table)[0]["features"][0]
    return own.shape == kept.shape and bool((own - kept).abs().max() < SAME)


def _prompt(about: Mapping[str, Any], noun: str) -> str:
    return str(about["template"]).replace("{}", noun)


def _unit_features(teacher: ImageTextTeacher, texts: Sequence[str]) -> Tensor:
    with torch.no_grad():
        features = teacher.encode_texts(texts)
        with full_precision(features.device):
            return unit(features).cpu()


def _encoded(
    folder: Path,
    nouns: Sequence[str],
    teacher: ImageTextTeacher,
    about: Mapping[str, Any],
    progress: Progress | None,
) -> Tensor:
    """Unit features (U, E) on the CPU; finished parts of an interrupted run are taken up."""
    texts = [_prompt(about, noun) for noun in nouns]
    if not texts:  # no image has a class
        return torch.zeros(1, 1)
    first = _unit_features(teacher, texts[:1])
    mark = [f"{value:.2f}" for value in first.flatten().tolist()]  # parts of another teacher don't count
    key = hashlib.sha256(json.dumps([about, AT_ONCE, mark]).encode()).hexdigest()[:12]
    parts = []
    for start in range(0, len(texts), AT_ONCE):
        place = folder / f"part-{key}-{start:08d}.safetensors"
        if not place.is_file():
            save_state(place, {"features": _unit_features(teacher, texts[start : start + AT_ONCE])})
        parts.append(load_state(place)[0]["features"])
        if progress is not None:
            progress(min(start + AT_ONCE, len(texts)), len(texts), "texts")
    return torch.cat(parts)


def _indices(pairs: Sequence[PairTexts], nouns: Sequence[str]) -> dict[str, Tensor]:
    place = {noun: row for row, noun in enumerate(nouns)}
    return {
        "labels": torch.tensor([place[pair.label] for pair in pairs], dtype=torch.int32),
        "foreground": _padded([[place[noun] for noun in pair.foreground] for pair in pairs]),
        "background": _padded([[place[noun] for noun in pair.background] for pair in pairs]),
    }


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Lists as one int32 table, as wide as the longest, filled up with -1."""
    width = max(map(len, rows), default=0)
    table = torch.full((len(rows), width), PADDING, dtype=torch.int32)
    for row, values in enumerate(rows):
        table[row, : len(values)] = torch.tensor(values, dtype=torch.int32)
    return table
