"""`frames.json`: the frame reader gives what the vectors say, however the bytes are cut, and the close code where they break a rule."""

from __future__ import annotations

import pytest

from aibos_realtime.protocol.deflate import Inflater
from aibos_realtime.protocol.frames import BINARY, CLOSE, FAILED, PING, PONG, TEXT, FrameReader, parse_close
from tests.vectors.files import Vector, load, name_of

KINDS = {"text": TEXT, "binary": BINARY, "close": CLOSE, "ping": PING, "pong": PONG}


def make_reader(vector: Vector) -> FrameReader:
    limits = vector.get("limits", {"maxMessage": 65536, "maxFragments": 256})
    return FrameReader(
        masked=vector.get("from", "client") == "client",
        max_message=limits["maxMessage"],
        max_fragments=limits["maxFragments"],
        inflater=Inflater() if vector.get("deflate") else None,
    )


@pytest.mark.parametrize("vector", load("frames.json", "frames"), ids=name_of)
def test_frames(vector: Vector) -> None:
    data = bytes.fromhex(vector["hex"])
    expected = [(KINDS[one["kind"]], one["text"].encode() if "text" in one else bytes.fromhex(one["hex"])) for one in vector["gives"]]
    for size in (len(data) or 1, 1, 2, 3, 7):
        reader = make_reader(vector)
        found = [message for at in range(0, len(data), size) for message in reader.feed(data[at : at + size])]
        code = None
        if found and found[-1][0] == FAILED:
            code = parse_close(found.pop()[1])[0]
        assert (found, code) == (expected, vector.get("close"))
