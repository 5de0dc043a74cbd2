"""One malformed input, or several of a kind, and the command that is to refuse it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Write = Callable[[Path, Path], None]
"""Puts the input into a folder; the second folder holds valid originals, which stay as they are."""


@dataclass(frozen=True)
class Case:
    """What is fed to the program.

    Args:
        name: for people.
        write: puts the malformed input into the empty folder that is `{given}` in the command.
        command: words after `wsss`; `{given}`, `{originals}` and `{out}` are replaced. Only below
            `{out}`, which is not there yet, may anything change.
        is_broken: whether the input must be refused; else (a random change) it may also be good enough.
        says: words that the message must hold.
        inputs: how many malformed inputs there are.
    """

    name: str
    write: Write
    command: tuple[str, ...]
    is_broken: bool = True
    says: tuple[str, ...] = ()
    inputs: int = 1

    def arguments(self, place: Path, originals: Path) -> list[str]:
        """The command's words, with the folders of this case."""
        folders = {"{given}": place / "given", "{out}": place / "out", "{originals}": originals}
        words = list(self.command)
        for mark, folder in folders.items():
            words = [word.replace(mark, str(folder)) for word in words]
        return words


def content(name: str, data: bytes | str) -> Write:
    """A single file; parent folders are made."""

    def write(given: Path, originals: Path) -> None:
        path = given / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return write


def contents(files: dict[str, bytes]) -> Write:
    """Several files."""

    def write(given: Path, originals: Path) -> None:
        for name, data in files.items():
            content(name, data)(given, originals)

    return write
