import pytest
import torch

from wsss.errors import StageError
from wsss.training.stream import Stream


class Numbers:
    """Gives (epoch, place); counts how often an epoch was begun."""

    steps_per_epoch = 3

    def __init__(self):
        self.begun = []

    def epoch(self, epoch, first_step=0):
        self.begun.append((epoch, first_step))
        torch.rand(1)
        for step in range(first_step, self.steps_per_epoch):
            yield (epoch, step)


@pytest.mark.parametrize("skipped", range(8))
def test_a_stream_goes_on_where_another_stopped(skipped):
    whole = Stream(Numbers())
    expected = [whole.next() for _ in range(10)]
    before = Stream(Numbers())
    for _ in range(skipped):
        before.next()
    after = Stream(Numbers(), before.epoch, before.batch)
    assert [after.next() for _ in range(10 - skipped)] == expected[skipped:]


def test_an_epoch_is_begun_once_and_draws_nothing_from_the_training():
    numbers, state = Numbers(), torch.get_rng_state()
    stream = Stream(numbers)
    for _ in range(6):
        stream.next()
    assert numbers.begun == [(0, 0), (1, 0)]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_closed_stream_stops_its_iterator():
    closed = []

    class Closing(Numbers):
        def epoch(self, epoch, first_step=0):
            try:
                yield from super().epoch(epoch, first_step)
            finally:
                closed.append(epoch)

    stream = Stream(Closing())
    stream.next()
    stream.close()
    assert closed == [0]


def test_no_batches_at_all_are_an_error():
    numbers = Numbers()
    numbers.steps_per_epoch = 0
    with pytest.raises(StageError, match="at least one batch"):
        Stream(numbers)
