"""The errors that wsss raises for its users: what was expected, what came, what to do.

Every error is a `WsssError` and the matching built-in, so callers may catch either.
The command line prints the message alone and exits with 2 (a mistake in the input) or 1 (a failure).
"""

from __future__ import annotations


class WsssError(Exception):
    """Base of all errors raised by wsss on purpose."""

    exit_status = 2


class DataError(WsssError, ValueError):
    """A data set, image, mask or tags file is missing or not as expected."""


class ShapeError(WsssError, ValueError):
    """An array has the wrong shape, dtype or range."""


class RecipeError(WsssError, ValueError):
    """A recipe or one of its fields is wrong."""


class WeightsError(WsssError, FileNotFoundError):
    """Model weights are missing, incomplete or of another model."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StageError(WsssError, RuntimeError):
    """A stage of a run can't start or can't go on."""

    exit_status = 1


class CollapseError(StageError):
    """Training or its maps collapsed: a non-finite loss, or maps of one class only."""
