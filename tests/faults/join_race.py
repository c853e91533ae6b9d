"""Joins with recovery that race a publisher at 500 events a second: does the place where the log ends and live events begin ever show?

    python -m tests.faults.join_race --joins 1000 --seed 1

Half of the joins recover from the hot log. For the other half the server is killed and gets a hot log of 10 events, so that they read the store too.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from aibos_realtime.clock import SYSTEM_CLOCK
from tests.faults.checker import History, Verdict, check
from tests.faults.clients import EVENT, issue_token, pause
from tests.faults.command import Arguments, run_command
from tests.faults.journal import Acknowledged, Attempt, Delivered, Joined, Journal, Left, Told, read_journals
from tests.faults.processes import Server, Zygote
from tests.faults.rows import read_rows

ROOM = "race"
RATE = 500
"""Events a second."""
AT_ONCE = 16
"""Joins on the way."""
REACH = 150
"""A join recovers at most so many events, and often few or none: the end is where it races."""
LIVE = 10
"""Live events that each join waits for behind the end of the log."""
PATIENCE = 20.0

Message = dict[str, Any]


class Peer(Protocol):
    """A connection that speaks the protocol by hand."""

    async def send(self, event: str, data: Any = None, **members: Any) -> None: ...

    async def receive(self) -> Message: ...

    async def close(self) -> None: ...


Connect = Callable[[str], Awaitable[Peer]]
"""A new connection of this user."""


class SocketPeer:
    """Over a real socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    @classmethod
    async def connect(cls, url: str, user_id: str) -> SocketPeer:
        protocols = [Subprotocol("aibos.realtime.v1"), Subprotocol(f"bearer.{issue_token(user_id)}")]
        return cls(await connect(url, subprotocols=protocols, compression=None, proxy=None, max_queue=None))

    async def send(self, event: str, data: Any = None, **members: Any) -> None:
        await self._socket.send(json.dumps({"event": event, "data": data} | members))

    async def receive(self) -> Message:
        message: Message = json.loads(await self._socket.recv())
        return message

    async def close(self) -> None:
        await self._socket.close()


class Race:
    """A publisher and joins on one room. Everything is written to one journal."""

    def __init__(self, connect: Connect, journal: Journal, chance: random.Random) -> None:
        self._connect = connect
        self._journal = journal
        self._chance = chance
        self._joins = count(1)
        self._sent = 0
        self._unanswered = 0
        self._answered = asyncio.Event()
        self._top = ("", 0)
        self.seconds = 0.0
        """That the joins took."""
        self.published = 0
        """Events in that time."""

    async def publish(self, events: int) -> None:
        """Publish so many at once, and wait for the acknowledgements."""
        peer = await self._connect("publisher")
        for _ in range(events):
            await self._send(peer)
        while self._unanswered:
            await self._take_answer(peer)
        await peer.close()

    async def run(self, joins: int) -> None:
        """So many joins, while a publisher publishes."""
        began, before = SYSTEM_CLOCK.monotonic(), self._sent
        stop = asyncio.Event()
        peer = await self._connect("publisher")
        async with asyncio.timeout(PATIENCE + joins / 10), asyncio.TaskGroup() as group:
            publishing = group.create_task(self._keep_publishing(peer, stop))
            answering = group.create_task(self._keep_answering(peer))
            left = iter(range(joins))
            async with asyncio.TaskGroup() as joining:
                for _ in range(min(AT_ONCE, joins)):
                    joining.create_task(self._keep_joining(left))
            self.seconds += SYSTEM_CLOCK.monotonic() - began
            self.published += self._sent - before
            stop.set()
            await publishing
            while self._unanswered:
                self._answered.clear()
                await self._answered.wait()
            answering.cancel()
        await peer.close()

    async def _keep_joining(self, left: Iterator[int]) -> None:
        for _ in left:
            await self._join(f"joiner-{next(self._joins)}")

    async def _join(self, name: str) -> None:
        """Recover from a place near the end, and read on into what is live."""
        peer = await self._connect(name)
        epoch, top = self._top
        start = max(0, top - self._chance.choice([0, 1, 2, self._chance.randrange(20), self._chance.randrange(REACH)]))
        await peer.send("join-room", {"roomId": ROOM, "recover": {"epoch": epoch, "offset": start}}, ref="join")
        self._journal.write(Joined(name, ROOM, epoch, start))
        goal: int | None = None
        last = start
        while goal is None or last < goal:
            message = await peer.receive()
            if message.get("ref") == "join":
                answer = message["data"]
                assert message["event"] == "joined-room", message
                if not answer["recovered"]:
                    self._journal.write(Told(name, ROOM, answer["epoch"], answer["offset"]))
                epoch, goal = answer["epoch"], answer["offset"] + LIVE
            elif message["event"] == "resync":
                self._journal.write(Told(name, ROOM, message["data"]["epoch"], message["data"]["offset"]))
            elif message.get("room") == ROOM:
                assert goal is not None, "an event came before the answer to the join"
                last = message["offset"]
                self._journal.write(Delivered(name, ROOM, epoch, last, message["id"]))
        self._journal.write(Left(name, ROOM))
        await peer.close()

    async def _keep_publishing(self, peer: Peer, stop: asyncio.Event) -> None:
        due = SYSTEM_CLOCK.monotonic()
        while not stop.is_set():
            await self._send(peer)
            due += 1 / RATE
            await pause(max(0.0, due - SYSTEM_CLOCK.monotonic()))

    async def _keep_answering(self, peer: Peer) -> None:
        while True:
            await self._take_answer(peer)
            self._answered.set()

    async def _send(self, peer: Peer) -> None:
        self._sent += 1
        self._unanswered += 1
        id = f"publisher.{self._sent}"
        self._journal.write(Attempt("publisher", ROOM, id))
        await peer.send(EVENT, {"number": self._sent}, room=ROOM, ref=self._sent, id=id)

    async def _take_answer(self, peer: Peer) -> None:
        message = await peer.receive()
        while message["event"] in ("connected", EVENT):
            message = await peer.receive()
        assert message["event"] == "ack", message
        answer = message["data"]
        self._journal.write(Acknowledged("publisher", ROOM, answer["id"], answer["epoch"], answer["offset"]))
        self._top = (answer["epoch"], answer["offset"])
        self._unanswered -= 1


async def prove(zygote: Zygote, folder: Path, database: str, *, joins: int, seed: int, progress: Callable[[str], None] = print) -> Verdict:
    """So many joins on real sockets: half from the hot log, half from the store after a kill."""
    chance = random.Random(seed)
    async with Server(zygote, database) as server:
        with Journal(folder, "race") as journal:
            race = Race(lambda user_id: SocketPeer.connect(server.url, user_id), journal, chance)
            await race.publish(REACH)
            await race.run(joins - joins // 2)
            progress(f"{joins - joins // 2} joins from the hot log at {race.published / race.seconds:.0f} events/s")
            if joins > 1:
                await server.kill()
                await server.start(pattern={"history_size": 10})
                await race.run(joins // 2)
                progress(f"{joins // 2} joins from the store, all in {race.seconds:.1f} s")
        await server.stop()
    return check_race(folder, race, await read_rows(database))


def check_race(folder: Path, race: Race, store: Any = None) -> Verdict:
    """The verdict, with the rate that the publisher had."""
    verdict = check(History(list(read_journals(folder)), None, store))
    verdict.counts["events per second"] = round(race.published / race.seconds)
    return verdict


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add("--joins", type=int, default=1000, help="how many")
    run_command(arguments, lambda zygote, folder, database, given: prove(zygote, folder, database, joins=given.joins, seed=given.seed))


if __name__ == "__main__":
    main()
