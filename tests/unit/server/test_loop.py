from __future__ import annotations

import gc

import uvloop

from aibos_realtime.server.loop import new_event_loop, rare_garbage_collection


def test_uvloop_where_there_is_one() -> None:
    loop = new_event_loop()
    assert isinstance(loop, uvloop.Loop)
    loop.close()


def test_garbage_is_collected_rarely_while_serving_and_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with rare_garbage_collection():
        assert gc.get_threshold()[0] >= 10_000 and gc.get_freeze_count() > 0
    assert gc.get_threshold() == before and gc.get_freeze_count() == 0
