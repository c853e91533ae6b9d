"""TLS to Redis: whose certificates are trusted, and that all connections of all kinds of set-ups use it.

The Valkey of the wheel is built without TLS: a front that ends TLS stands before it. A Redis that is installed does it itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from aibos_realtime import BrokerUnavailable, ConfigurationError
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.options import RedisOptions
from aibos_realtime.backends.redis.urls import read_url
from tests.servers.redis import PROGRAMS, RedisServer, find_ports, running_redis
from tests.servers.redis_sets import running_cluster, running_sentinels

from .heard import listening

INSTALLED = [name for name in PROGRAMS if name == "redis"]


class Papers(NamedTuple):
    """Files: the authority's certificate, and a server's for 127.0.0.1."""

    ca: Path
    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        return {
            "tls-cert-file": str(self.certificate), "tls-key-file": str(self.key), "tls-ca-cert-file": str(self.ca),
            "tls-auth-clients": "no", "tls-replication": "yes",
        }  # fmt: skip


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    made = Papers(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(made.ca))
    issued.private_key_pem.write_to_path(str(made.key))
    for part in issued.cert_chain_pems:
        part.write_to_path(str(made.certificate), append=True)
    return made


@asynccontextmanager
async def tls_front(server: RedisServer, papers: Papers) -> AsyncIterator[int]:
    """Ends TLS before a server. The port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(papers.certificate, papers.key)
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(str(server.path))
        for task in (asyncio.create_task(carry(reader, far_writer)), asyncio.create_task(carry(far_reader, writer))):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    front = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield front.sockets[0].getsockname()[1]
    finally:
        front.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_server_whose_certificate_is_trusted_is_used(redis_server: RedisServer, redis_prefix: str, papers: Papers) -> None:
    async with tls_front(redis_server, papers) as port, listening(f"rediss://127.0.0.1:{port}", papers.ca) as heard:
        await heard.subscriber.subscribe(redis_prefix)
        await heard.publish(redis_prefix, b"x" * 2**20)
        await heard.until(lambda: heard.messages == [(redis_prefix, b"x" * 2**20)])
        heard.subscriber.reconnect()
        await heard.until(lambda: heard.confirmed[redis_prefix] == 2)
        assert await heard.client.read_stream(redis_prefix, "0-0", 1, 0.01) == []


async def test_a_certificate_that_is_not_trusted_is_refused(redis_server: RedisServer, papers: Papers) -> None:
    async with tls_front(redis_server, papers) as port:
        for url, ca in ((f"rediss://127.0.0.1:{port}", None), (f"rediss://localhost:{port}", papers.ca)):
            client = Client(read_url(url), tls_ca=ca)
            with pytest.raises(BrokerUnavailable, match="The certificate that Redis shows is not trusted"):
                await client.open()


async def test_plain_text_and_tls_do_not_meet(redis_server: RedisServer, papers: Papers) -> None:
    async with tls_front(redis_server, papers) as port:
        client = Client(read_url(f"redis://127.0.0.1:{port}"))
        with pytest.raises(BrokerUnavailable):
            await client.open()


async def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name, message in (("missing.pem", "No such file or directory"), ("empty.pem", "it holds no certificate")):
        client = Client.from_options(RedisOptions(url="rediss://127.0.0.1:1", tls_ca=tmp_path / name))
        with pytest.raises(ConfigurationError, match=rf"^redis.tls_ca: '.*{name}' cannot be read: {message}"):
            await client.open()


@pytest.mark.parametrize("kind", [f"{kind}-{name}" for kind in ("single", "sentinel", "cluster") for name in INSTALLED])
async def test_every_connection_of_every_kind_uses_it(kind: str, redis_prefix: str, papers: Papers) -> None:
    program = PROGRAMS["redis"]
    if kind.startswith("single"):
        port = find_ports(1)[0]
        with running_redis(program, **papers.settings, **{"tls-port": str(port)}) as server:
            await use(f"rediss://127.0.0.1:{server.port}", redis_prefix, papers)
    elif kind.startswith("sentinel"):
        with running_sentinels(program, settings=papers.settings) as own:
            await use(own.url, redis_prefix, papers)
    else:
        with running_cluster(program, settings=papers.settings | {"tls-cluster": "yes"}) as cluster:
            await use(cluster.url, redis_prefix, papers)


async def use(url: str, prefix: str, papers: Papers) -> None:
    async with listening(url, papers.ca) as heard:
        for number in range(20):
            await heard.subscriber.subscribe(f"{prefix}:{number}")
            await heard.hears(f"{prefix}:{number}")
            await heard.client.command("SET", f"{prefix}:{number}", 1)
    client = Client(read_url(url))
    with pytest.raises(BrokerUnavailable, match="not trusted"):
        await client.open()
