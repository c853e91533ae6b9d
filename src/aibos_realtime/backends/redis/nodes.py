"""The register of nodes in Redis: signs of life by the server's clock, and who cleans up after the dead. What there is to clean up others know.

A node lives for `life` seconds after each sign. After a time in which nobody could tell anything, Redis being away, nobody is dead for it.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any

import msgspec
from msgspec.structs import replace

from ...clock import SYSTEM_CLOCK, Clock
from ...errors import BrokerUnavailable, ConfigurationError
from ...logs import get_logger
from ...metrics import Metrics
from ..nodes import NodeRecord, Records, Role
from ..supervision import keep_going
from .client import Client
from .layout import Layout
from .script import load_script

logger = get_logger("aibos_realtime.cluster")

INTERVAL = 2.0
LIFE = 10.0
PAUSE = 0.5
"""The share of `LIFE` without a sign of any node after which the register itself was away."""
CLAIMS = 8
"""Dead nodes that one node cleans up after at a time; the others of them wait for the other nodes."""
MAX_RECORD = 4096

_BEAT, _END, _LIST = (load_script(name, "nodes_common") for name in ("nodes_beat", "nodes_end", "nodes_list"))
_decoder = msgspec.json.Decoder(NodeRecord)


class Register:
    """One register: the names of its keys, and how it is read. There are two, one of nodes, one of instances that others told of."""

    def __init__(self, client: Client, layout: Layout, name: str, life: float, metrics: Metrics) -> None:
        self._client = client
        self._keys = [layout.of_nodes(f"{name}:{part}") for part in ("seen", "records", "claims", "calm")]
        self._life = int(life * 1000)
        self.metrics = metrics

    async def beat(self, record: NodeRecord, wanted: int, cleaning: list[str]) -> tuple[str, list[str], list[str]]:
        """See `scripts/nodes_beat.lua`."""
        pause = int(self._life * PAUSE)
        arguments = [record.id, msgspec.json.encode(record), self._life, pause, wanted, *cleaning]
        state, taken, lost = await self._client.run(_BEAT, self._keys, arguments)
        return state.decode(), [id.decode(errors="replace") for id in taken], [id.decode(errors="replace") for id in lost]

    async def end(self, id: str, why: str) -> None:
        """See `scripts/nodes_end.lua`."""
        await self._client.run(_END, self._keys, [id, why])

    async def find_name(self, id: str) -> str | None:
        """The name of one that is dead; None where it left by itself."""
        told = await self._client.command("HGET", self._keys[1], id)
        record = self._read(id.encode(), b"0", told) if told is not None else None
        return None if record is None else record.name

    async def list(self) -> Records:
        """Those that live, by rising name."""
        reply = await self._client.run(_LIST, self._keys, [self._life, MAX_RECORD])
        found = [self._read(*reply[at : at + 3]) for at in range(0, len(reply), 3)]
        return sorted((record for record in found if record is not None), key=lambda record: (record.name, record.id))

    def _read(self, id: bytes, seen: bytes, told: bytes) -> NodeRecord | None:
        try:
            record = _decoder.decode(told)
            seen_at = float(seen) / 1000
            is_printable = record.id.isprintable() and record.name.isprintable() and record.version.isprintable()
            if record.id.encode() == id and is_printable and math.isfinite(seen_at):
                return replace(record, seen_at=seen_at)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        self.metrics.foreign_records += 1
        if self.metrics.foreign_records in (1, 10, 100) or self.metrics.foreign_records % 1000 == 0:
            logger.warning("an entry of the register of nodes is none of ours, and was passed over (%d so far)", self.metrics.foreign_records)
        return None


class RedisRegistration:
    """See `nodes.Registration`. `wanted`: dead entries that it takes upon itself at a time; what becomes of them its heirs say."""

    wanted = CLAIMS
    farewell = "removed"

    def __init__(self, register: Register, record: NodeRecord, *, interval: float, clock: Clock) -> None:
        self.id = record.id
        self._register = register
        self._record = record
        self._interval = interval
        self._clock = clock
        self._telling = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._has_told = False
        self._is_away = False
        self._is_forgotten = False
        self._dead: dict[str, asyncio.Task[None] | None] = {}
        """Those that are this one's to clean up after, the first of them now."""
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Register, and go on telling. Idempotent. Raises `BrokerUnavailable`. Cancelling leaves at most an entry that runs out."""
        if self._tasks:
            return
        self._has_told = self._is_away = self._is_forgotten = False
        await self._tell()
        self._tasks = [self._supervise(self._keep, "node-beats"), self._supervise(self._look_after, "node-looks-after")]

    def _supervise(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(keep_going(work, name, clock=self._clock, metrics=self._register.metrics), name=name)

    async def stop(self) -> None:
        if not self._tasks:
            return
        tasks, self._tasks = [*self._tasks, *(task for task in self._dead.values() if task is not None)], []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._dead.clear()
        try:
            await self._register.end(self.id, self.farewell)
        except BrokerUnavailable:
            logger.info("the register of nodes cannot be reached: the entry of this node runs out there")

    async def beat(self) -> None:
        if self._tasks:
            await self._try_to_tell()

    # — telling —

    def describe_now(self) -> NodeRecord:
        """What this one tells of itself."""
        return self._record

    async def _keep(self) -> None:
        while True:
            await self._clock.sleep(self._interval)
            await self._try_to_tell()

    async def _try_to_tell(self) -> None:
        try:
            await self._tell()
        except BrokerUnavailable as error:
            if not self._is_away:
                self._is_away = True
                logger.warning("the register of nodes cannot be reached: %s", error)
        else:
            if self._is_away:
                self._is_away = False
                logger.info("the register of nodes is reached again")

    async def _tell(self) -> None:
        async with self._telling:  # what is told later is not to come earlier
            record = self.describe_now()
            state, taken, lost = await self._register.beat(record, max(0, self.wanted - len(self._dead)), list(self._dead))
            if state == "new" and self._has_told:
                logger.warning("the register had forgotten this node (%s): it tells again what it told there", self.id)
                self._is_forgotten = True
            self._has_told = True
            for id in taken:
                self._dead.setdefault(id)
            for id in lost:
                task = self._dead.pop(id, None)
                if task is not None:
                    task.cancel()
            if self._is_forgotten or self._dead:
                self._news.set()

    # — what follows from the answers —

    async def _look_after(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._is_forgotten:
                await self._repeat()
            while self._dead:
                await self._clean_up(next(iter(self._dead)))
                if not self._dead:
                    await self._try_to_tell()  # there may be more of them

    async def _repeat(self) -> None:
        self._is_forgotten = False
        try:
            await self.forgotten()
        except Exception:
            logger.exception("telling the register again failed; it is tried again")
            self._is_forgotten = True  # and the next beat sees to it

    async def _clean_up(self, id: str) -> None:
        """Until it is done, or no longer this node's. Where it fails the claim runs out, and some node tries again."""
        task = self._dead[id] = asyncio.get_running_loop().create_task(self.gone(id), name="node-cleans-up")
        await asyncio.wait([task])
        self._dead.pop(id, None)
        if task.cancelled():
            logger.warning("cleaning up after node %s took too long: it is another node's now", id)
        elif (error := task.exception()) is not None:
            logger.error("cleaning up after node %s failed; it is tried again", id, exc_info=error)
        else:
            try:
                await self._register.end(id, self.id)
            except BrokerUnavailable:
                pass  # some node does it once more

    async def forgotten(self) -> None:
        """The register did not know this one any more."""

    async def gone(self, id: str) -> None:
        """Another one is dead, and this one has to clean up after it."""


class RedisNodes(RedisRegistration):
    """See `nodes.Nodes`. `client` is opened and closed by its owner.

    `name`: for people; several nodes may have the same. `id`: of this life of its process; default a random one. `url`: where clients reach it.
    `interval`: seconds between two signs of life. `life`: seconds that a node counts as alive after one; the same on all nodes.
    """

    def __init__(
        self,
        client: Client,
        layout: Layout,
        *,
        name: str,
        id: str | None = None,
        url: str | None = None,
        version: str = "",
        role: Role = "server",
        interval: float = INTERVAL,
        life: float = LIFE,
        metrics: Metrics | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        metrics = metrics if metrics is not None else Metrics()
        record = NodeRecord(id or secrets.token_hex(8), name, url, "up", version, clock.now(), 0.0, role=role)
        _check(record)
        super().__init__(Register(client, layout, "nodes", life, metrics), record, interval=interval, clock=clock)
        self._instances = Register(client, layout, "instances", life, metrics)
        self._report: Callable[[], Mapping[str, Any]] | None = None
        self._gone_callbacks: list[Callable[[str], Any]] = []
        self._forgotten_callbacks: list[Callable[[], Any]] = []
        if role == "server":
            self.farewell = "left"
        else:
            self.wanted = 0

    def describe(self, report: Callable[[], Mapping[str, Any]]) -> None:
        self._report = report

    def on_gone(self, callback: Callable[[str], Any]) -> None:
        self._gone_callbacks.append(callback)

    def on_forgotten(self, callback: Callable[[], Any]) -> None:
        self._forgotten_callbacks.append(callback)

    def register(self, url: str, *, name: str, weight: int) -> RedisRegistration:
        record = NodeRecord(secrets.token_hex(8), name, url, "up", "", self._clock.now(), 0.0, weight=weight, role="instance")
        return RedisRegistration(self._instances, record, interval=self._interval, clock=self._clock)

    async def start(self) -> None:
        await super().start()
        await self._warn_of_namesakes()

    async def list(self) -> Records:
        return [record for record in await self._register.list() if record.role != "instance"]

    async def list_instances(self) -> Records:
        nodes, others = await asyncio.gather(self._register.list(), self._instances.list())
        return [record for record in (*nodes, *others) if record.url is not None and record.role != "process"]

    def describe_now(self) -> NodeRecord:
        if self._report is not None:
            try:
                self._record = replace(self._record, **self._report())
            except Exception:
                logger.exception("what this node is like could not be found out: it tells what it told last")
        return self._record

    async def forgotten(self) -> None:
        for callback in self._forgotten_callbacks:
            if isawaitable(result := callback()):
                await result

    async def gone(self, id: str) -> None:
        name = await self._register.find_name(id)
        if name is None:
            logger.info("a node has left: this node takes its users out of their rooms")
        else:
            logger.warning("node %s (%s) died: this node takes its users out of their rooms", name, id)
        for callback in self._gone_callbacks:
            if isawaitable(result := callback(id)):
                await result

    async def _warn_of_namesakes(self) -> None:
        """Two servers of one name at two addresses are a mistake of the configuration, unless the one takes the other's place."""
        try:
            others = [record for record in await self.list() if record.name == self._record.name and record.id != self.id]
        except BrokerUnavailable:
            return
        own = self._record
        for other in others:
            if own.role == other.role == "server" and other.state == "up" and other.url != own.url:
                logger.warning("two servers have the name %s (INSTANCE_ID): this one at %s, and one at %s", own.name, own.url, other.url)


def _check(record: NodeRecord) -> None:
    """Raise `ConfigurationError` for what the other nodes would take for none of ours."""
    if not (1 <= len(record.name) <= 128 and record.name.isprintable()):
        raise ConfigurationError("scaling.instance_id: allowed are 1–128 printable characters")
    try:
        _decoder.decode(msgspec.json.encode(record))
    except msgspec.ValidationError:
        raise ConfigurationError("scaling.instance_url: allowed is a URL like ws://instance1:3001, of at most 500 characters") from None
