"""The judge: whatever happens to the events of a room on their way, it is counted, and nothing is counted that did not happen."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime.load.judge import MembersRecord, Published, Reception, RoomRecord, Verdict, mark_of, to_record

EVENTS = 40


def published(count: int = EVENTS, publisher: int = 1) -> Published:
    """That many events of one publisher, at the offsets from 1 on."""
    found = Published()
    for number in range(1, count + 1):
        found.acknowledge(publisher, number, number)
    return found


def received(offsets: list[int], publisher: int = 1) -> Reception:
    """A member who joined before the first event and got these."""
    reception = Reception("room")
    reception.join("epoch", 0, is_continued=False)
    for offset in offsets:
        reception.take(offset, mark_of(publisher, offset, offset))
    return reception


def judged(source: Published, *receptions: Reception, is_there: bool = True) -> Verdict:
    verdict = Verdict()
    record = to_record(source, [(one, is_there) for one in receptions])
    verdict.judge([msgspec.json.decode(msgspec.json.encode(record), type=RoomRecord)])
    return verdict


ALL = list(range(1, EVENTS + 1))


class TestAMember:
    def test_who_got_everything_is_clean(self) -> None:
        verdict = judged(published(), received(ALL), received(ALL))
        assert verdict.is_clean and (verdict.expected, verdict.count) == (2 * EVENTS, 2 * EVENTS)

    @given(st.sets(st.integers(1, EVENTS)), st.lists(st.integers(1, EVENTS), max_size=5))
    def test_what_is_dropped_is_lost_and_what_comes_twice_is_doubled(self, dropped: set[int], repeated: list[int]) -> None:
        got: list[int] = []
        doubled = 0
        for offset in ALL:
            if offset not in dropped:
                got += [offset] * (1 + repeated.count(offset))
                doubled += repeated.count(offset)
        verdict = judged(published(), received(got))
        assert (verdict.lost, verdict.doubled, verdict.reordered, verdict.altered) == (len(dropped), doubled, 0, 0)
        assert verdict.is_clean is not bool(dropped or doubled)

    @given(st.randoms(use_true_random=False))
    def test_whatever_the_order_nothing_is_lost_and_what_came_late_is_reordered(self, source: random.Random) -> None:
        got = ALL.copy()
        source.shuffle(got)
        late = sum(offset < max(got[:place], default=0) for place, offset in enumerate(got))
        verdict = judged(published(), received(got))
        assert (verdict.lost, verdict.doubled, verdict.reordered, verdict.altered) == (0, 0, late, 0)

    def test_an_event_with_other_content_is_seen_though_its_offset_is_right(self) -> None:
        altered = received(ALL[:-1])
        altered.take(EVENTS, mark_of(1, EVENTS - 1, EVENTS))
        assert judged(published(), altered).altered == 1

    def test_an_event_that_nobody_published_is_seen(self) -> None:
        assert judged(published(), received([*ALL, EVENTS + 1])).altered == 1

    def test_events_of_others_take_offsets_and_count_as_nothing(self) -> None:
        source, member = Published(), received([])
        source.acknowledge(1, 1, 1)
        source.acknowledge(1, 2, 3)
        for offset, mark in ((1, mark_of(1, 1, 1)), (2, 0), (3, mark_of(1, 2, 3))):
            member.take(offset, mark)
        verdict = judged(source, member)
        assert verdict.is_clean and verdict.count == 2

    def test_the_last_events_are_missed_too(self) -> None:
        assert judged(published(), received(ALL[:-3])).lost == 3

    def test_who_has_gone_is_not_missed(self) -> None:
        assert judged(published(), received(ALL[:-3]), is_there=False).is_clean

    def test_where_an_answer_is_missing_there_may_be_more_than_was_acknowledged(self) -> None:
        source = published()
        source.unknown = 1
        assert judged(source, received([*ALL, EVENTS + 1])).is_clean


class TestJoiningAgain:
    def test_who_goes_on_where_he_was_must_get_everything(self) -> None:
        member = received(ALL[:10])
        member.join("epoch", 20, is_continued=True)
        for offset in ALL[11:]:
            member.take(offset, mark_of(1, offset, offset))
        verdict = judged(published(), member)
        assert (verdict.lost, verdict.announced) == (1, 0)

    def test_who_was_told_that_he_missed_something_lost_nothing(self) -> None:
        member = received(ALL[:10])
        member.join("another", 20, is_continued=False)
        for offset in ALL[20:]:
            member.take(offset, mark_of(1, offset, offset))
        verdict = judged(published(), member)
        assert verdict.is_clean and verdict.announced == 1 and verdict.count == EVENTS - 10


class TestPublishers:
    def test_a_later_event_at_an_earlier_place_is_out_of_order(self) -> None:
        source = Published()
        source.acknowledge(1, 1, 2)
        source.acknowledge(1, 2, 1)
        member = received([])
        member.take(1, mark_of(1, 2, 1))
        member.take(2, mark_of(1, 1, 2))
        assert judged(source, member).reordered == 1

    def test_two_publishers_have_no_order_between_them(self) -> None:
        source = Published()
        source.acknowledge(1, 1, 2)
        source.acknowledge(2, 1, 1)
        assert source.disordered == 0

    def test_publishers_of_several_processes_are_one_room(self) -> None:
        here, there, member = Published(), Published(), received([])
        for offset in ALL:
            (here if offset % 2 else there).acknowledge(offset % 2, offset, offset)
            member.take(offset, mark_of(offset % 2, offset, offset))
        verdict = Verdict()
        verdict.judge([to_record(here, [(member, True)]), to_record(there, [(member, True)])])
        assert verdict.is_clean and verdict.count == verdict.expected == 2 * EVENTS


class TestRecords:
    def test_members_who_saw_the_same_are_one_group(self) -> None:
        record = to_record(published(), [(received(ALL), True) for _ in range(1000)])
        assert [group.members for group in record.groups] == [1000]

    def test_gaps_without_end_are_remembered_up_to_a_number(self) -> None:
        member = received(list(range(2, 2000, 2)))
        assert member.lost == 999
        for offset in range(1, 2000, 2):
            member.take(offset, 1)
        assert member.reordered + member.doubled == 999 and member.doubled > 900

    def test_marks_are_never_nothing(self) -> None:
        assert all(mark_of(publisher, number, number) for publisher in range(20) for number in range(200))
        assert MembersRecord(1, 0, 0, 0, 0, 0, 0, True, True).members == 1
