"""A place is given back once, whatever happens to whoever had it."""

from __future__ import annotations

import pytest

from aibos_realtime.hub.keeper import NO_PLACE, Place


def test_a_place_is_given_back_once() -> None:
    given_back: list[int] = []
    place = Place(lambda: given_back.append(1))
    with place as same:
        assert same is place and given_back == []
    place.give_back()
    assert given_back == [1]


def test_a_place_is_given_back_by_an_error_too() -> None:
    given_back: list[int] = []
    with pytest.raises(KeyError), Place(lambda: given_back.append(1)):
        raise KeyError
    assert given_back == [1]


def test_the_place_of_a_node_alone_can_be_used_again() -> None:
    for _ in range(2):
        with NO_PLACE as place:
            assert (place.members, place.user_count, place.room) == (None, None, None)
