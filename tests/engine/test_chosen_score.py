"""The background score of a stage: read as it was chosen, and never guessed from a damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsss.engine.chosen_score import chosen_score
from wsss.engine.map_work import CHOSEN
from wsss.errors import StageError


@pytest.mark.parametrize(
    ("text", "value"), [('{"value": 0.26, "source": "automatic"}', 0.26), ('{"value": null}', None)]
)
def test_a_score_or_none_is_read(tmp_path: Path, text: str, value: float | None) -> None:
    (tmp_path / CHOSEN).write_text(text)
    assert chosen_score(tmp_path) == value


@pytest.mark.parametrize(
    "text", [None, "", "{", "[0.3]", "{}", '{"value": "0.3"}', '{"value": NaN}', "[" * 99_999]
)
def test_anything_else_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / CHOSEN).write_text(text)
    with pytest.raises(StageError, match=rf"Delete the folder {tmp_path.name} and run the recipe again\."):
        chosen_score(tmp_path)
