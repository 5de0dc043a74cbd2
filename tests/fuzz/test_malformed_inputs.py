"""Malformed inputs through the program's entry function: refused with one message, and nothing else happens.

Hand-made files that must be refused, and seeded changes of valid files that must be refused or understood. No
traceback, no hang, no code that runs, no file outside the output folder, nothing half-written inside it.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from command_server import command_server
from fuzz import (
    array_cases,
    correction_cases,
    document_cases,
    image_cases,
    recipe_cases,
    review_cases,
    table_cases,
)
from fuzz.case import Case
from fuzz.originals import write_originals
from fuzz.watch import SECONDS, Outcome, changes, misbehaviour, run_case, snapshot

pytestmark = pytest.mark.slow

LEAST_REFUSED = 750
PROCESSES = 20
MOST_MEMORY_KB = 1_500_000
"""More than is held already; a bomb would take gigabytes."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_originals(tmp_path_factory.mktemp("fuzz") / "originals")


@pytest.fixture(scope="module")
def cases(originals: Path) -> list[Case]:
    return [
        *image_cases.cases(),
        *table_cases.cases(),
        *recipe_cases.cases(),
        *array_cases.cases(originals),
        *document_cases.cases(originals),
        *correction_cases.cases(),
        *review_cases.cases(originals),
    ]


@pytest.fixture(scope="module")
def outcomes(cases: list[Case], originals: Path) -> list[Outcome]:
    """Every case, each in a folder of its own that is deleted afterwards."""
    place, found = originals.with_name("cases"), []
    before = snapshot(originals)
    for case in cases:
        found.append(run_case(case, place / "one", originals))
        others = [path.name for path in (*place.iterdir(), *place.parent.iterdir())]
        assert sorted(others) == ["cases", "one", "originals"], case.name
        shutil.rmtree(place / "one")
    assert snapshot(originals) == before
    return found


def test_no_input_makes_the_program_misbehave(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> None:
    wrong = [
        f"{case.name}: {'; '.join(outcome.problems)}\n  wsss {' '.join(case.command)}\n  {outcome.err[:200]}"
        for case, outcome in zip(cases, outcomes, strict=True)
        if outcome.problems
    ]
    assert not wrong, "\n".join(wrong)


def test_hundreds_are_refused(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> None:
    pairs = list(zip(cases, outcomes, strict=True))
    assert len({case.name for case in cases}) == len(cases)
    assert sum(case.inputs for case, outcome in pairs if outcome.status != 0) >= LEAST_REFUSED
    assert sum(case.inputs for case, outcome in pairs if case.is_broken) >= LEAST_REFUSED


def test_no_bomb_fills_the_memory(
    cases: Sequence[Case], originals: Path, request: pytest.FixtureRequest
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    request.getfixturevalue("outcomes")
    bombs = [case for case in cases if any(word in case.name for word in ("bomb", "huge", "large", "zeros"))]
    assert len(bombs) > 20
    for case in bombs:
        run_case(case, originals.with_name("bombs") / case.name.replace("/", "-"), originals)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + MOST_MEMORY_KB


def test_real_processes_end_alike(cases: Sequence[Case], originals: Path, tmp_path: Path) -> None:
    broken = [case for case in cases if case.is_broken]
    chosen = broken[:: len(broken) // PROCESSES][:PROCESSES]
    assert len(chosen) == PROCESSES
    with command_server() as server:
        for number, case in enumerate(chosen):
            place = tmp_path / f"{number:02}"
            (place / "given").mkdir(parents=True)
            case.write(place / "given", originals)
            before = snapshot(place)
            ended = server.call(place, case.arguments(place, originals), seconds=SECONDS)
            assert ended.status in (1, 2), (case.name, ended)
            problems = [*misbehaviour(case, ended.status, ended.out, ended.err), *changes(place, before)]
            assert problems == [], (case.name, ended)


def test_the_installed_program_ends_alike(cases: Sequence[Case], originals: Path, tmp_path: Path) -> None:
    """Started as people do, its interpreter and all: code in a checkpoint, which must not run."""
    case = next(case for case in cases if case.name == "weights code.pth")
    (tmp_path / "given").mkdir()
    case.write(tmp_path / "given", originals)
    before = snapshot(tmp_path)
    command = [sys.executable, "-m", "wsss", *case.arguments(tmp_path, originals)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 2
    assert [*misbehaviour(case, 2, ended.stdout, ended.stderr), *changes(tmp_path, before)] == []
