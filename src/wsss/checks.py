"""One-line guards with uniform text: expected, got, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from wsss.errors import ShapeError


def check_shape(name: str, value: Tensor, expected: tuple[int | None, ...], advice: str = "") -> None:
    """Raise `ShapeError` unless `value` has the `expected` shape (None: any length)."""
    shape = tuple(value.shape)
    if len(shape) != len(expected) or any(
        e is not None and e != s for s, e in zip(shape, expected, strict=True)
    ):
        wanted = "(" + ", ".join("any" if e is None else str(e) for e in expected) + ")"
        raise ShapeError(f"`{name}` must have shape {wanted}; got {shape}. {advice}".rstrip())


def check_range(name: str, value: float, low: float, high: float, advice: str = "") -> None:
    """Raise `ShapeError` unless low <= value <= high (NaN never is)."""
    if not low <= value <= high:
        raise ShapeError(f"`{name}` must lie in [{low:g}, {high:g}]; got {value:g}. {advice}".rstrip())


def nearest(word: str, choices: Iterable[Any]) -> str:
    """A sentence that names the nearest valid choice, or all of them: 'Did you mean `x`?'."""
    names = [str(choice) for choice in choices]
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean `{close[0]}`?"
    listed = ", ".join(f"`{name}`" for name in sorted(names)[:20])
    return f"Choose one of {listed}." if listed else "There is nothing to choose from yet."
