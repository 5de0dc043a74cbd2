"""Run a command inside this process, and tell what it changed, how it ended, and whether it hung."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import typer

from fuzz.case import Case
from wsss.cli.main import app

SECONDS = 20
"""Of one command; most take a tenth of one."""

LONGEST_MESSAGE = 4_000
"""Letters; whoever prints more shows the whole input."""

PROGRAM = typer.main.get_command(app)  # built once


class Hang(BaseException):
    """A command took too long."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Args:
        status: exit status.
        out, err: what it wrote.
        problems: what must not be, in words.
    """

    status: int
    out: str
    err: str
    problems: tuple[str, ...]


def run_case(case: Case, place: Path, originals: Path) -> Outcome:
    """Write the input into `place`, run the command there, and look at everything."""
    given = place / "given"
    given.mkdir(parents=True)
    case.write(given, originals)
    before = snapshot(place)
    with _inside(place), _time_limit(SECONDS):
        status, out, err, crash = call(case.arguments(place, originals))
    problems = [*misbehaviour(case, status, out, err), *changes(place, before)]
    if crash is not None:
        problems.append(f"a traceback: {type(crash).__name__}: {str(crash)[:300]}")
    return Outcome(status, out, err, tuple(problems))


def call(arguments: Sequence[str]) -> tuple[int, str, str, Exception | None]:
    """Exit status, output, messages, and what would have been a traceback."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    status, crash = 0, None
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            PROGRAM.main(list(arguments), prog_name="wsss")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except Exception as error:
            status, crash = 1, error
    out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    return status, out, err, crash


def misbehaviour(case: Case, status: int, out: str, err: str) -> Iterator[str]:
    """What is wrong with how a command ended."""
    text = f"{out}\n{err}"
    if "Traceback" in text:
        yield "a traceback"
    if status not in (1, 2) and (case.is_broken or status != 0):
        yield f"exit status {status}"
    if case.is_broken and "no stage `nothing`" in text:
        yield "the input was accepted"
    if status in (1, 2):
        messages = sum(line.startswith(("Error:", "Usage:", "wsss: error")) for line in err.splitlines())
        if not text.strip() or ("doctor" not in case.command and messages != 1):
            yield f"{messages} messages"
        if len(text) > LONGEST_MESSAGE:
            yield f"a message of {len(text):,} letters"
        plain = " ".join(text.split())
        yield from (f"the message lacks {word!r}" for word in case.says if word not in plain)


def snapshot(place: Path) -> dict[str, tuple[int, int]]:
    """Size and time of everything below `place` but its folder `out`."""
    found = {}
    for folder, names, files in os.walk(place):
        if Path(folder) == place and "out" in names:
            names.remove("out")
        for name in (*names, *files):
            state = os.lstat(os.path.join(folder, name))  # noqa: PTH118  (names of any bytes)
            size = 0 if name in names else state.st_size
            found[os.path.relpath(os.path.join(folder, name), place)] = (size, state.st_mtime_ns)  # noqa: PTH118
    return found


def changes(place: Path, before: dict[str, tuple[int, int]]) -> Iterator[str]:
    """What a command wrote outside its output folder, or left half-written in it."""
    after = snapshot(place)
    for name in sorted(before.keys() | after.keys()):
        is_folder = (place / name).is_dir()
        if name not in after or name not in before or (after[name] != before[name] and not is_folder):
            yield f"{name!r} changed, outside the output folder"
    yield from (f"{path.name!r} is half-written" for path in (place / "out").rglob(".tmp-*"))


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    others, _ = signal.setitimer(signal.ITIMER_REAL, seconds)  # pytest's own limit, which is longer
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, others)
