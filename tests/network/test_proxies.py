"""The files of `deploy/`, in the proxies that they are for, before real servers: what a user copies from there is what was tested here.

Everything goes over TLS to the proxy, and in the clear from it to three nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime import RealtimeClient, WebSocketAuth
from tests.faults.checker import check
from tests.faults.load import Load
from tests.faults.nodes import Nodes
from tests.faults.processes import Zygote
from tests.faults.server_program import SECRET
from tests.network.clients import Record
from tests.network.nodes import Node, running_nodes
from tests.network.raw import PATIENCE, Raw, Response, echoes, frame, raw, request, until, upgraded
from tests.servers.proxies import PROGRAMS, Certificate, Nginx, ReverseProxy, Times, running_proxy
from tests.servers.redis import running_redis

pytestmark = [pytest.mark.usefixtures("clean_log"), pytest.mark.asyncio(loop_factories=["uvloop"]), pytest.mark.timeout(90)]

ROOM = "room-1"
POST = b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"

PLACES = {"max_connections": 3}

Running = Callable[..., AbstractAsyncContextManager[ReverseProxy]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    found = Zygote()
    yield found
    found.close()


@pytest.fixture(params=list(PROGRAMS))
def program(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if not PROGRAMS[name][1].is_file():
        pytest.skip(f"needs {name}: its wheel is not installed")
    return name


@pytest.fixture
def running(program: str, tmp_path: Path, certificate: Certificate) -> Running:
    """Starts the proxy before some nodes."""

    def start(nodes: list[Node], **times: float) -> AbstractAsyncContextManager[ReverseProxy]:
        return running_proxy(program, tmp_path, certificate, [node.port for node in nodes], Times(**times))

    return start


def token_of(user_id: str) -> str:
    return WebSocketAuth(jwt_secret=SECRET).issue(user_id=user_id, expires_in="1h")


def client_of(proxy: ReverseProxy, user_id: str) -> RealtimeClient:
    return RealtimeClient(proxy.url, token=token_of(user_id), ssl=proxy.certificate.context, random=lambda: 0.0)


def through(proxy: ReverseProxy, **options: Any) -> AbstractAsyncContextManager[Raw]:
    return raw(proxy.port, tls=proxy.certificate.context, **options)


async def shake_hands(connection: Raw, *further: str) -> Response:
    connection.write(request(*further, fields={"Host": "localhost"}))
    return await connection.response()


@asynccontextmanager
async def connected(proxy: ReverseProxy, *further: str, **options: Any) -> AsyncIterator[tuple[Raw, str]]:
    """A WebSocket through the proxy, and the node that it ends at."""
    async with through(proxy, **options) as connection:
        response = await shake_hands(connection, f"Authorization: Bearer {token_of('ann')}", *further)
        assert response.status == 101, (response, proxy.output)
        yield connection, (await connection.message("connected"))["data"]["node"]


async def where_they_go(proxy: ReverseProxy, count: int) -> list[str]:
    """The nodes that so many connections come to, all open at once for a moment; an empty word for one that is not let in within a second."""
    found = []
    async with AsyncExitStack() as stack:
        for _ in range(count):
            node = ""
            with suppress(TimeoutError, AssertionError):
                async with asyncio.timeout(1.0):
                    _, node = await stack.enter_async_context(connected(proxy))
            found.append(node)
    return sorted(found)


async def until_they_go_to(proxy: ReverseProxy, *names: str) -> None:
    """Wait until new connections come to these nodes, in turn, and to no other one."""
    async with asyncio.timeout(20.0):
        while await where_they_go(proxy, len(names)) != sorted(names):
            pass


# — the file —


async def test_the_program_takes_its_file(program: str, tmp_path: Path, certificate: Certificate) -> None:
    kind, path = PROGRAMS[program]
    proxy = kind(path, tmp_path, certificate, [3001, 3002, 3003], Times())
    proxy.write()
    done = proxy.check()
    assert done.returncode == 0 and "warn" not in (done.stdout + done.stderr).lower(), done
    proxy.file.write_text(proxy.file.read_text() + "\nno_such_word at_all;\n")
    assert proxy.check().returncode != 0


async def test_what_is_not_in_a_file_is_not_taken_as_tested(tmp_path: Path, certificate: Certificate) -> None:
    class Changed(Nginx):
        def replacements(self, name: str) -> dict[str, str]:
            return super().replacements(name) | {"listen 80;": "listen 81;"}

    with pytest.raises(AssertionError, match="listen 80"):
        Changed(Path("nginx"), tmp_path, certificate, [1, 2, 3], Times()).write()


# — the road —


async def test_events_pass_between_clients_of_all_nodes(running: Running) -> None:
    """Connections are spread evenly, and each client hears what any other one publishes."""
    async with running_nodes() as nodes, running(nodes) as proxy, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(proxy, f"user-{number}")) for number in range(6)]
        assert [len(node) for node in nodes] == [2, 2, 2]
        records = [Record(client, "tick") for client in clients]
        for client in clients:
            await client.join_room(ROOM)
        for number, client in enumerate(clients):
            await client.send_message("tick", number, room=ROOM)
        for record in records:
            await record.until("tick", 6)
            assert record.of("tick") == list(range(6))


async def test_new_connections_come_to_the_node_that_has_the_fewest(running: Running) -> None:
    async with running_nodes() as nodes, running(nodes) as proxy, AsyncExitStack() as stack, AsyncExitStack() as leaving:
        for _ in range(6):
            async with AsyncExitStack() as one:
                _, node = await one.enter_async_context(connected(proxy))
                (leaving if node == "node-2" else stack).push_async_exit(one.pop_all())
        await leaving.aclose()
        await until(lambda: len(nodes[1]) == 0)
        assert await where_they_go(proxy, 2) == ["node-2", "node-2"]


async def test_the_nodes_see_the_client_as_it_is(running: Running) -> None:
    """Its address, whatever it claims itself; that it came over TLS; and the host that it asked for: a page of that host may connect."""
    forged = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http")
    async with running_nodes() as nodes, running(nodes) as proxy:
        own = f"localhost:{proxy.port}"
        async with through(proxy, source="127.0.0.5") as page, through(proxy) as other:
            page.write(request(f"Origin: https://{own}", *forged, fields={"Host": own}))
            assert (await page.response()).status == 101
            (socket,) = (socket for node in nodes for socket in node.server.pool)
            assert socket.remote_address == socket.headers["x-forwarded-for"] == "127.0.0.5"
            other.write(request(f"Origin: http://{own}", fields={"Host": own}))
            assert (await other.response()).status == 403


async def test_what_the_nodes_take_passes_and_what_they_refuse_does_not(running: Running) -> None:
    """A token of nearly 8 KiB gets to the node; a head that is larger than a node's limits ends at the proxy."""
    async with running_nodes() as nodes, running(nodes) as proxy:
        async with through(proxy) as connection:
            response = await shake_hands(connection, "Authorization: Bearer " + "x" * 7900)
            assert response.status == 401 and response.problem["code"] == "not_authenticated"
        refused = sum(node.server.metrics.handshakes_refused.total() for node in nodes)
        async with through(proxy) as connection:
            await connection.send(request(*(f"X-Filler-{number}: {'x' * 7900}" for number in range(5))))
            assert (await connection.ended()).split()[1] in (b"400", b"431")
        assert refused == sum(node.server.metrics.handshakes_refused.total() for node in nodes) == 1


async def test_an_idle_connection_lives_by_the_pings_of_its_node(running: Running) -> None:
    """The idle limit counts, and a node's pings keep a connection below it. Caddy has none."""
    silent = {"heartbeat": {"interval": None, "timeout": None}}
    async with (
        running_nodes(first=silent, heartbeat={"interval": 1.5, "timeout": 20}) as nodes,
        running(nodes, idle=4.0) as proxy,
        AsyncExitStack() as stack,
    ):
        found = {node: connection for connection, node in [await stack.enter_async_context(connected(proxy)) for _ in nodes]}
        unpinged = found.pop("node-1")
        await asyncio.gather(
            *(answer_pings(connection, 2) for connection in found.values()), *([unpinged.ended(10.0)] if proxy.has_idle_limit else [])
        )
        for connection in found.values():
            await echoes(connection)


async def answer_pings(connection: Raw, count: int) -> None:
    for _ in range(count):
        async with asyncio.timeout(PATIENCE):
            opcode, payload = await connection.frame()
        assert opcode == 9
        await connection.send(frame(10, payload))


# — which node —


@pytest.mark.parametrize("program", [name for name, (kind, _) in PROGRAMS.items() if kind.checks_health], indirect=True)
@pytest.mark.parametrize("is_silent", [False, True], ids=["not ready", "silent"])
async def test_a_node_that_fails_its_check_gets_no_new_connections_and_keeps_its_old_ones(running: Running, is_silent: bool) -> None:
    """Two of three fail: the third is enough. `not ready`: `/ready` says 503; `silent`: nothing is answered any more.

    nginx checks no health: it goes by how a handshake is answered, as in the next test.
    """
    async with running_nodes(has_line=True) as nodes, running(nodes) as proxy, AsyncExitStack() as stack:
        old = [(await stack.enter_async_context(connected(proxy)))[0] for _ in nodes]
        for node in nodes[:2]:
            node.fail(is_silent=is_silent)
        await until_they_go_to(proxy, "node-3", "node-3", "node-3")
        for node in nodes[:2]:
            node.recover()
        for connection in old:
            await echoes(connection)
        await until_they_go_to(proxy, "node-1", "node-2", "node-3")


async def test_a_handshake_goes_on_to_the_next_node(running: Running) -> None:
    """From one that is gone, and from one that is full, before any check could tell."""
    async with running_nodes(has_line=True, connections=PLACES) as nodes, running(nodes, check=60.0) as proxy, AsyncExitStack() as stack:
        await until_they_go_to(proxy, "node-1", "node-2", "node-3")
        await nodes[0].die()
        await fill(nodes[1], stack)
        found = [(await stack.enter_async_context(connected(proxy)))[1] for _ in range(PLACES["max_connections"])]
        assert set(found) == {"node-3"}


async def test_a_full_cluster_says_when_to_come_again(running: Running) -> None:
    async with running_nodes(connections=PLACES) as nodes, running(nodes, check=60.0) as proxy, AsyncExitStack() as stack:
        for node in nodes:
            await fill(node, stack)
        response = await shake_hands(await stack.enter_async_context(through(proxy)))
        assert response.status == 503 and response.fields["retry-after"] == "5", response


async def fill(node: Node, stack: AsyncExitStack) -> None:
    """Take every place of a node, past the proxy."""
    await until(lambda: not len(node))
    for _ in range(PLACES["max_connections"]):
        await stack.enter_async_context(upgraded(node.port))


async def test_only_handshakes_are_sent_twice(running: Running) -> None:
    """A 503 to another request goes to the client, and no other node has seen it."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        seen.append(scope["path"])
        status = 200 if scope["path"] == "/ready" else 503
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async with running_nodes(app=app) as nodes, running(nodes) as proxy, through(proxy) as connection:
        connection.write(POST)
        assert (await connection.response()).status == 503
        assert seen.count("/orders") == 1


# — while it runs —


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_nodes_die_and_drain_under_load_and_nothing_is_lost(program: str, zygote: Zygote, tmp_path: Path, certificate: Certificate) -> None:
    """A whole cluster: processes, Redis and the proxy. One node is killed, comes back, and another one is restarted."""
    with running_redis() as redis:
        async with Nodes(zygote, redis, tmp_path, database="memory://", pattern={"history_size": 100_000}) as nodes:
            killed, restarted, last = nodes.servers
            ports = [server.port for server in nodes.servers]
            async with running_proxy(program, tmp_path, certificate, ports) as proxy, load_through(proxy, last.url, tmp_path) as load:
                await killed.kill()
                await load.until_flowing(10)
                await killed.start()
                await restarted.stop()
                await load.until_flowing(10)
                await restarted.start()


async def test_a_reload_takes_up_other_nodes_and_nothing_is_lost(running: Running, tmp_path: Path) -> None:
    """What was connected before stays connected, also to a node that is no longer named; where the old process ends at last, clients come back."""
    async with (
        running_nodes(4) as nodes,
        running(nodes[:3], linger=2.0) as proxy,
        load_through(proxy, nodes[3].server.url, tmp_path) as load,
        AsyncExitStack() as stack,
    ):
        old = [(await stack.enter_async_context(connected(proxy)))[0] for _ in range(3)]
        await asyncio.to_thread(proxy.reload, [node.port for node in nodes[1:]])
        await until_they_go_to(proxy, "node-4")
        for connection in old:
            await echoes(connection)
        await load.until_flowing(10)
        if proxy.ends_old_connections:
            await asyncio.gather(*(connection.ended() for connection in old))
        await load.until_flowing(10)


@asynccontextmanager
async def load_through(proxy: ReverseProxy, direct: str, folder: Path) -> AsyncIterator[Load]:
    """Publishers and subscribers; at the end, the verdict on what they have seen and on the log, which is read at the node with this URL."""
    journals = folder / "journals"
    journals.mkdir()
    async with Load(journals, proxy.url, seed=1, direct=direct, ssl=proxy.certificate.context) as load:
        await load.until_flowing(10)
        yield load
        await load.settle()
        log = await load.read_log()
    verdict = check(load.history(log, None))
    assert verdict.is_clean and not verdict.counts["told of a gap"], str(verdict)
