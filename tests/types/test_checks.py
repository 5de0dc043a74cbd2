"""The guards and error classes say what was expected, what came and what to do."""

from __future__ import annotations

import pytest
import torch

from wsss.checks import check_range, check_shape, nearest
from wsss.errors import CollapseError, DataError, RecipeError, ShapeError, StageError, WeightsError, WsssError


def test_shapes_are_named_in_the_message() -> None:
    check_shape("x", torch.zeros(2, 3), (None, 3))
    with pytest.raises(ShapeError, match=r"`x` must have shape \(any, 4\); got \(2, 3\). Transpose it."):
        check_shape("x", torch.zeros(2, 3), (None, 4), "Transpose it.")


def test_not_a_number_is_never_in_range() -> None:
    check_range("x", 0.5, 0, 1)
    with pytest.raises(ShapeError, match="must lie in"):
        check_range("x", float("nan"), 0, 1)


def test_the_nearest_choice_is_named() -> None:
    assert nearest("arae_weight", ["area_weight", "epochs"]) == "Did you mean `area_weight`?"
    assert nearest("zzz", ["a", "b"]) == "Choose one of `a`, `b`."


@pytest.mark.parametrize(
    ("error", "builtin", "status"),
    [
        (DataError, ValueError, 2),
        (ShapeError, ValueError, 2),
        (RecipeError, ValueError, 2),
        (WeightsError, FileNotFoundError, 2),
        (StageError, RuntimeError, 1),
        (CollapseError, RuntimeError, 1),
    ],
)
def test_errors_are_also_the_matching_builtin(
    error: type[WsssError], builtin: type[Exception], status: int
) -> None:
    assert issubclass(error, builtin)
    assert error("text").exit_status == status
    assert str(error("text")) == "text"
