"""Where attacks are made and judged: a real server in a process of its own, a canary in another, and what the attack cost them.

    async with arena("400,000 fragments of a byte") as field, field.upgraded() as attacker:
        ...

At the end of the block every arena asserts what is true of all attacks: the server lives and gives back the descriptors, no attacker cost more than
4 MB of its memory at the peak, 99 of 100 questions of the canary were answered within 100 ms meanwhile, and nothing that was said is a traceback or
a secret. The attack itself, and what the server answers to it, is the test's own. The figures of all attacks are printed at the end of the run.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import re
import shutil
import signal
import ssl
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import trustme

from aibos_realtime import WebSocketAuth
from tests.attacks.victim import SECRET, Shifted
from tests.faults.processes import Process, Server, Zygote
from tests.network.raw import Raw, Response, member_of, raw, upgraded

MEGABYTE = 1_000_000
MEMORY = 4 * MEGABYTE
"""Bytes of the server's memory that one attacker may cost at the peak."""
CANARY_P99 = 0.1
"""Seconds within which 99 of 100 of the canary's questions are answered, on a machine that does nothing else."""
MOST_STARVED = 3.0
"""By so much they may take longer where the server waits for a core (`/proc/PID/schedstat`): tests run beside other work."""
PATIENCE = 15.0
TOKEN = re.compile(r"eyJ[\w-]{8,}")
UNPACED = {"handshakes_per_second": None, "handshakes_per_second_per_address": None, "connections_per_address": None, "connections_per_user": None}
"""Limits that are off for tests whose attack is not on them: all attackers come from one address."""


@dataclass(frozen=True)
class Toll:
    """What an attack cost. Sizes in bytes, times in seconds."""

    attack: str
    attackers: int
    memory: int
    """Peak less what the server had before, of all attackers together."""
    worst_lag: float
    """The latest that the server's loop was."""
    questions: int
    """Of the canary, meanwhile."""
    p50: float
    p99: float
    slowest: float
    has_usual_bounds: bool = True
    """Those of `MEMORY` and `CANARY_P99`, or narrower ones."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Further ones that the test noted, by name."""

    @property
    def memory_each(self) -> float:
        return self.memory / self.attackers


class Field:
    """The server under attack."""

    def __init__(self, server: Server, attackers: int, auth: WebSocketAuth, tls: ssl.SSLContext | None = None) -> None:
        self.server = server
        self.auth = auth
        """Issues tokens that it takes."""
        self.attackers = attackers
        self.tls = tls
        """For its clients, where it speaks TLS."""
        self.figures: dict[str, Any] = {}
        """What the test wants to be told with the toll."""
        self.worst_lag = 0.0
        """The latest that the loop was, as far as it was asked."""
        self._scheduled = (0, 0)
        self.secrets = [SECRET]
        """What must not be said."""

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def process(self) -> Process:
        return self.server.process

    def raw(self, **options: Any) -> AbstractAsyncContextManager[Raw]:
        """A TCP connection; see `tests.network.raw.raw`."""
        return raw(self.port, **{"tls": self.tls} | options)

    def upgraded(self, *further: str, **options: Any) -> AbstractAsyncContextManager[Raw]:
        """A connection after its handshake, without a token unless `further` brings one."""
        return upgraded(self.port, *further, **{"tls": self.tls} | options)

    def token(self, user_id: str, *, role: str = "user", tenant_id: str | None = "1", **options: Any) -> str:
        """A good one."""
        return self.auth.issue(user_id=user_id, tenant_id=tenant_id, role=role, **options)

    def member(self, user_id: str, *rooms: str, role: str = "user", tenant_id: str | None = "1", **options: Any) -> AbstractAsyncContextManager[Raw]:
        """A user, welcomed, in these rooms."""
        return member_of(self.port, self.token(user_id, role=role, tenant_id=tenant_id), *rooms, **{"tls": self.tls} | options)

    async def http(self, method: str, path: str, body: Any = None, *fields: str, token: str = "") -> Response:
        """One request over HTTP, on a connection of its own. `body`: bytes as they are, anything else as JSON; `fields`: further header lines."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *([f"Authorization: Bearer {token}"] if token else []), *fields]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        async with self.raw() as connection:
            await connection.send("\r\n".join([*lines, "", ""]).encode("latin-1") + content)
            return await connection.response(method=method)

    async def until_refused(self, token: str, timeout: float = PATIENCE) -> None:
        """Wait until a token is not good any more."""
        async with asyncio.timeout(timeout):
            while (await self.http("GET", "/api/v1/instances", token=token)).status != 401:
                await _pause()

    def starvation(self) -> float:
        """How many times as long all took the server as it ran, since others had its core; 1.0 on a machine of its own, `MOST_STARVED` at most."""
        (ran, waited), (ran_before, waited_before) = _scheduled(self.process.pid), self._scheduled
        return min(MOST_STARVED, 1.0 + (waited - waited_before) / max(1, ran - ran_before))

    def begin(self) -> None:
        """From here on the figures count."""
        self._scheduled = _scheduled(self.process.pid)
        self.worst_lag = 0.0

    def memory(self) -> int:
        """Of the server, resident, now."""
        return _status(self.process.pid, "VmRSS")

    def descriptors(self) -> int:
        """How many the server has open, now."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    async def report(self) -> dict[str, Any]:
        """The server's own figures, now: see `victim`."""
        before = len(self.process.lines)
        self.process.signal(signal.SIGUSR1)
        line = await self.process.until(lambda line: line.startswith("figures "), after=before)
        found: dict[str, Any] = json.loads(line.partition(" ")[2])
        self.worst_lag = max(self.worst_lag, found["worst_lag"])
        return found

    async def until(self, condition: Callable[[dict[str, Any]], bool], timeout: float = PATIENCE) -> dict[str, Any]:
        """Ask for the figures until they are as they should; returns them."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout):
                while not condition(found := await self.report()):
                    await _pause()
        except TimeoutError:
            raise AssertionError(f"the server's figures did not become as awaited: {found}") from None
        return found

    async def until_descriptors(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait until the server has no more than so many open."""
        try:
            async with asyncio.timeout(timeout):
                while self.descriptors() > count:
                    await _pause()
        except TimeoutError:
            raise AssertionError(f"the server keeps {self.descriptors()} descriptors, {count} before") from None


class Arena(Protocol):
    """Begins an attack of this name. `attackers`: over how many its memory is shared out; `canary`: the user that the canary is; `options`: of the
    server, of `victim.main`, and `tls`, `api` (whether what the HTTP API loads at its first use is loaded before). `memory`, `p99`: bounds where
    they are not the usual ones, with the reason beside the call; `spare`: descriptors that the server opens at need, and keeps, such as a store's.
    """

    def __call__(
        self, attack: str, *, attackers: int = 1, memory: float = MEMORY, p99: float = CANARY_P99, spare: int = 0, **options: Any
    ) -> AbstractAsyncContextManager[Field]: ...


@asynccontextmanager
async def fought(
    zygote: Zygote,
    tolls: list[Toll],
    attack: str,
    *,
    attackers: int = 1,
    memory: float = MEMORY,
    p99: float = CANARY_P99,
    spare: int = 0,
    **options: Any,
) -> AsyncIterator[Field]:
    """The arena; see `Arena`. Adds its toll to `tolls`."""
    server = Server(zygote, "memory://", program="tests.attacks.victim")
    del server._options["database"]
    server._options |= options | {"limits": UNPACED | options.get("limits", {})}
    authority = certify(server._options) if server._options.pop("tls", False) else None
    has_api = server._options.pop("api", False)
    async with server:
        auth = WebSocketAuth(**{"jwt_secret": SECRET} | options.get("authentication", {}), clock=Shifted(options.get("ahead", 0.0)))
        here = Field(server, attackers, auth, ssl.create_default_context(cadata=authority) if authority else None)
        await _warm_up(here)
        if has_api:
            assert (await here.http("GET", "/api/v1/rooms", token=here.token("warm"))).status == 200
        canary = await Process.start(
            zygote, "tests.attacks.canary", {"port": here.port, "token": here.token("canary", tenant_id="canary"), "authority": authority}
        )
        try:
            await canary.until("singing")
            await here.report()
            descriptors, before = here.descriptors(), here.memory()
            here.begin()
            _forget_peak(here.process.pid)
            yield here
            peak = _status(here.process.pid, "VmHWM")
            await here.report()
            lag, starvation = here.worst_lag, here.starvation()
            canary.signal(signal.SIGTERM)
            song = json.loads((await canary.until("song")).partition(" ")[2])
            await canary.until_ended()
            await here.until_descriptors(descriptors + spare)
        finally:
            if not canary.has_ended:
                await canary.kill()
        await server.stop()
    check_words(here.process.lines, here.secrets)
    times = (statistics.median(song), _quantile(song, 0.99), max(song))
    toll = Toll(attack, attackers, max(0, peak - before), lag, len(song), *times, memory <= MEMORY and p99 <= CANARY_P99, here.figures)
    tolls.append(toll)
    assert toll.memory_each <= memory, f"each of {attackers} cost {toll.memory_each / MEGABYTE:.1f} MB at the peak"
    late = f"the canary waited {1000 * toll.p99:.0f} ms (p99 of {toll.questions}), the loop was {1000 * lag:.0f} ms late"
    assert toll.p99 <= p99 * starvation, f"{late}, with 1/{starvation:.1f} of a core"


def check_words(lines: list[str], secrets: list[str]) -> None:
    """Raise where a log has a traceback, a token, or one of the secrets."""
    bad = [line for line in lines if "Traceback (most recent call last)" in line or TOKEN.search(line) or any(secret in line for secret in secrets)]
    assert not bad, bad[:20]


def certify(options: dict[str, Any]) -> str:
    """Have a server speak TLS; returns the authority to trust, in PEM. The file with the key is gone when this process is."""
    authority = trustme.CA()
    folder = Path(tempfile.mkdtemp(prefix="realtime-arena-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    certificate = folder / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    options["tls"] = {"certificate": str(certificate)}
    return authority.cert_pem.bytes().decode()


async def _warm_up(here: Field) -> None:
    """Have everything loaded that a first client loads."""
    async with here.member("warm", "tenant_1") as one, here.member("warm", "tenant_1") as other:
        await one.ask("history", {"room": "tenant_1"})
        one.say("warm.up", "x" * 1000, room="tenant_1")
        await other.message("warm.up")


async def _pause() -> None:
    """Let the server do something that it does not announce."""
    await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=0.02)


def _scheduled(pid: int) -> tuple[int, int]:
    """Nanoseconds that a process's first thread has run, and has waited for a core."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran), int(waited)


def _status(pid: int, name: str) -> int:
    """A size from /proc/PID/status, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the system does not tell {name}")


def _forget_peak(pid: int) -> None:
    """Let VmHWM begin again from what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _quantile(values: list[float], share: float) -> float:
    """Of few values the second worst: one hiccup of a busy machine is no verdict."""
    return sorted(values)[int(share * (len(values) - 1))]
