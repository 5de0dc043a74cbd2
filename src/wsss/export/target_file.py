"""Whether an export can be written where it is to go, found out before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path

from wsss.errors import DataError


def check_target_file(path: Path, example: str) -> None:
    """Make sure that a file can be written at `path`; folders that are missing above it are made later.

    Args:
        path: the file; an older one is replaced.
        example: a file name for the message, such as `masks.json`.

    Raises:
        DataError: it is a folder, lies below a file, has a name that is too long, or this user may not write
            there.
    """
    path = Path(path)
    try:
        is_folder = path.is_dir()
    except OSError as error:  # a name that no disk takes
        raise DataError(f"No file can be called {path.name[:60]}… ({error.strerror}). Shorten it.") from error
    if is_folder:
        raise DataError(f"Expected a file to write; {path} is a folder. Name a file, as in {path / example}.")
    whole = path.absolute()
    above = next(place for place in whole.parents if place.exists())
    if not above.is_dir():
        raise DataError(f"{path} can't be written, since {above} is a file. Name a file in a folder.")
    if not os.access(above, os.W_OK):
        raise DataError(
            f"{path} can't be written, since {above} may not be written by this user. Name another folder, "
            "or change its permissions."
        )
