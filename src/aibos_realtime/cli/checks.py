"""What `check` looks at: secret, port, descriptors, event loop, certificate, store, queue, nodes, safety, variables. It changes nothing."""

from __future__ import annotations

import asyncio
import difflib
import errno
import os
import resource
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Literal

from ..auth.authentication import WebSocketAuth
from ..backends.redis.client import Client
from ..backends.redis.options import RedisOptions, placed
from ..backends.sql.database import Database
from ..backends.sql.options import DatabaseOptions
from ..clock import SYSTEM_CLOCK
from ..config import VARIABLES, RealtimeConfig
from ..errors import BrokerUnavailable, ConfigurationError, RealtimeError
from ..server.assembly import assemble
from ..server.descriptors import descriptors_for, places_of
from ..storage.queue import MessageQueue, MessageQueueOptions
from ..transport.batch import Sender
from .exposures import find_exposures
from .target import show_duration
from .values import show

Status = Literal["ok", "warning", "failed"]

CERTIFICATE_WARNING = 14 * 86_400.0

_KNOWN = (*VARIABLES, "REALTIME_URL", "REALTIME_TOKEN", "REALTIME_API_KEY")


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, how it stands, and one sentence."""

    name: str
    status: Status
    message: str


def run_checks(config: RealtimeConfig, sources: Mapping[str, str]) -> list[Finding]:
    """Every check of a configuration that could be read."""
    found = [check_authentication(config)]
    if (parts := check_parts(config)) is not None and not found[0].message.startswith(parts.message):
        found.append(parts)
    found += [
        check_port(config.host, config.port),
        check_descriptors(config.connections.max_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
    ]
    found += [check_loop(find_spec("uvloop") is not None), check_sender(Sender(config.sender))]
    if config.tls is not None:
        found.append(check_certificate(config, datetime.now(UTC)))
    found.append(check_store(config.persistence.database))
    if config.queue.redis is not None or config.queue.url is not None:
        found.append(check_queue(config.queue))
    if config.scaling.enabled:
        found.append(check_nodes(config))
    return found + check_safety(config)


def check_authentication(config: RealtimeConfig) -> Finding:
    """Whether there is a key, long enough and known from nowhere."""
    try:
        auth = WebSocketAuth.from_options(config.authentication)
    except ConfigurationError as error:
        advice = "; set JWT_SECRET to a random text" if "jwt_secret" in str(error) else ""
        return Finding("authentication", "failed", f"{error}{advice}")
    kind = next(name for name in ("jwt_secret", "jwks_url", "public_key") if getattr(config.authentication, name) is not None)
    return Finding("authentication", "ok", f"tokens are verified with {kind}" + ("" if auth.can_issue else "; they come from somebody else"))


def check_parts(config: RealtimeConfig) -> Finding | None:
    """Whether a server can be made of it; None where nothing is left to say."""
    try:
        assemble(config, clock=SYSTEM_CLOCK)
    except ConfigurationError as error:
        return Finding("configuration", "failed", str(error))
    return Finding("configuration", "ok", "a server can be made of it")


def check_safety(config: RealtimeConfig) -> list[Finding]:
    """Settings that are less safe than the default."""
    found = [Finding("safety", "warning", f"{exposure.option}: {exposure.costs}") for exposure in find_exposures(config)]
    return found or [Finding("safety", "ok", "no setting is less safe than the default")]


def check_port(host: str, port: int) -> Finding:
    """Whether the address can be bound, by binding it for a moment."""
    try:
        places = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in places:
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                tried.bind(address)
                tried.listen(1)
    except socket.gaierror as error:
        return Finding("port", "failed", f"the host {host} is not known ({error.strerror})")
    except OSError as error:
        why = "is taken: does the server run already?" if error.errno == errno.EADDRINUSE else f"cannot be listened on: {error.strerror}"
        return Finding("port", "failed", f"{host}:{port} {why}")
    return Finding("port", "ok", f"{host}:{port} is free")


def check_descriptors(connections: int | None, limit: int) -> Finding:
    """Whether every connection allowed can have its file descriptor. `limit`: up to which a process of this user may raise its own."""
    if limit == resource.RLIM_INFINITY:
        return Finding("descriptors", "ok", "there is no limit on open files")
    if connections is None:
        message = f"max_connections is off, and {limit} open files are the end, after {places_of(limit)} connections: set it, or raise `ulimit -n`"
        return Finding("descriptors", "warning", message)
    if places_of(limit) < connections:
        needed = descriptors_for(connections)
        message = f"{limit} open files are allowed, enough for {places_of(limit)} connections; {connections} need {needed}: ulimit -n {needed}"
        return Finding("descriptors", "warning", message)
    return Finding("descriptors", "ok", f"{limit} open files are allowed, enough for {connections} connections")


def check_store(options: DatabaseOptions) -> Finding:
    """Whether the database answers, with the schema that this version needs."""
    database = Database.from_options(options)
    if options.url.startswith("memory:"):
        return Finding("store", "warning", "events live in memory alone: a restart forgets them")
    try:
        version = asyncio.run(database.find_version())
    except RealtimeError as error:
        return Finding("store", "failed", f"persistence.{error}" if isinstance(error, ConfigurationError) else f"{database.url_shown}: {error}")
    from ..backends.sql.versions import known_versions

    known = known_versions()
    if version == known[-1]:
        return Finding("store", "ok", f"{database.url_shown} has the schema, version {version}")
    if version is not None and version not in known:
        return Finding("store", "failed", f"{database.url_shown} has version {version} of the schema: install the newer aibos-realtime that made it")
    if database.dialect == "sqlite":
        return Finding("store", "ok", f"{database.url_shown} gets its schema when the server starts")
    has = f"version {version} of the schema" if version else "no tables of aibos-realtime"
    return Finding("store", "failed", f"{database.url_shown} has {has}: run `aibos-realtime database upgrade`")


def check_queue(options: MessageQueueOptions) -> Finding:
    """Whether the place of the queue answers."""

    async def connect() -> None:
        async with MessageQueue(redis=options.redis, url=options.url):
            pass

    try:
        asyncio.run(connect())
    except (BrokerUnavailable, ConfigurationError) as error:
        return Finding("queue", "failed", str(error if options.redis is None else placed(error, "queue.redis", options.redis)))
    except RealtimeError as error:
        return Finding("queue", "failed", f"queue.url: {error} ({show(options.url)})")
    return Finding("queue", "ok", "the queue's store answers")


def check_nodes(config: RealtimeConfig) -> Finding:
    """Whether the place where the nodes meet answers, and whether they can all reach the database."""

    async def connect(redis: RedisOptions) -> None:
        client = Client.from_options(redis)
        await client.open()
        await client.close()

    assert config.nodes_redis is not None
    group = "scaling" if config.scaling.redis is not None else "queue"
    try:
        asyncio.run(connect(config.nodes_redis))
    except (BrokerUnavailable, ConfigurationError) as error:
        return Finding("nodes", "failed", str(placed(error, f"{group}.redis", config.nodes_redis)))
    if config.persistence.database.url.startswith("sqlite:"):
        return Finding("nodes", "warning", "Redis answers; all nodes must be on this machine, since they share an SQLite file: else use PostgreSQL")
    if config.scaling.instance_url is None:
        return Finding("nodes", "warning", "Redis answers; without INSTANCE_URL this server is in nobody's list of instances")
    return Finding("nodes", "ok", "Redis answers")


def check_loop(has_uvloop: bool) -> Finding:
    """Which event loop the server would run on."""
    if has_uvloop:
        return Finding("event loop", "ok", "uvloop")
    return Finding("event loop", "warning", "asyncio's own; with uvloop the server does more per second: pip install uvloop")


def check_sender(sender: Sender) -> Finding:
    """What the server would hand events to the kernel with."""
    try:
        sender.open()
    except ConfigurationError as error:
        return Finding("sender", "failed", str(error))
    engine = sender.engine
    sender.close()
    if engine == "python" and sender.wanted == "auto":
        return Finding("sender", "warning", "python; the compiled part makes events cheaper: install again with a C compiler and Python's headers")
    return Finding("sender", "ok", engine)


def check_certificate(config: RealtimeConfig, now: datetime) -> Finding:
    """How long the certificate is valid. That it can be loaded with its key is checked with the parts."""
    from cryptography.x509 import load_pem_x509_certificate

    assert config.tls is not None
    path = config.tls.certificate
    try:
        left = (load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc - now).total_seconds()
    except (OSError, ValueError) as error:
        return Finding(
            "certificate",
            "failed",
            f"tls.certificate: {path} cannot be read ({getattr(error, 'strerror', None) or 'it is no PEM certificate'})",
        )
    if left <= 0:
        return Finding("certificate", "failed", f"tls.certificate: {path} expired {show_duration(-left)} ago: renew it")
    return Finding("certificate", "warning" if left < CERTIFICATE_WARNING else "ok", f"{path} is valid for another {show_duration(left)}")


def check_environment(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Variables that nothing reads."""
    found = []
    for name in sorted(environment):
        if name in _KNOWN:
            continue
        if name.startswith(("REALTIME_", "JWT_")) or difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.85):
            near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.8)
            if name.startswith("REALTIME_") or near:
                found.append(
                    Finding("environment", "warning", f"{name} is set, and nothing reads it" + (f"; did you mean {near[0]}?" if near else ""))
                )
    return found
