"""Settings that give up something which is safe by default. `check` warns of each; the page on security says when it is right all the same.

What a server refuses to start with is refused where the option is read, and not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

from ..auth.authentication import MAX_LIFETIME
from ..backends.redis.urls import read_url
from ..config import RealtimeConfig

LONG = 300.0
"""Seconds past which a leeway or a grace is no allowance for clocks and networks any more."""


class Exposure(NamedTuple):
    """`option`: its dotted path; where a group is meant, the group's. `costs`: what is given up, one sentence without its end."""

    option: str
    is_so: Callable[[RealtimeConfig], bool]
    costs: str


def find_exposures(config: RealtimeConfig) -> Iterator[Exposure]:
    """Those of a configuration."""
    return (exposure for exposure in EXPOSURES if exposure.is_so(config))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name alone; nothing is looked up."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _has_open_keys(config: RealtimeConfig) -> bool:
    parts = urlsplit(config.authentication.jwks_url or "")
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _has_open_redis(config: RealtimeConfig) -> bool:
    addresses = [group.address for group in (config.queue.redis, config.scaling.redis) if group is not None]
    if (config.queue.url or "").startswith("redis"):
        addresses.append(read_url(config.queue.url or ""))
    hosts = [host for address in addresses if not address.is_tls and not address.path for host, _ in address.nodes or ((address.host, 0),)]
    return not all(map(is_loopback, hosts))


def _trusts_everybody(config: RealtimeConfig) -> bool:
    return any(ip_network(text, strict=False).prefixlen == 0 for text in config.trusted_proxies or ())


def _gives_every_room(config: RealtimeConfig) -> bool:
    return "*" in (config.authorization.permissions or {})


EXPOSURES = (
    Exposure("cors.origin", lambda config: "*" in (config.cors.origin or ()), "any web page may connect from its visitors' browsers"),
    Exposure(
        "authentication.jwks_url",
        _has_open_keys,
        "keys come as plain text: who can change them on the way can sign tokens for anybody; use https",
    ),
    Exposure(
        "authentication.query_parameter",
        lambda config: config.authentication.query_parameter is not None,
        "tokens stand in URLs, and so in the logs of proxies and in browsers' histories",
    ),
    Exposure(
        "authentication.leeway",
        lambda config: config.authentication.leeway > LONG,
        "expired tokens are taken for more than five minutes",
    ),
    Exposure(
        "authentication.expiry_grace",
        lambda config: config.authentication.expiry_grace > LONG,
        "connections outlive their tokens by more than five minutes",
    ),
    Exposure(
        "authentication.max_lifetime",
        lambda config: config.authentication.max_lifetime > MAX_LIFETIME,
        "tokens may be valid for more than 30 days, and revocations are forgotten at a restart",
    ),
    Exposure(
        "authorization.permissions",
        _gives_every_room,
        "the pattern * gives every user the rooms of all tenants",
    ),
    Exposure("trusted_proxies", _trusts_everybody, "anybody may say which address he comes from, so no limit per address holds"),
    Exposure(
        "limits",
        lambda config: any(value is None for name, value in config.limits if "_burst" not in name),
        "some limits are off: one client can take what was meant for all",
    ),
    Exposure(
        "connections.max_connections",
        lambda config: config.connections.max_connections is None,
        "the end is where the system has no descriptor or memory left",
    ),
    Exposure(
        "scaling.redis.url",
        _has_open_redis,
        "events cross the network to Redis as plain text; use rediss:// unless that network is yours alone",
    ),
    Exposure(
        "tls",
        lambda config: config.tls is None and not config.trusted_proxies and not is_loopback(config.host),
        "the port speaks plain text to the network: give a certificate, or put a proxy with TLS before it and name it in trusted_proxies",
    ),
)
