import json
import math

import pytest
import torch

from wsss.training.journal import Interval, Journal, duration, means, read_journal


def test_lines_come_back_and_numbers_that_are_not_finite_become_null(tmp_path):
    journal = Journal(tmp_path / "deep/log.jsonl")
    journal.write({"step": 1, "losses": {"a": math.nan, "b": [math.inf, 2.5]}})
    assert read_journal(tmp_path / "deep/log.jsonl") == [{"step": 1, "losses": {"a": None, "b": [None, 2.5]}}]


def test_a_line_cut_short_is_dropped_and_the_next_one_is_whole(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    Journal(path).write({"step": 2})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_going_on_from_a_step_drops_later_lines(tmp_path):
    journal = Journal(tmp_path / "log.jsonl")
    for step in (10, 20, 30):
        journal.write({"step": step})
    Journal(tmp_path / "log.jsonl", last_step=20)
    assert [line["step"] for line in read_journal(tmp_path / "log.jsonl")] == [10, 20]


def test_a_missing_journal_is_empty(tmp_path):
    assert read_journal(tmp_path / "log.jsonl") == []


def test_an_interval_averages_each_term_over_the_batches_that_had_it():
    interval = Interval()
    interval.add({"a": torch.tensor(1.0), "b": torch.tensor(5.0)})
    interval.add({"a": torch.tensor(2.0)})
    assert means([interval.totals()]) == {"a": 1.5, "b": 5.0}
    assert means([interval.totals(), {"a": (9.0, 1)}]) == {"a": 4.0, "b": 5.0}
    assert means([Interval().totals()]) == {}


def test_an_interval_goes_on_exactly_from_its_totals():
    values = torch.rand(20, generator=torch.Generator().manual_seed(0))
    whole, first = Interval(), Interval()
    for value in values:
        whole.add({"a": value})
    for value in values[:7]:
        first.add({"a": value})
    second = Interval(json.loads(json.dumps(first.totals())))
    for value in values[7:]:
        second.add({"a": value})
    assert second.totals() == whole.totals()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (3600, "1 h 00 min"),
        (9999, "2 h 46 min"),
        (math.inf, "0 s"),
    ],
)
def test_durations_are_written_for_people(seconds, text):
    assert duration(seconds) == text
