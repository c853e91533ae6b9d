"""`serve --workers N`: begins the processes that serve, begins another where one ended, and replaces and ends them. It serves nobody itself."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import ConfigurationError
from ..logs import get_logger
from ..server.shared_port import SharedPort
from .exits import ExitCode, Failure
from .logs import LISTENING, LogFormat, LogLevel
from .output import out
from .serve import Given, explain
from .worker import READY, Plan

if TYPE_CHECKING:
    from ..server.server import RealtimeServer

logger = get_logger("aibos_realtime")

START_PATIENCE = 60.0
"""Seconds until a worker has to serve."""
STOP_PATIENCE = 45.0
"""Seconds until it has to have ended, once told to: more than a server's drain takes."""
STABLE = 10.0
"""Seconds after which the end of a worker has nothing to do with its beginning."""
FAILED_PATIENCE = 5.0
"""Seconds until one that does not serve has to have ended."""
FIRST_DELAY, MAX_DELAY = 0.5, 30.0
"""Seconds before the next one, where the last ones ended soon after they had begun."""

Spawn = Callable[[int, int], Coroutine[Any, Any, asyncio.subprocess.Process]]
"""(number of the worker, descriptor of the line to it) → its process."""


class Worker:
    """One process. `ready`: it serves; or it ended before, and the result is False."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, link: socket.socket, begun_at: float) -> None:
        self.number = number
        self.process = process
        self.begun_at = begun_at
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[bool] = loop.create_future()
        self.ended = loop.create_task(self._wait(link), name=f"worker-{number}")
        loop.add_reader(link, self._heard, link)

    def _heard(self, link: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(link)
        if link.recv(1) == READY and not self.ready.done():
            self.ready.set_result(True)

    async def _wait(self, link: socket.socket) -> int:
        """How it ended: an exit code, or minus the number of a signal."""
        try:
            return await self.process.wait()
        finally:
            asyncio.get_running_loop().remove_reader(link)
            link.close()
            if not self.ready.done():
                self.ready.set_result(False)

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def end(self, patience: float) -> int:
        """Have it drain and end; after `patience` seconds it is killed."""
        self.signal(signal.SIGTERM)
        await asyncio.wait([self.ended], timeout=patience)
        if not self.ended.done():
            logger.error("worker %d (process %d) has not ended within %g s: it is killed", self.number, self.process.pid, patience)
            self.signal(signal.SIGKILL)
        return await self.ended


class Workers:
    """`count` places, each with a worker in it for as long as this runs."""

    def __init__(
        self, spawn: Spawn, count: int, *, start_patience: float = START_PATIENCE, stop_patience: float = STOP_PATIENCE, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._spawn = spawn
        self._numbers = range(1, count + 1)
        self._start_patience = start_patience
        self._stop_patience = stop_patience
        self._clock = clock
        self._places: dict[int, Worker] = {}
        self._alive: set[Worker] = set()
        self._asked = 0
        self._stopping = asyncio.Event()
        self._rolling = asyncio.Event()

    async def run(self, on_started: Callable[[], object]) -> int:
        """Until `stop`; returned is the exit code. `on_started`: called once all of them serve.

        Where one cannot even begin, all are ended, and its exit code is returned.
        """
        tasks: list[asyncio.Task[Any]] = []
        try:
            failed = await self._begin()
            if failed is None and not self._stopping.is_set():
                on_started()
                tasks = [asyncio.create_task(self._keep(number), name=f"place-{number}") for number in self._numbers]
                tasks.append(asyncio.create_task(self._roll_when_asked(), name="rolling"))
                await self._stopping.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            codes = await asyncio.gather(*[worker.end(self._stop_patience) for worker in self._alive])
        if failed is not None:
            return failed
        return ExitCode.DONE if set(codes) <= {0, -signal.SIGTERM} else ExitCode.FAILED  # by SIGTERM: before it could mind signals

    def stop(self) -> None:
        """Have all of them drain and end; a second call has them end at once."""
        self._asked += 1
        self._stopping.set()
        if self._asked > 1:
            for worker in list(self._alive):
                worker.signal(signal.SIGTERM)

    def roll(self) -> None:
        """Replace them one after the other: each time the new one serves before the old one drains."""
        self._rolling.set()

    # — beginning —

    async def _begin(self) -> int | None:
        """All of them; the first one alone, so that a mistake is told once. The exit code of one that could not, or None."""
        first, *others = self._numbers
        for numbers in ([first], others):
            workers = await asyncio.gather(*(self._add(number) for number in numbers))
            for worker in workers:
                if not await self._serves(worker):
                    if self._stopping.is_set():
                        return None
                    code = await worker.end(FAILED_PATIENCE)
                    return code if code > 0 else ExitCode.FAILED
        return None

    async def _add(self, number: int) -> Worker:
        """A new process. It takes the place of this number."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                process = await self._spawn(number, theirs.fileno())
        except BaseException:
            ours.close()  # so that it ends by itself, if there is one
            raise
        worker = Worker(number, process, ours, self._clock.monotonic())
        self._alive.add(worker)
        worker.ended.add_done_callback(lambda _: self._alive.discard(worker))
        self._places[number] = worker
        return worker

    async def _serves(self, worker: Worker) -> bool:
        """Whether it serves in time, and nobody wants all to end meanwhile."""
        waiting: list[asyncio.Future[Any]] = [worker.ready, asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(waiting, timeout=self._start_patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting[1].cancel()
        return worker.ready.done() and worker.ready.result()

    # — one place —

    async def _keep(self, number: int) -> None:
        """Put another one into the place of each that ended by itself: at once, or later and later where they do not last."""
        failures = 0
        while True:
            worker = self._places[number]
            code = await asyncio.shield(worker.ended)
            if self._places[number] is not worker:
                continue  # it was replaced
            failures = 0 if self._clock.monotonic() - worker.begun_at >= STABLE else failures + 1
            delay = min(FIRST_DELAY * 2.0 ** (failures - 1), MAX_DELAY) if failures else 0.0
            logger.error("worker %d (process %d) ended by itself: %s. Another one begins in %g s", number, worker.process.pid, _how(code), delay)
            await self._clock.sleep(delay)
            if self._places[number] is worker and not await self._serves(another := await self._add(number)):
                await another.end(FAILED_PATIENCE)

    async def _roll_when_asked(self) -> None:
        while True:
            await self._rolling.wait()
            self._rolling.clear()
            logger.info("the workers are replaced, one after the other")
            if await self._roll():
                logger.info("all workers were replaced")

    async def _roll(self) -> bool:
        for number in self._numbers:
            former = self._places[number]
            worker = await self._add(number)
            if not await self._serves(worker):
                if not former.ended.done():
                    self._places[number] = former
                logger.error("the new worker %d does not serve: the others stay as they are", number)
                await worker.end(FAILED_PATIENCE)
                return False
            await former.end(self._stop_patience)
        return True


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


# — the command —


def serve_with_workers(
    server: RealtimeServer, given: Given, count: int, *, log_format: LogFormat, log_level: LogLevel, on_started: Callable[[], object] | None
) -> None:
    """`server`: as each worker makes it anew; here it only says where to listen. Raises `Failure`, `ConfigurationError`."""
    scaling = server.config.scaling
    if not scaling.enabled:
        raise Failure(
            f"--workers {count}: several processes meet in Redis. Set ENABLE_SCALING=true and REDIS_URL (in code: scaling.enabled and "
            "scaling.redis.url), or leave --workers away.",
            ExitCode.USAGE,
        )
    try:
        port = SharedPort(server.config.host, server.config.port)
    except ConfigurationError as error:
        raise Failure(explain(error, server), ExitCode.FAILED) from None
    with port:
        server.listen_on(port=port.number)
        name = scaling.instance_id or socket.gethostname()[:56]

        async def spawn(number: int, link: int) -> asyncio.subprocess.Process:
            plan = Plan(
                number, link, server.config.host, port.number, given.target, _path(given.config), _path(given.env_file), log_format, log_level,
                given.audit_log,
            )  # fmt: skip
            words = [sys.executable, "-m", "aibos_realtime.cli.worker", msgspec.json.encode(plan).decode()]
            # A group of its own: Ctrl-C reaches this process alone, which then ends them.
            return await asyncio.create_subprocess_exec(
                *words, env=_environment(given, f"{name}-{number}"), stdin=asyncio.subprocess.DEVNULL, pass_fds=(link,), process_group=0
            )

        def tell() -> None:
            logger.info(LISTENING, server.url)
            if on_started is not None:
                on_started()

        code = asyncio.run(_run(Workers(spawn, count), tell))
    if code == ExitCode.DONE and out.is_terminal:
        out.line(("stopped", "dim"))
    elif code != ExitCode.DONE:
        raise Failure(
            f"The workers ended with code {code}: what happened stands above.", ExitCode(code) if code in set(ExitCode) else ExitCode.FAILED
        )


async def _run(workers: Workers, on_started: Callable[[], object]) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, workers.stop)
    had_terminal = _has_terminal()
    loop.add_signal_handler(signal.SIGHUP, lambda: workers.stop() if had_terminal and not _has_terminal() else workers.roll())
    return await workers.run(on_started)


def _has_terminal() -> bool:
    """Whether this process has a terminal that controls it. It sends SIGHUP when it goes away."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _environment(given: Given, name: str) -> dict[str, str]:
    """A worker's. URLs may hold passwords: they go this way, where other users cannot read them."""
    variables = dict(os.environ) | {"INSTANCE_ID": name}
    if given.redis_url is not None:
        variables["REDIS_URL"] = given.redis_url
        variables.pop("REDIS_DB", None)
    if given.database_url is not None:
        variables["DATABASE_URL"] = given.database_url
    return variables


def _path(path: object) -> str | None:
    return None if path is None else str(path)
