from __future__ import annotations

import pytest

from wsss.cli import display
from wsss.cli.display import StageDisplay, percent


def test_without_a_terminal_progress_is_a_plain_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(display.error_console, "_file", None)
    clock = iter(float(second) for second in (0, 5, 11, 12, 30))
    monkeypatch.setattr(display.time, "monotonic", lambda: next(clock))
    with StageDisplay() as shown:
        report = shown.started("Train cam")
        for done in (10, 20, 30, 40):
            report(done, 100, "loss 0.5")
        shown.finished("Train cam", 61)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Train cam …",
        "Train cam: 20 of 100 loss 0.5, 1 min 28 s left.",
        "Train cam: 40 of 100 loss 0.5, 1 min 00 s left.",
        "Train cam: done in 1 min 01 s.",
    ]


def test_the_time_left_is_that_of_the_running_phase(capsys, monkeypatch):
    monkeypatch.setattr(display.error_console, "_file", None)
    clock = iter(float(second) for second in (0, 20, 100, 120, 220))
    monkeypatch.setattr(display.time, "monotonic", lambda: next(clock))
    with StageDisplay() as shown:
        report = shown.started("Refine the maps (irn)")
        report(500, 1000, "images")  # labels; the same stage then trains and refines
        report(1000, 1000, "images")
        report(0, 1000, "images")
        report(500, 1000, "images")
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "Refine the maps (irn): 500 of 1,000 images, 1 min 40 s left."


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.1234, "12.3"), (1.0, "100.0")])
def test_percent(value, text):
    assert percent(value) == text
