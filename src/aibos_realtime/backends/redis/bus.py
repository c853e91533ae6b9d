"""The bus between nodes as one stream in Redis: requests and answers are entries, and each node reads on from where it is.

So nothing is lost while a connection is. What is kept is bounded: a node that was away for longer than that is told so.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from ...clock import SYSTEM_CLOCK, Clock
from ...errors import BrokerUnavailable, Overloaded
from ...logs import get_logger
from ...metrics import Metrics
from ..bus import Handler
from ..foreign import Foreign
from ..nodes import Nodes
from ..supervision import keep_going
from .client import Client, Entry
from .layout import Layout

logger = get_logger("aibos_realtime.cluster")

KEPT = 10_000
"""Entries of the stream, about."""
PATIENCE = 1.0
"""Seconds that who asks waits for the answers, and that one request may hold up the next."""
FRESH = 2.0
"""Seconds for which it counts who was in the register."""
MAX_BYTES = 64 * 1024
"""Of an entry."""
MAX_ANSWER = 32 * 1024 * 1024
"""Of an answer, which beyond an entry's size lies beside the stream for a while."""
ANSWER_LIFE = 10
AT_ONCE = 100
BLOCK = 5.0
PAUSE = 0.25

R = TypeVar("R", bound=Struct)


class _Request(Struct, tag="request"):
    """`id`: of the request; `node`: who asks; `kind`: the tag of what he asks for."""

    id: str
    node: str
    kind: str
    request: Raw


class _Answer(Struct, tag="answer", omit_defaults=True):
    """`id`: of the request; `to`: who asked. `value`: None with `key`, under which it is, and where the handler failed."""

    id: str
    node: str
    to: str
    value: Raw = Raw(b"null")
    key: bool = False
    failed: bool = False


_decoder = msgspec.json.Decoder(_Request | _Answer)
_encode = msgspec.json.encode


class _Asking:
    """Somebody waits for answers: those of `nodes` are missing yet."""

    def __init__(self, nodes: set[str]) -> None:
        self.nodes = nodes
        self.answers: list[Any] = []
        self.error: BaseException | None = None
        self.done = asyncio.Event()


class RedisBus:
    """See `backends.bus.Bus`. `client` is opened and closed by its owner. `nodes`: the register, in which this node is as long as the bus runs."""

    def __init__(self, client: Client, layout: Layout, *, nodes: Nodes, metrics: Metrics | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._client = client
        self._layout = layout
        self._key = layout.of_nodes("bus")
        self._nodes = nodes
        self._clock = clock
        self._metrics = metrics if metrics is not None else Metrics()
        self._foreign = Foreign(self._metrics, clock)
        self._handlers: dict[str, tuple[type[Struct], Handler]] = {}
        self._gap_callbacks: list[Callable[[], Any]] = []
        self._asking: dict[str, _Asking] = {}
        self._requests: asyncio.Queue[_Request] = asyncio.Queue()
        self._known: set[str] = set()
        self._known_at = -FRESH
        self._looked_at = -FRESH
        self._place = "0-0"
        self._loops: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Future[Any]] = set()

    def on(self, kind: type[R], handler: Callable[[R], Any | Awaitable[Any]]) -> None:
        tag = str(kind.__struct_config__.tag)
        assert tag not in self._handlers, tag
        self._handlers[tag] = (kind, handler)

    def on_gap(self, callback: Callable[[], Any]) -> None:
        self._gap_callbacks.append(callback)

    async def start(self) -> None:
        """Read from here on. Idempotent. Raises `BrokerUnavailable`."""
        if self._loops:
            return
        self._place = await self._find_end()
        self._loops = [self._supervise(self._read, "bus-reads"), self._supervise(self._serve, "bus-serves")]

    def _supervise(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(keep_going(work, name, clock=self._clock, metrics=self._metrics), name=name)

    async def stop(self) -> None:
        loops, self._loops = self._loops, []
        tasks = [*loops, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # — asking —

    async def ask(self, request: Struct) -> list[Any]:
        message = _Request(secrets.token_hex(8), self._nodes.id, str(request.__struct_config__.tag), Raw(_encode(request)))
        try:
            asking = self._asking[message.id] = _Asking(await self._living() | {self._nodes.id})
            await self._send(message)
            await self._wait(asking)
        except BrokerUnavailable:
            await self._do(message)
            raise
        finally:
            self._asking.pop(message.id, None)
        if asking.error is not None:
            raise asking.error
        return asking.answers

    async def _wait(self, asking: _Asking) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await asking.done.wait()
        except TimeoutError:
            logger.warning("%d node(s) did not answer in time; they do what they were asked for as soon as they can", len(asking.nodes))

    async def _send(self, message: _Request | _Answer) -> None:
        data = _encode(message)
        if len(data) > MAX_BYTES:
            raise Overloaded("What the nodes were to be asked for is too large.")
        await self._client.command("XADD", self._key, "MAXLEN", "~", KEPT, "*", "m", data)

    async def _living(self) -> set[str]:
        """The ids of the nodes in the register, as of at most two seconds ago. Raises `BrokerUnavailable`."""
        if self._clock.monotonic() - self._known_at >= FRESH:
            await self._look_up()
        return set(self._known)

    async def _look_up(self) -> None:
        self._looked_at = self._clock.monotonic()
        self._known = {record.id for record in await self._nodes.list()}
        self._known_at = self._looked_at

    # — hearing —

    async def _read(self) -> None:
        is_doubtful = False
        is_away = False
        while True:
            try:
                if is_doubtful:
                    await self._check_place()
                entries = await self._client.read_stream(self._key, self._place, AT_ONCE, BLOCK)
            except BrokerUnavailable as error:
                if not is_away:
                    logger.warning("the bus between the nodes cannot be read: %s", error)
                is_doubtful = is_away = True
                await self._clock.sleep(PAUSE)
                continue
            if is_away:
                logger.info("the bus between the nodes is read again")
                is_away = False
            is_doubtful = not entries
            for entry in entries:
                self._take(entry)

    def _take(self, entry: Entry) -> None:
        self._place, fields = entry
        data = fields.get(b"m", b"")
        try:
            if len(data) > MAX_BYTES:
                raise ValueError
            message = _decoder.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self._foreign.note("a message of the bus")
            return
        if isinstance(message, _Request):
            self._requests.put_nowait(message)
        elif message.to == self._nodes.id:
            self._take_answer(message)

    def _take_answer(self, answer: _Answer) -> None:
        asking = self._asking.get(answer.id)
        if asking is None:
            return  # too late
        if answer.node == self._nodes.id or not (answer.node in asking.nodes or answer.node in self._known):
            self._foreign.note("an answer on the bus")
        elif answer.key:
            self._spawn(self._fetch(asking, answer))
        else:
            self._count(asking, answer, answer.value)

    def _count(self, asking: _Asking, answer: _Answer, value: bytes | Raw) -> None:
        if not answer.failed:
            try:
                asking.answers.append(msgspec.json.decode(value))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self._foreign.note("an answer on the bus")
        self._is_answered(asking, answer.node)

    def _is_answered(self, asking: _Asking, node: str) -> None:
        asking.nodes.discard(node)
        if not asking.nodes:
            asking.done.set()

    async def _fetch(self, asking: _Asking, answer: _Answer) -> None:
        key = self._beside(answer.id, answer.node)
        try:
            if await self._client.command("STRLEN", key) <= MAX_ANSWER and (value := await self._client.command("GET", key)) is not None:
                self._count(asking, answer, value)
        except BrokerUnavailable:
            pass  # an answer that does not come

    # — doing —

    async def _serve(self) -> None:
        """Do what is asked for, one after the other; what takes too long goes on beside the next."""
        while True:
            message = await self._requests.get()
            if not await self._is_registered(message.node):
                self._foreign.note("a request on the bus by a node that is not registered")
                continue
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.wait([task], timeout=PATIENCE)

    async def _is_registered(self, node: str) -> bool:
        if node == self._nodes.id or (node in self._known and self._clock.monotonic() - self._known_at < 5 * FRESH):
            return True
        if self._clock.monotonic() - self._looked_at >= FRESH / 10:  # it may have come just now
            try:
                await self._look_up()
            except BrokerUnavailable:
                pass
        return node in self._known

    async def _answer(self, message: _Request) -> None:
        is_own = message.node == self._nodes.id
        asking = self._asking.get(message.id) if is_own else None
        answer = _Answer(message.id, self._nodes.id, message.node, failed=True)
        try:
            value = await self._do(message)
            answer = _Answer(message.id, self._nodes.id, message.node, Raw(_encode(value)))
            if asking is not None:
                asking.answers.append(value)
        except Exception as error:
            if asking is not None:
                asking.error = error
            else:
                logger.exception("what a node asked for (%s) failed", message.kind)
        if asking is not None:
            self._is_answered(asking, self._nodes.id)
        elif not is_own:
            await self._send_answer(answer)

    async def _send_answer(self, answer: _Answer) -> None:
        try:
            if len(answer.value) > MAX_BYTES // 2:
                await self._client.command("SET", self._beside(answer.id, answer.node), bytes(answer.value), "EX", ANSWER_LIFE)
                answer = _Answer(answer.id, answer.node, answer.to, key=True)
            await self._send(answer)
        except BrokerUnavailable:
            pass  # who asked has given up by now

    async def _do(self, message: _Request) -> Any:
        kind, handler = self._handlers.get(message.kind, (None, None))
        if kind is None or handler is None:
            return None  # of a node that is newer, or has more parts than this one
        try:
            request = msgspec.json.decode(message.request, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._foreign.note("a request on the bus")
            return None
        result = handler(request)
        return await result if isawaitable(result) else result

    def _beside(self, id: str, node: str) -> str:
        return self._layout.of_nodes(f"bus:{id}:{node}")

    # — the place in the stream —

    async def _find_end(self) -> str:
        kind = await self._client.command("TYPE", self._key)
        if kind not in (b"none", b"stream"):
            self._foreign.note("what lies in the place of the bus")
            await self._client.command("DEL", self._key)
        last = await self._client.command("XREVRANGE", self._key, "+", "-", "COUNT", 1)
        return str(last[0][0].decode()) if last else "0-0"

    async def _check_place(self) -> None:
        """As long as the last entry that was read is there, or none was ever, nothing after it was trimmed away."""
        if await self._client.command("TYPE", self._key) == b"stream":
            if self._place == "0-0" or await self._client.command("XRANGE", self._key, self._place, self._place):
                return
        end = await self._find_end()
        if end == self._place == "0-0":
            return
        self._place = end
        logger.warning("this node may have missed what other nodes asked for: it goes on from here")
        for callback in self._gap_callbacks:
            self._spawn(_call(callback))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _call(callback: Callable[[], Any]) -> None:
    try:
        if isawaitable(result := callback()):
            await result
    except Exception as error:
        logger.error("what follows from a gap of the bus failed (%s)", type(error).__name__, exc_info=error)
