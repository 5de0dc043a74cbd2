"""Run as a program: the same recipes once in peace, and once with every stage killed twice by SIGKILL.

Each attempt is a process of its own (forked, so that the imports are paid once) that kills itself: in the
midst of a stage that reports progress, and when all of a stage's files are there but the one that proves it
finished. Writes, as JSON lines, which stage was killed when, and how many files it had by then.

    python killed_stages.py PEACEFUL KILLED RECIPE...     (two folders for runs)
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wsss.engine import estimate, run, stages  # noqa: F401  (everything is imported before the first fork)
from wsss.questions import asking
from wsss.report import page  # noqa: F401

AT_ONCE = 4
"""Images asked about together, so that there is a midst."""

MIDST, END = "midst", "end"


class Saboteur:
    """Kills its own process at the first moment that was not seen before.

    Args:
        killed: (stage folder, moment) of earlier attempts.
        report: where a line is written before the end.
    """

    def __init__(self, killed: set[tuple[str, str]], report: int) -> None:
        self._killed, self._report = killed, report
        self._folder = Path()
        work, replace = stages._work, os.replace

        def watched_work(stage: Any, folder: Path, workspace: Any) -> dict[str, Any]:
            self._folder = folder
            return work(stage, folder, workspace)

        def watched_replace(source: Any, target: Any) -> None:
            if Path(target) == self._folder / "stage.json":
                self._strike(END)
            replace(source, target)

        stages._work, os.replace = watched_work, watched_replace

    def started(self, title: str) -> Callable[[int, int, str], None]:
        return lambda done, total, note: self._strike(MIDST) if 2 * done >= total > 0 else None

    def finished(self, title: str, seconds: float) -> None:
        """Nothing."""

    def skipped(self, title: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def _strike(self, moment: str) -> None:
        place = self._folder
        answers = (place.parents[1] / "answers").glob("*.jsonl") if place.name.startswith("ask-") else ()
        files = [path for path in (*place.rglob("*"), *answers) if path.is_file()]
        if (place.name, moment) in self._killed or not files:
            return
        assert not (place / "stage.json").exists()
        line = {"stage": place.name, "moment": moment, "files": len(files)}
        os.write(self._report, json.dumps(line).encode())
        os.kill(os.getpid(), signal.SIGKILL)


def attempt(recipe: str, runs: str, killed: set[tuple[str, str]] | None) -> dict[str, Any] | None:
    """One process: run the recipe; what it said before it was killed, None where it ended well."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            listener = stages.Silence() if killed is None else Saboteur(killed, writer)
            run.run(recipe, runs=runs, progress=listener)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            sys.stderr.flush()
            os._exit(3)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(code)
    return json.loads(said) if code else None


def start(peaceful: str, sabotaged: str, recipes: list[str]) -> None:
    torch.set_num_threads(1)
    asking.ask.__kwdefaults__["images_at_once"] = AT_ONCE
    for recipe in recipes:
        attempt(recipe, peaceful, None)
        killed: set[tuple[str, str]] = set()
        while (said := attempt(recipe, sabotaged, killed)) is not None:
            killed.add((said["stage"], said["moment"]))
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    start(sys.argv[1], sys.argv[2], sys.argv[3:])
