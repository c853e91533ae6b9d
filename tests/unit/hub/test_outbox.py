"""What a socket that is behind has been sent: sizes, and the age of the oldest byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.hub.outbox import Outbox, OutboxLimits


class Pipe:
    """A transport as an outbox sees it."""

    remote_address = ""
    shows_life = True

    def __init__(self, waiting: int = 0) -> None:
        self.waiting = waiting

    def buffered(self) -> int:
        return self.waiting

    def write(self, data: bytes) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def abort(self) -> None: ...


def test_the_defaults_of_the_contract() -> None:
    assert OutboxLimits() == OutboxLimits(soft=256 * 1024, hard=1024 * 1024, age=10.0)


def test_the_hard_limit_is_of_what_waits_in_all() -> None:
    pipe = Pipe(60)
    outbox = Outbox(pipe, OutboxLimits(soft=50, hard=100), 0.0)
    pipe.waiting += 40
    assert outbox.took(40)
    pipe.waiting += 1
    assert not outbox.took(1)
    assert Outbox(pipe, OutboxLimits(hard=None), 0.0).took(10**9)


def test_volatile_events_pass_up_to_the_soft_limit() -> None:
    pipe = Pipe(50)
    outbox = Outbox(pipe, OutboxLimits(soft=50), 0.0)
    assert outbox.has_room()
    pipe.waiting = 51
    assert not outbox.has_room()


def test_age_counts_from_the_first_byte_that_is_stuck() -> None:
    pipe = Pipe(10)
    outbox = Outbox(pipe, OutboxLimits(age=10.0), 100.0)
    assert not outbox.is_too_old(110.0)
    assert outbox.is_too_old(110.1)
    pipe.waiting = 0
    assert not outbox.is_too_old(111.0)
    assert not Outbox(Pipe(10), OutboxLimits(age=None), 0.0).is_too_old(1e9)


def test_a_reader_who_is_slow_but_reads_is_not_too_old() -> None:
    pipe = Pipe(1000)
    outbox = Outbox(pipe, OutboxLimits(hard=None, age=10.0), 0.0)
    for second in range(1, 100):
        pipe.waiting += 100
        outbox.took(100)
        pipe.waiting -= 150 if pipe.waiting > 500 else 100
        assert not outbox.is_too_old(float(second))


STEPS = st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 50), st.integers(0, 60)), max_size=80)


@given(STEPS, st.integers(0, 100))
def test_age_is_the_oldest_bytes_to_within_one_look(steps: list[tuple[float, int, int]], begin: int) -> None:
    """Each step: so much later, so many bytes written, so many gone; then a look. The model keeps the time of every byte."""
    limit, now = 3.0, 0.0
    pipe = Pipe(begin)
    outbox = Outbox(pipe, OutboxLimits(hard=None, age=limit), now)
    model = [now] * begin
    longest = 0.0
    for later, written, gone in steps:
        written_at = now
        now += later
        longest = max(longest, later)
        model += [written_at] * written
        pipe.waiting += written
        outbox.took(written)
        del model[: min(gone, len(model))]
        pipe.waiting = len(model)
        age = now - model[0] if model else 0.0
        found = outbox.is_too_old(now)
        assert found or age <= limit + 2 * longest, "a stuck byte was forgotten"
        assert not found or age > limit - 1e-9, "closed for bytes that are not that old"
