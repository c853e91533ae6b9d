"""All targets by name: each takes any bytes, raises for what must not be, and is its own oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import client, entrance, redis, session, settings, wire

Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {
    "frames": wire.frames,
    "inflate": wire.inflate,
    "offers": wire.offers,
    "request": entrance.request,
    "json": wire.json_message,
    "msgpack": wire.msgpack_message,
    "session": session.connection,
    "client": client.client,
    "events": redis.events,
    "directory": redis.directory,
    "register": redis.register,
    "queued": redis.queued,
    "bus": redis.bus,
    "revocations": redis.taken_back,
    "token": settings.token,
    "keys": settings.key_set,
    "environment": settings.environment,
    "options": settings.options,
    "toml": settings.toml,
    "dotenv": settings.dotenv,
    "pattern": settings.pattern,
}
CORPUS = Path(__file__).parent / "corpus"
"""What was found once, by target: each is run by `test_fuzz.py` ever after."""
