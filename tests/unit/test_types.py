from __future__ import annotations

import aibos_realtime
from aibos_realtime import types


def test_every_name_is_there_and_the_same_as_where_it_lives() -> None:
    assert sorted(types.__all__) == types.__all__
    for name in types.__all__:
        value = getattr(types, name)
        assert value is not None
        if name in aibos_realtime.__all__:
            assert getattr(aibos_realtime, name) is value


def test_the_names_of_the_contract() -> None:
    assert {"EventHandler", "User", "Room", "RoomInfo", "Event", "Position", "Receipt", "ConnectionMetrics", "Instance"} <= set(types.__all__)
